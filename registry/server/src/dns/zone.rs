//! Which names there are, in the terms of Consul's DNS, and what is behind them.
//! <https://developer.hashicorp.com/consul/docs/services/discovery/dns-static-lookups>

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use wharf_registry_api::EndpointState;

use crate::address::split;
use crate::catalog::Named;
use crate::directory::Directory;
use crate::http::DATACENTER;
use crate::view::Scope;

pub(super) struct Zone {
    directory: Arc<Directory>,
    /// Each domain's labels.
    domains: Vec<Vec<String>>,
}

/// What a name is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The domain itself.
    Apex,
    /// `SERVICE.service`, `TAG.SERVICE.service`, `_SERVICE._TAG.service`
    Service { name: String, tag: Option<String> },
    /// `NODE.node`
    Node(String),
    /// `HEX.addr`: the name of an address, for the target of an SRV record.
    Address(IpAddr),
    /// A name between the others, under which there are names.
    Between,
}

/// Where something can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: Host,
    pub(super) port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Zone {
    pub(super) fn new(directory: Arc<Directory>, domains: &[String]) -> Self {
        let labels = |domain: &String| {
            domain.trim_matches('.').to_ascii_lowercase().split('.').map(str::to_owned).collect()
        };
        Zone { directory, domains: domains.iter().map(labels).collect() }
    }

    /// Splits a name's labels, in lower case, into the domain that it is in and what is before that.
    pub(super) fn split<'l>(&self, labels: &'l [String]) -> Option<(&'l [String], &'l [String])> {
        let own = self.domains.iter().filter(|domain| labels.ends_with(domain));
        let domain = own.max_by_key(|domain| domain.len())?;
        Some(labels.split_at(labels.len() - domain.len()))
    }

    /// The number of the last change, for a zone's serial.
    pub(super) fn serial(&self) -> u64 {
        self.directory.plain_index(Scope::All)
    }

    /// The addresses of a name; `None`: there is no such name.
    pub(super) fn places(&self, asked: &Asked) -> Option<Vec<Place>> {
        match asked {
            Asked::Apex | Asked::Between => Some(Vec::new()),
            Asked::Address(ip) => Some(vec![Place { host: Host::Ip(*ip), port: 0 }]),
            Asked::Node(node) => {
                let (_, hosts) = self.directory.listed(Scope::Node(node));
                let address = hosts.first().map(|host| host.record.address.clone());
                let address = address.or_else(|| {
                    // Names of machines often have capitals, which DNS does not have.
                    let named = self.directory.view.named(&Named::LowerNode(node.clone()));
                    named.first().map(|(_, record)| record.address.clone())
                });
                Some(vec![place(&address?)])
            }
            Asked::Service { name, tag } => {
                let service = crate::validate::service(name).ok()?;
                let (_, hosts) = self.directory.listed(Scope::Service(&service));
                // Whoever was not heard lately is named only if nobody was.
                let [mut sure, mut unsure] = [Vec::new(), Vec::new()];
                let mut exists = false;
                for host in &hosts {
                    for spec in host.record.endpoints.iter().filter(|spec| spec.service == service)
                    {
                        let tagged = tag.as_ref().is_none_or(|tag| has_tag(&spec.tags, tag));
                        exists |= tagged;
                        if tagged && host.record.state_of(spec) == EndpointState::Serving {
                            let places = if host.doubted { &mut unsure } else { &mut sure };
                            places.push(place(&host.record.address));
                        }
                    }
                }
                exists.then_some(if sure.is_empty() { unsure } else { sure })
            }
        }
    }
}

/// Names are compared in any case.
fn has_tag(tags: &[String], tag: &str) -> bool {
    tags.iter().any(|known| known.eq_ignore_ascii_case(tag))
}

fn place(address: &str) -> Place {
    let (host, port) = split(address);
    let host = host.parse().map_or_else(|_| Host::Name(host.to_owned()), Host::Ip);
    Place { host, port }
}

/// What the labels before a domain ask for; `None`: nothing that there could be.
pub(super) fn asked(labels: &[String]) -> Option<Asked> {
    let mut labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    if labels.last() == Some(&DATACENTER) {
        labels.pop();
        if labels.is_empty() {
            return Some(Asked::Between);
        }
    }
    let Some(kind) = labels.pop() else { return Some(Asked::Apex) };
    let between = labels.is_empty();
    match kind {
        "service" | "node" | "addr" if between => Some(Asked::Between),
        "service" => service(&labels),
        "node" => Some(Asked::Node(labels.join("."))),
        "addr" => labels.first().filter(|_| labels.len() == 1).and_then(|hex| address(hex)),
        _ => None,
    }
}

fn service(labels: &[&str]) -> Option<Asked> {
    let (name, tag) = match labels {
        [name] => (*name, None),
        // RFC 2782; the transport stands where a tag can stand.
        [name, tag] if name.starts_with('_') && tag.starts_with('_') => {
            let tag = Some(&tag[1..]).filter(|tag| !matches!(*tag, "tcp" | "udp"));
            (&name[1..], tag)
        }
        [tag, name] => (*name, Some(*tag)),
        _ => return None,
    };
    Some(Asked::Service { name: name.to_owned(), tag: tag.map(str::to_owned) })
}

/// The address that a name of [`hex`] stands for.
fn address(hex: &str) -> Option<Asked> {
    if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let ip = match hex.len() {
        8 => Ipv4Addr::from(u32::from_str_radix(hex, 16).ok()?).into(),
        32 => Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?).into(),
        _ => return None,
    };
    Some(Asked::Address(ip))
}

/// A label for an address.
pub(super) fn hex(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("{:08x}", u32::from(ip)),
        IpAddr::V6(ip) => format!("{:032x}", u128::from(ip)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(name: &str) -> Option<Asked> {
        let labels: Vec<String> =
            name.split('.').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        asked(&labels)
    }

    #[test]
    fn names_are_read_as_consul_reads_them() {
        let service = |name: &str, tag: Option<&str>| {
            Some(Asked::Service { name: name.to_owned(), tag: tag.map(str::to_owned) })
        };
        assert_eq!(asks("arith.service"), service("arith", None));
        assert_eq!(asks("blue.arith.service.dc1"), service("arith", Some("blue")));
        assert_eq!(asks("_arith._blue.service"), service("arith", Some("blue")));
        assert_eq!(asks("_arith._tcp.service"), service("arith", None));
        assert_eq!(asks("box-1.rack.node"), Some(Asked::Node("box-1.rack".to_owned())));
        for ip in ["10.0.0.7", "fd00::7"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(asks(&format!("{}.addr.dc1", hex(ip))), Some(Asked::Address(ip)));
        }
        assert_eq!(asks(""), Some(Asked::Apex));
        for between in ["service", "dc1", "node.dc1"] {
            assert_eq!(asks(between), Some(Asked::Between), "{between}");
        }
        for nothing in ["arith", "a.b.c.service", "arith.service.dc2", "7f.addr", "zz000001.addr"] {
            assert_eq!(asks(nothing), None, "{nothing}");
        }
    }
}
