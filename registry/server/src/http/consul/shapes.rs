//! How nodes, services and checks are written, and which of their fields a filter can speak of.

use serde_json::{Value, json};
use wharf_registry_api::{Endpoint, EndpointState};

use super::DATACENTER;
use super::filter::Fields;
use crate::address::split;
use crate::listing::{self, HostSnapshot};
use crate::upkeep::{Check, Kind, Status};

/// The fields of an entry of `health/service`.
pub(super) const HEALTH: &Fields = &[
    "Node.ID",
    "Node.Node",
    "Node.Address",
    "Node.Datacenter",
    "Node.Meta.*",
    "Node.TaggedAddresses.*",
    "Service.ID",
    "Service.Service",
    "Service.Tags",
    "Service.Address",
    "Service.Port",
    "Service.Meta.*",
    "Service.Weights.Passing",
    "Service.Weights.Warning",
    "Service.EnableTagOverride",
    "Service.TaggedAddresses",
    "Checks",
];

/// Of `catalog/service`.
pub(super) const CATALOG: &Fields = &[
    "ID",
    "Node",
    "Address",
    "Datacenter",
    "NodeMeta.*",
    "TaggedAddresses.*",
    "ServiceID",
    "ServiceName",
    "ServiceTags",
    "ServiceAddress",
    "ServicePort",
    "ServiceMeta.*",
    "ServiceWeights.Passing",
    "ServiceWeights.Warning",
    "ServiceEnableTagOverride",
];

/// Of `catalog/nodes`.
pub(super) const NODES: &Fields =
    &["ID", "Node", "Address", "Datacenter", "Meta.*", "TaggedAddresses.*"];

/// Of the services of an agent or a node.
pub(super) const SERVICES: &Fields = &[
    "ID",
    "Service",
    "Tags",
    "Address",
    "Port",
    "Meta.*",
    "Weights.Passing",
    "Weights.Warning",
    "EnableTagOverride",
];

/// Of checks.
pub(super) const CHECKS: &Fields = &[
    "Node",
    "CheckID",
    "Name",
    "Status",
    "Notes",
    "Output",
    "ServiceID",
    "ServiceName",
    "ServiceTags",
    "Type",
];

/// One service at one host, and how it stands.
pub(super) struct Entry<'h> {
    pub(super) host: &'h HostSnapshot,
    pub(super) endpoint: Endpoint,
}

