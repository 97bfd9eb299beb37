//! From the bytes of a question to those of its answer.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::zone::{Asked, Host, Place, Zone, asked, hex};

/// For how long an answer may be believed, in seconds; also that there is none.
const TTL: u32 = 5;

/// The largest datagram, in bytes, whatever its receiver says: larger ones are cut into pieces on the way,
/// and get lost (RFC 9715).
const LARGEST_DATAGRAM: u16 = 1232;

/// What every receiver takes.
const SMALLEST: u16 = 512;

/// The most answers to one question.
const MOST: usize = 1_000;

/// The bytes of a message's head.
const HEAD: usize = 12;

/// How a question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Datagram,
    Connection,
}

/// The answer to a question. Without one, nothing is sent: what was sent is an answer itself, or nothing
/// that can be answered.
pub(super) fn answer(question: &[u8], zone: &Zone, transport: Transport) -> Option<Vec<u8>> {
    let head = question.first_chunk::<HEAD>()?;
    if head[2] & 0x80 != 0 {
        return None;
    }
    let Ok(asked) = Message::from_vec(question) else {
        let id = u16::from_be_bytes([head[0], head[1]]);
        return Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok();
    };
    let most = match (transport, &asked.edns) {
        (Transport::Connection, _) => u16::MAX,
        (Transport::Datagram, None) => SMALLEST,
        (Transport::Datagram, Some(edns)) => edns.max_payload().clamp(SMALLEST, LARGEST_DATAGRAM),
    };
    let answer = answered(&asked, zone);
    fitted(answer, usize::from(most))
}

fn answered(asked: &Message, zone: &Zone) -> Message {
    let head = &asked.metadata;
    let mut answer = Message::new(head.id, MessageType::Response, head.op_code);
    answer.metadata.recursion_desired = head.recursion_desired;
    answer.queries.clone_from(&asked.queries);
    let code = match &asked.edns {
        Some(edns) => {
            let mut own = Edns::new();
            own.set_max_payload(LARGEST_DATAGRAM);
            answer.set_edns(own);
            (edns.version() > 0).then_some(ResponseCode::BADVERS)
        }
        None => None,
    };
    let code = code.unwrap_or_else(|| match (head.op_code, &asked.queries[..]) {
        (OpCode::Query, [query]) if query.query_class() == DNSClass::IN => {
            fill(&mut answer, query.name(), query.query_type(), zone)
        }
        (OpCode::Query, [_]) => ResponseCode::Refused,
        (OpCode::Query, _) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    });
    answer.metadata.response_code = code;
    if let Some(edns) = &mut answer.edns {
        edns.set_rcode_high(code.high());
    }
    answer
}

/// Fills in what there is about a name.
fn fill(answer: &mut Message, name: &Name, kind: RecordType, zone: &Zone) -> ResponseCode {
    let labels: Vec<String> =
        name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect();
    let Some((before, domain)) = zone.split(&labels) else { return ResponseCode::Refused };
    answer.metadata.authoritative = true;
    let asked = asked(before);
    let places = asked.as_ref().and_then(|asked| zone.places(asked));
    let (Some(asked), Some(mut places)) = (asked, places) else {
        answer.authorities.extend(authority(domain, zone));
        return ResponseCode::NXDomain;
    };
    // Many callers take the first one.
    fastrand::shuffle(&mut places);
    places.truncate(MOST);
    match kind {
        RecordType::SRV if matches!(asked, Asked::Service { .. }) => {
            for place in places {
                services(answer, name, &place, domain);
            }
        }
        RecordType::A | RecordType::AAAA | RecordType::ANY => {
            answer.answers = addresses(name, kind, &places);
        }
        RecordType::SOA if asked == Asked::Apex => answer.answers.extend(authority(domain, zone)),
        _ => {}
    }
    if answer.answers.is_empty() {
        answer.authorities.extend(authority(domain, zone));
    }
    ResponseCode::NoError
}

/// Addresses, each once. If there are only names, one of them stands for the others.
fn addresses(name: &Name, kind: RecordType, places: &[Place]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut known = std::collections::HashSet::new();
    for place in places {
        if let Host::Ip(ip) = place.host
            && wants(kind, ip)
            && known.insert(ip)
        {
            records.push(address(name.clone(), ip));
        }
    }
    let has_ips = places.iter().any(|place| matches!(place.host, Host::Ip(_)));
    if !has_ips
        && let Some(Place { host: Host::Name(host), .. }) = places.first()
        && let Ok(target) = Name::from_ascii(format!("{}.", host.trim_end_matches('.')))
    {
        records.push(Record::from_rdata(name.clone(), TTL, RData::CNAME(CNAME(target))));
    }
    records
}

fn wants(kind: RecordType, ip: IpAddr) -> bool {
    match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        _ => true,
    }
}

fn address(name: Name, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name, TTL, data)
}

/// Where a service is called, with its port, and the address of the name that this needs.
fn services(answer: &mut Message, name: &Name, place: &Place, domain: &[String]) {
    let target = match &place.host {
        Host::Ip(ip) => under(&[&hex(*ip), "addr"], domain),
        Host::Name(host) => Name::from_ascii(format!("{}.", host.trim_end_matches('.'))).ok(),
    };
    let Some(target) = target else { return };
    let service = RData::SRV(SRV::new(1, 1, place.port, target.clone()));
    answer.answers.push(Record::from_rdata(name.clone(), TTL, service));
    if let Host::Ip(ip) = place.host
        && !answer.additionals.iter().any(|known| known.name == target)
    {
        answer.additionals.push(address(target, ip));
    }
}

fn under(labels: &[&str], domain: &[String]) -> Option<Name> {
    let all = labels.iter().copied().chain(domain.iter().map(String::as_str));
    let mut name = Name::from_labels(all.map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// The record that says for how long it may be believed that there is nothing.
fn authority(domain: &[String], zone: &Zone) -> Option<Record> {
    let (server, postmaster) = (under(&["ns"], domain)?, under(&["hostmaster"], domain)?);
    #[expect(clippy::cast_possible_truncation, reason = "serials wrap around (RFC 1982)")]
    let serial = zone.serial() as u32;
    let soa = SOA::new(server, postmaster, serial, 3600, 600, 86_400, TTL);
    Some(Record::from_rdata(under(&[], domain)?, TTL, RData::SOA(soa)))
}

/// The bytes of an answer, with as much of it as fits. The receiver is told if that is not all.
fn fitted(mut answer: Message, most: usize) -> Option<Vec<u8>> {
    let bytes = answer.to_vec().ok();
    if let Some(bytes) = bytes.filter(|bytes| bytes.len() <= most) {
        return Some(bytes);
    }
    // What only spares another question goes first.
    answer.additionals.clear();
    let all = std::mem::take(&mut answer.answers);
    let encoded = |answer: &mut Message, count: usize| {
        answer.answers = all.get(..count).unwrap_or(&all).to_vec();
        answer.metadata.truncation = count < all.len();
        answer.to_vec().ok().filter(|bytes| bytes.len() <= most)
    };
    let (mut fits, mut too_many) = (0, all.len() + 1);
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        match encoded(&mut answer, middle) {
            Some(_) => fits = middle,
            None => too_many = middle,
        }
    }
    encoded(&mut answer, fits)
}
