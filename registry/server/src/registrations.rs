//! Registrations by the classic calls, and by clients of Consul: one address under a name.

use std::net::IpAddr;
use std::sync::Arc;

use wharf_registry_api::{Code, Metadata, Problem, RpcProtocol};

use crate::address::machine;
use crate::catalog::{Named, Probing};
use crate::directory::{Directory, now_in_micros, problem};
use crate::record::{Key, Record, Registration, Write};
use crate::store::WriteError;
use crate::upkeep::{Amendment, Status, Upkeep, one_line};

/// The most registrations with checks that the registry makes.
const MAX_PROBED: usize = 10_000;

/// And the most checks a second that they may ask for.
const MAX_PROBES_PER_SECOND: f64 = 450.0;

/// Which of several registrations with one ID is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfSeveral {
    /// The newest, as for a beat by name.
    Newest,
    /// None: what is asked for must not happen to the wrong one.
    None,
}

/// A service that a client of Consul registers.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: Metadata,
    pub(crate) upkeep: Upkeep,
}

impl Directory {
    pub(crate) async fn register_classic(
        &self,
        name: &str,
        addr: &str,
        registration: Registration,
    ) -> Result<(), Problem> {
        crate::validate::name("name", name)?;
        crate::validate::address(addr)?;
        crate::validate::registration(&registration)?;
        self.room_for_probes(&Key::classic(name, addr), registration.upkeep.as_ref())?;
        // Whoever registers last is the one that its name alone stands for.
        let newest = self.view.classic_addresses(name).pop();
        let session = (newest.as_deref() != Some(addr)).then(now_in_micros);
        let write = Write::Register { session, registration };
        let written = self.write(name, Key::classic(name, addr), write).await?;
        if written.visible {
            tracing::info!(name, addr, "a service was registered");
        }
        Ok(())
    }

    /// Registers a service with its ID. It replaces the service with that ID at the same machine, if
    /// `may_write` allows to write that one's name: other owners have IDs of their own.
    pub(crate) async fn register_named(
        &self,
        registered: Registered,
        may_write: impl Fn(&str) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let Registered { name, address, tags, metadata, upkeep } = registered;
        let key = Key::classic(&name, &address);
        let mut earlier = Vec::new();
        if let Some(id) = &upkeep.id {
            for (known, record) in self.view.named(&Named::Service(id.clone())) {
                let replaces = known != key && machine(&record.address) == machine(&address);
                if replaces && may_write(known.name()).is_ok() {
                    earlier.push(known);
                }
            }
        }
        let registration = Registration {
            tags,
            metadata,
            upkeep: Some(upkeep),
            is_net_rpc: false,
            protocol: RpcProtocol::default(),
            version: None,
        };
        self.register_classic(&name, &address, registration).await?;
        for key in earlier {
            self.withdraw_registration(&key).await?;
        }
        Ok(())
    }

    /// Keeps a classic registration alive: the one at this address, or else the newest of the name.
    pub(crate) async fn heartbeat_classic(
        &self,
        name: &str,
        addr: Option<&str>,
    ) -> Result<(), Problem> {
        let address = self.classic_address(name, addr).await?;
        let key = Key::classic(name, &address);
        let record = self.view.record(&key);
        let upkeep = record.as_ref().and_then(|record| record.upkeep.as_deref());
        match upkeep.and_then(Upkeep::reported) {
            Some((check, _)) if check.status == Status::Critical => {
                let amendment = Amendment::Report {
                    check: check.id.clone(),
                    status: Status::Passing,
                    output: "a heartbeat".to_owned(),
                    by_owner: true,
                };
                self.amend(key, amendment).await
            }
            _ => self.renew(name, &key).await,
        }
    }

    /// Withdraws a classic registration: the one at this address, or else all of the name.
    pub(crate) async fn deregister_classic(
        &self,
        name: &str,
        addr: Option<&str>,
    ) -> Result<(), Problem> {
        self.classic_address(name, addr).await?;
        for address in self.view.classic_addresses(name) {
            if addr.is_none_or(|addr| *addr == *address) {
                self.withdraw_registration(&Key::classic(name, &address)).await?;
            }
        }
        Ok(())
    }

    pub(crate) async fn withdraw_registration(&self, key: &Key) -> Result<(), Problem> {
        let write = Write::Withdraw { session: u64::MAX };
        let written = self.write(key.name(), key.clone(), write).await?;
        if written.removed {
            tracing::info!(service = %key, "a service was withdrawn");
        }
        Ok(())
    }

    /// The address that a classic call means.
    async fn classic_address(&self, name: &str, addr: Option<&str>) -> Result<Arc<str>, Problem> {
        let find = || {
            let mut known = self.view.classic_addresses(name);
            match addr {
                None => known.pop(),
                Some(addr) => known.into_iter().find(|known| **known == *addr),
            }
        };
        if let Some(found) = find() {
            return Ok(found);
        }
        self.catch_up(name).await?;
        find().ok_or_else(|| {
            Problem::new(
                Code::UnknownService,
                format!(
                    "nothing is registered as '{name}'{}, or it fell silent: call /register?name={name}&addr=HOST:PORT",
                    addr.map(|addr| format!(" at {addr}")).unwrap_or_default()
                ),
            )
        })
    }