impl<'h> Entry<'h> {
    /// All services of a host.
    pub(super) fn of(host: &'h HostSnapshot) -> impl Iterator<Item = Entry<'h>> {
        host.record.endpoints.iter().map(move |spec| {
            let endpoint = listing::endpoint(&host.name, &host.record, spec);
            Entry { host, endpoint }
        })
    }

    /// The name of its service, as whoever registered it writes it.
    pub(super) fn name(&self) -> &str {
        self.host.registered.as_deref().unwrap_or(&self.endpoint.spec.service)
    }

    pub(super) fn id(&self) -> String {
        if let Some(id) = self.host.record.upkeep.as_ref().and_then(|upkeep| upkeep.id.as_ref()) {
            return id.clone();
        }
        let Endpoint { spec, host, .. } = &self.endpoint;
        let mut id = format!("{host}/{}", spec.service);
        if let Some(package) = &spec.package {
            id = format!("{host}/{package}/{}", spec.service);
        }
        if let Some(version) = &spec.version {
            id = format!("{id}@{version}");
        }
        id
    }

    pub(super) fn service(&self) -> Value {
        let (host, endpoint) = (self.host, &self.endpoint);
        let (address, port) = split(&endpoint.address);
        let mut meta = endpoint.spec.metadata.clone();
        if host.registered.is_none() {
            let own = [
                ("version", endpoint.spec.version.as_deref()),
                ("package", endpoint.spec.package.as_deref()),
                ("fingerprint", Some(&endpoint.spec.fingerprint[..]).filter(|f| !f.is_empty())),
            ];
            for (name, value) in own {
                if let Some(value) = value {
                    meta.entry(name.to_owned()).or_insert_with(|| value.to_owned());
                }
            }
        }
        json!({
            "ID": self.id(),
            "Service": self.name(),
            "Tags": endpoint.spec.tags,
            "Address": address,
            "Port": port,
            "Meta": meta,
            "Weights": { "Passing": 1, "Warning": 1 },
            "TaggedAddresses": { "lan": { "Address": address, "Port": port } },
            "EnableTagOverride": false,
            "CreateIndex": host.created,
            "ModifyIndex": host.modified,
        })
    }

    /// Its checks, without its node's. What was registered without any has none.
    pub(super) fn checks(&self) -> Vec<Value> {
        let upkeep = self.host.record.upkeep.as_deref().filter(|upkeep| upkeep.stays);
        let Some(upkeep) = upkeep else { return vec![self.own_check()] };
        let mut checks: Vec<Value> =
            upkeep.checks.iter().map(|check| self.registered_check(check)).collect();
        if let Some(reason) = &upkeep.maintenance {
            let id = format!("_service_maintenance:{}", self.id());
            let name = "Service Maintenance Mode";
            checks.push(self.check(&id, name, Status::Critical, ["", reason, "maintenance"]));
        }
        checks
    }

    /// The check of what is kept by heartbeats.
    fn own_check(&self) -> Value {
        let (status, output) = match (self.endpoint.state, self.host.doubted) {
            (EndpointState::Serving, false) => (Status::Passing, "serving".to_owned()),
            (EndpointState::Serving, true) => {
                (Status::Warning, "serving, but not heard lately".to_owned())
            }
            (state, _) => match &self.endpoint.spec.reason {
                Some(reason) => (Status::Critical, format!("{state}: {reason}")),
                None => (Status::Critical, state.to_string()),
            },
        };
        self.check(
            &format!("service:{}", self.id()),
            "Service's state",
            status,
            ["", &output, "ttl"],
        )
    }

    fn registered_check(&self, check: &Check) -> Value {
        let kind = match &check.kind {
            Kind::Reported { .. } => "ttl",
            Kind::Stated => "",
            Kind::Probed(probe) if probe.http.is_some() => "http",
            Kind::Probed(_) => "tcp",
        };
        self.check(&check.id, &check.name, check.status, [&check.notes, &check.output, kind])
    }

    fn check(&self, id: &str, name: &str, status: Status, rest: [&str; 3]) -> Value {
        let [notes, output, kind] = rest;
        json!({
            "Node": node_name(self.host),
            "CheckID": id,
            "Name": name,
            "Status": status.as_str(),
            "Notes": notes,
            "Output": output,
            "ServiceID": self.id(),
            "ServiceName": self.name(),
            "ServiceTags": self.endpoint.spec.tags,
            "Type": kind,
            "CreateIndex": self.host.created,
            "ModifyIndex": self.host.modified,
        })
    }
}

/// What Consul's clients call the node of a host or registration.
pub(super) fn node_name(host: &HostSnapshot) -> &str {
    host.record.node().unwrap_or(&host.name)
}

pub(super) fn node(host: &HostSnapshot) -> Value {
    let (address, _) = split(&host.record.address);
    let name = node_name(host);
    json!({
        "ID": uuid(name),
        "Node": name,
        "Address": address,
        "Datacenter": DATACENTER,
        "TaggedAddresses": { "lan": address, "wan": address },
        "Meta": host.record.metadata,
        "CreateIndex": host.created,
        "ModifyIndex": host.modified,
    })
}

/// Whether the registry hears the node.
pub(super) fn node_check(host: &HostSnapshot) -> Value {
    let (status, output) = match host.doubted {
        false => (Status::Passing, "heard within its time to live"),
        true => (Status::Warning, "not heard lately"),
    };
    json!({
        "Node": node_name(host),
        "CheckID": "serfHealth",
        "Name": "Registry's hearing",
        "Status": status.as_str(),
        "Notes": "",
        "Output": output,
        "ServiceID": "",
        "ServiceName": "",
        "ServiceTags": [],
        "Type": "ttl",
        "CreateIndex": host.created,
        "ModifyIndex": host.modified,
    })
}

/// A stable id for a name, in the form of Consul's ids.
pub(super) fn uuid(name: &str) -> String {
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let part = |from: usize, to: usize| &hash[from..to];
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_ids_of_their_own() {
        assert_eq!(uuid("h").len(), 36);
        assert_ne!(uuid("h"), uuid("i"));
    }
}
