//! Makes the checks of registrations that ask for it: connects to the service, or sends it a GET. With
//! etcd, the elected process does so for all.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use wharf_net::http::status_of;

use crate::address::is_loopback;
use crate::directory::Directory;
use crate::record::{Key, Record, Write};
use crate::upkeep::{AGAIN, Amendment, HttpProbe, Probe, Status, one_line};

/// How often it is looked which checks are due.
const TICK: Duration = Duration::from_millis(200);

/// The most checks that begin in one tick.
const PER_TICK: usize = 100;

/// The most checks at a time.
const AT_A_TIME: usize = 256;

/// Checks begin at another moment each, within this time after the registration.
const SPREAD: Duration = Duration::from_secs(1);

/// The most names that are looked up at a time.
static LOOKUPS: Semaphore = Semaphore::const_new(16);

/// Which check of which registration.
type Which = (Key, String);

/// A check that is made again and again.
struct Planned {
    probe: Probe,
    status: Status,
    /// As was written last.
    output: String,
    next: Instant,
    running: bool,
    /// What was found last could not be written.
    unwritten: bool,
    /// How often in succession it went well, and badly.
    row: [u32; 2],
    drop_after: Option<Duration>,
    critical_since: Option<Instant>,
}

/// What came of a check.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    status: Status,
    output: String,
}

/// Makes checks for as long as the registry lives.
pub(crate) async fn probe(directory: Arc<Directory>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut planned = HashMap::<Which, Planned>::new();
    let mut known = None;
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Some(done) = running.join_next() => {
                if let Ok((which, found)) = done
                    && let Some(plan) = planned.get_mut(&which)
                {
                    plan.running = false;
                    if let Some(amendment) = plan.take(&which, found) {
                        plan.unwritten = !write(&directory, &which.0, amendment).await;
                    }
                }
                continue;
            }
        }
        if !directory.is_checked_here() {
            planned.clear();
            known = None;
            continue;
        }
        if let Some((number, records)) = directory.view.probed(known) {
            known = Some(number);
            planned = plan(planned, &records);
        }
        let now = Instant::now();
        for ((key, check), _) in planned.iter().filter(|(_, plan)| plan.is_over(now)) {
            drop_overdue(&directory, key, check).await;
        }
        // Whoever waits for longest comes first.
        let due = planned.iter_mut().filter(|(_, plan)| !plan.running && plan.next <= now);
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(_, plan)| plan.next);
        let places = PER_TICK.min(AT_A_TIME.saturating_sub(running.len()));
        for (which, plan) in due.into_iter().take(places) {
            plan.running = true;
            plan.next = now + plan.probe.interval();
            let (which, probe) = (which.clone(), plan.probe.clone());
            running.spawn(async move { (which, attempt(&probe).await) });
        }
    }
}

async fn write(directory: &Directory, key: &Key, amendment: Amendment) -> bool {
    let written = directory.amend(key.clone(), amendment).await;
    if let Err(problem) = &written {
        tracing::debug!(service = %key, %problem, "what a check found could not be written");
    }
    written.is_ok()
}

/// Drops a service whose check was critical for as long as it said, unless that has changed meanwhile.
async fn drop_overdue(directory: &Directory, key: &Key, check: &str) {
    let write = Write::Overdue { check: check.to_owned() };
    match directory.write(key.name(), key.clone(), write).await {
        Ok(written) if written.removed => {
            tracing::warn!(service = %key, check, "a service was critical for as long as it said: it is dropped");
        }
        Ok(_) => {}
        Err(problem) => {
            tracing::warn!(service = %key, %problem, "it could not be dropped; the registry tries again");
        }
    }
}

/// The plan for these records. What is planned already goes on.
fn plan(
    mut before: HashMap<Which, Planned>,
    records: &[(Key, Arc<Record>)],
) -> HashMap<Which, Planned> {
    let now = Instant::now();
    let mut planned = HashMap::new();
    for (key, record) in records {
        let Some(upkeep) = &record.upkeep else { continue };
        for (check, probe) in upkeep.probes() {
            let which = (key.clone(), check.id.clone());
            let known = before.remove(&which).filter(|known| known.probe == *probe);
            let spread = SPREAD.min(probe.interval());
            let mut plan = known.unwrap_or_else(|| Planned {
                probe: probe.clone(),
                status: check.status,
                output: String::new(),
                next: now + spread.mul_f64(fastrand::f64()),
                running: false,
                unwritten: false,
                row: [0, 0],
                drop_after: None,
                critical_since: None,
            });
            if check.output == AGAIN && plan.output != AGAIN {
                plan.critical_since = None;
                plan.next = now;
            }
            plan.status = check.status;
            plan.output.clone_from(&check.output);
            plan.drop_after = check.drop_after();
            match check.status {
                Status::Critical => plan.critical_since = plan.critical_since.or(Some(now)),
                Status::Passing | Status::Warning => plan.critical_since = None,
            }
            planned.insert(which, plan);
        }
    }
    planned
}

impl Planned {
    /// Takes what a check found. Returns what has to be written.
    fn take(&mut self, which: &Which, found: Found) -> Option<Amendment> {
        let bad = found.status == Status::Critical;
        self.row = match bad {
            true => [0, self.row[1].saturating_add(1)],
            false => [self.row[0].saturating_add(1), 0],
        };
        // As in Consul: the last of so many in a row counts.
        let patient = self.row[usize::from(bad)] < self.probe.patience[usize::from(bad)];
        let same = (self.status, &self.output) == (found.status, &found.output);
        if (same && !self.unwritten) || (patient && self.status != found.status) {
            return None;
        }
        // Until it was written and comes back.
        (self.status, self.output) = (found.status, found.output.clone());
        let Found { status, output } = found;
        Some(Amendment::Report { check: which.1.clone(), status, output, by_owner: false })
    }