    /// The registration that a client of Consul means by an ID. Where several have it, it is one that the
    /// client may write, and of these the one at its own machine.
    ///
    /// # Errors
    /// When there is none, or the client may write none.
    pub(crate) async fn registration(
        &self,
        name: &Named,
        peer: IpAddr,
        of_several: OfSeveral,
        may_write: impl Fn(&str) -> Result<(), Problem>,
    ) -> Result<(Key, Arc<Record>), Problem> {
        let (what, id) = match name {
            Named::Service(id) => ("service", id),
            Named::Check(id) => ("check", id),
            Named::Node(id) | Named::LowerNode(id) => ("node", id),
        };
        let mut found = self.view.named(name);
        if found.is_empty() {
            self.catch_up(id).await?;
            found = self.view.named(name);
        }
        if let [(key, _), ..] = &found[..] {
            let refused = may_write(key.name());
            found.retain(|(key, _)| may_write(key.name()).is_ok());
            if found.is_empty() {
                refused?;
            }
        }
        if found.len() > 1 {
            let here = peer.to_string();
            let own = |(_, record): &&(Key, Arc<Record>)| machine(&record.address) == here;
            if let (Some(own), 1) = (found.iter().find(own), found.iter().filter(own).count()) {
                return Ok(own.clone());
            }
            if of_several == OfSeveral::Newest {
                found.sort_by_key(|(_, record)| record.session);
                return found.pop().ok_or_else(|| unknown(what, id));
            }
            let addresses: Vec<&str> =
                found.iter().map(|(_, record)| &record.address[..]).collect();
            let detail = format!(
                "the {what} ID '{id}' is registered at {}: use IDs of which there is only one, or name the node in catalog/deregister",
                addresses.join(" and ")
            );
            return Err(Problem::new(Code::Ambiguous, detail));
        }
        found.pop().ok_or_else(|| unknown(what, id))
    }

    pub(crate) async fn amend(&self, key: Key, amendment: Amendment) -> Result<(), Problem> {
        if matches!(amendment, Amendment::Add(_)) {
            let record = self.view.record(&key);
            let known = record.and_then(|record| record.upkeep.as_deref().cloned());
            let next = known.unwrap_or_default().amended(amendment.clone());
            self.room_for_probes(&key, next.as_ref())?;
        }
        let written = self.write(key.name(), key.clone(), Write::Amend(amendment)).await?;
        if written.visible {
            let record = self.view.record(&key);
            let upkeep = record.as_ref().and_then(|record| record.upkeep.as_deref());
            let failing = upkeep.and_then(Upkeep::failing).map(|check| &check.output[..]);
            let maintenance = upkeep.and_then(|upkeep| upkeep.maintenance.as_deref());
            tracing::info!(service = %key, failing, maintenance, "how a service stands has changed");
        }
        Ok(())
    }

    /// Takes its owner's report of a check with a time to live.
    pub(crate) async fn report(
        &self,
        key: Key,
        known: &Record,
        check: String,
        status: Status,
        output: &str,
    ) -> Result<(), Problem> {
        let output = one_line(output);
        let upkeep = known.upkeep.as_deref();
        let same = upkeep.and_then(Upkeep::reported).is_some_and(|(known, _)| {
            known.id == check && known.status == status && known.output == output
        });
        if same && status != Status::Critical {
            // Nothing to write: it is heard.
            return self.renew(key.name(), &key).await;
        }
        self.amend(key, Amendment::Report { check, status, output, by_owner: true }).await
    }

    /// Whether the registry can make the checks that a registration would have.
    pub(crate) fn room_for_probes(
        &self,
        key: &Key,
        upkeep: Option<&Upkeep>,
    ) -> Result<(), Problem> {
        let asked = upkeep.map_or(0.0, Upkeep::probes_per_second);
        let Probing { own, services, all } = self.view.probing(key);
        let is_more = asked > own;
        let has_place = own > 0.0 || services < MAX_PROBED;
        if !is_more || (has_place && all - own + asked <= MAX_PROBES_PER_SECOND) {
            return Ok(());
        }
        let detail = format!(
            "the registry makes checks of at most {MAX_PROBED} services, {MAX_PROBES_PER_SECOND} a second: choose a longer interval, or a check with a TTL"
        );
        Err(Problem::new(Code::Full, detail))
    }

    async fn renew(&self, name: &str, key: &Key) -> Result<(), Problem> {
        self.store.renew(key).await.map_err(|error| problem(name, error))
    }

    pub(crate) async fn catch_up(&self, name: &str) -> Result<(), Problem> {
        self.store.catch_up().await.map_err(|error: WriteError| problem(name, error))
    }
}

fn unknown(what: &str, id: &str) -> Problem {
    // Clients look for the first three words.
    let detail = format!(
        "Unknown {what} ID \"{id}\": it was never registered, was withdrawn, or was critical for too long; register it"
    );
    Problem::new(Code::UnknownService, detail)
}