    /// Whether the registration was critical for as long as it said.
    fn is_over(&self, now: Instant) -> bool {
        self.drop_after.zip(self.critical_since).is_some_and(|(after, since)| now >= since + after)
    }
}

async fn attempt(probe: &Probe) -> Found {
    let limit = probe.timeout();
    if let Some(machine) = probe.machine.as_ref().filter(|machine| **machine != own_machine()) {
        let why = format!("only a registry on {machine} can check what is on its loopback");
        return critical(probe, &why);
    }
    let attempt = async {
        let stream = connect(&probe.address).await?;
        match &probe.http {
            None => Ok(Found {
                status: Status::Passing,
                output: format!("TCP connect {}: success", probe.address),
            }),
            Some(http) => get(stream, &probe.address, http).await,
        }
    };
    match timeout(limit, attempt).await {
        Ok(Ok(found)) => found,
        Ok(Err(why)) => critical(probe, &why),
        Err(_) => critical(probe, &format!("no answer within {limit:?}")),
    }
}

fn critical(probe: &Probe, why: &str) -> Found {
    let how = match &probe.http {
        None => format!("TCP connect {}", probe.address),
        Some(http) => format!("HTTP GET http://{}{}", probe.address, http.path),
    };
    let output = one_line(&format!("{how}: {why}"));
    Found { status: Status::Critical, output }
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let resolved = look_up(address).await.map_err(|why| format!("'{host}' is not found: {why}"))?;
    let here = is_loopback(host.trim_matches(['[', ']']));
    let mut why = format!("'{host}' has no address that is checked");
    for address in resolved.into_iter().filter(|address| may_be_checked(*address, here)) {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

/// The addresses of a name. A lookup keeps its place until it ends, even if nobody waits for it any more:
/// each takes a thread of the system's for so long.
pub(crate) async fn look_up(address: &str) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    // The semaphore is never closed.
    let place = LOOKUPS.acquire().await.map_err(|error| error.to_string())?;
    let address = address.to_owned();
    let lookup = tokio::spawn(async move {
        let found = tokio::net::lookup_host(address).await;
        drop(place);
        found.map(Iterator::collect).map_err(|error| error.to_string())
    });
    lookup.await.map_err(|error| error.to_string())?
}

/// What this machine calls itself.
pub(crate) fn own_machine() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}

/// Whether a service can be at an address. Names must not lead the registry to its own machine (`here`: it
/// was named outright), nor to what only neighbours are meant to reach, such as a cloud's metadata.
fn may_be_checked(address: SocketAddr, here: bool) -> bool {
    match address.ip().to_canonical() {
        ip if ip.is_loopback() => here,
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified() && !ip.is_multicast(),
    }
}

/// As Consul judges: 2xx passes, 429 is a warning. Redirects are not followed, and bodies are not read.
async fn get(stream: TcpStream, address: &str, http: &HttpProbe) -> Result<Found, String> {
    let asked = status_of(stream, &http.host, &http.path, "wharf-registry").await;
    let answered = asked.map_err(|error| error.to_string())?;
    let status = match answered {
        status if status.is_success() => Status::Passing,
        StatusCode::TOO_MANY_REQUESTS => Status::Warning,
        _ => Status::Critical,
    };
    let output = format!("HTTP GET http://{address}{}: {answered}", http.path);
    Ok(Found { status, output: one_line(&output) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(status: Status, patience: [u32; 2]) -> (Which, Planned) {
        let probe = Probe {
            address: "127.0.0.1:1".to_owned(),
            http: None,
            interval_ms: 1_000,
            timeout_ms: 1_000,
            patience,
            machine: None,
        };
        let plan = Planned {
            probe,
            status,
            output: String::new(),
            next: Instant::now(),
            running: false,
            unwritten: false,
            row: [0, 0],
            drop_after: None,
            critical_since: None,
        };
        ((Key::classic("a", "127.0.0.1:1"), "c".to_owned()), plan)
    }

    fn found(status: Status, output: &str) -> Found {
        Found { status, output: output.to_owned() }
    }

    #[tokio::test]
    async fn what_is_found_again_is_written_once_and_patience_is_kept() {
        let (which, mut plan) = planned(Status::Critical, [2, 3]);
        assert!(plan.take(&which, found(Status::Passing, "ok")).is_none(), "one more has to pass");
        assert!(plan.take(&which, found(Status::Critical, "no")).is_some(), "why it is critical");
        assert!(plan.take(&which, found(Status::Critical, "no")).is_none());
        assert!(plan.take(&which, found(Status::Passing, "ok")).is_none());
        assert!(plan.take(&which, found(Status::Passing, "ok")).is_some());
        assert!(plan.take(&which, found(Status::Passing, "ok")).is_none());
        assert!(plan.take(&which, found(Status::Critical, "no")).is_none());
        assert!(plan.take(&which, found(Status::Critical, "no")).is_none());
        assert!(plan.take(&which, found(Status::Critical, "no")).is_some(), "the third in a row");
        assert!(plan.take(&which, found(Status::Critical, "no")).is_none());
        plan.unwritten = true;
        assert!(plan.take(&which, found(Status::Critical, "no")).is_some(), "it is not known yet");
    }

    #[test]
    fn names_lead_nowhere_where_no_service_is() {
        let may = |address: &str, here| may_be_checked(address.parse().unwrap(), here);
        assert!(may("10.0.0.7:1", false) && may("[fd00::7]:1", false) && may("127.0.0.1:1", true));
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "0.0.0.0:1"] {
            assert!(!may(address, false), "{address}");
        }
        for address in
            ["169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80", "224.0.0.1:1"]
        {
            assert!(!may(address, true), "{address}");
        }
    }
}
