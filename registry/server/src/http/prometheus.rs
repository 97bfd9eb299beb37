//! Targets for Prometheus' http_sd_configs: a plain list, read as often as Prometheus likes.
//!
//! <https://prometheus.io/docs/prometheus/latest/http_sd/>

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use wharf_registry_api::{METRICS, METRICS_SCHEME, Metadata};

use super::Refused;
use super::parameters::{Parameters, query};
use crate::directory::Directory;
use crate::listing::{self, HostSnapshot};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetParameters {
    service: Option<String>,
}

/// One group of targets with the same labels.
#[derive(Serialize)]
pub(super) struct Group {
    targets: Vec<String>,
    labels: BTreeMap<String, String>,
}

/// The addresses of all hosts' metrics. With a service, the addresses at which it is called.
pub(super) async fn targets(
    State(directory): State<Arc<Directory>>,
    parameters: Parameters<TargetParameters>,
) -> Result<Json<Vec<Group>>, Refused> {
    let TargetParameters { service } = query(parameters)?;
    directory.settled()?;
    let service = service.map(|name| crate::validate::service(&name)).transpose()?;
    let (_, mut hosts) = directory.hosts(service.as_deref());
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(match service {
        Some(service) => hosts.iter().flat_map(|host| of_service(host, &service)).collect(),
        None => hosts.iter().filter_map(of_host).collect(),
    }))
}

fn of_host(host: &HostSnapshot) -> Option<Group> {
    let address = host.record.metadata.get(METRICS)?.clone();
    let names: Vec<&str> = host.record.endpoints.iter().map(|spec| &spec.service[..]).collect();
    let mut labels = labels(host);
    if host.record.metadata.get(METRICS_SCHEME).is_some_and(|scheme| scheme == "https") {
        labels.insert("__scheme__".to_owned(), "https".to_owned());
    }
    // Commas surround each name, so that a regular expression can match a whole name.
    labels.insert("__meta_wharf_services".to_owned(), format!(",{},", names.join(",")));
    Some(Group { targets: vec![address], labels })
}

fn of_service(host: &HostSnapshot, service: &str) -> Vec<Group> {
    let endpoints = listing::endpoints(std::slice::from_ref(host), service, |_, _| true);
    let group = |endpoint: wharf_registry_api::Endpoint| {
        let mut labels = labels(host);
        let mut label = |name: &str, value: String| {
            labels.insert(format!("__meta_wharf_{name}"), value);
        };
        label("service", endpoint.spec.service);
        label("state", endpoint.state.to_string());
        label("version", endpoint.spec.version.unwrap_or_default());
        label("package", endpoint.spec.package.unwrap_or_default());
        label("tags", format!(",{},", endpoint.spec.tags.join(",")));
        metadata(&mut labels, "service_metadata", &endpoint.spec.metadata);
        Group { targets: vec![endpoint.address], labels }
    };
    endpoints.map(group).collect()
}

fn labels(host: &HostSnapshot) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("__meta_wharf_host".to_owned(), host.name.to_string()),
        ("__meta_wharf_address".to_owned(), host.record.address.clone()),
        ("__meta_wharf_unverified".to_owned(), host.unverified.to_string()),
    ]);
    metadata(&mut labels, "metadata", &host.record.metadata);
    labels
}

fn metadata(labels: &mut BTreeMap<String, String>, kind: &str, metadata: &Metadata) {
    // Names of labels cannot have '-' or '.'. Of several names that differ only in these, the one that is a
    // label as it is keeps its name, and the others are numbered in their order.
    let plain = |name: &&String| !name.contains(['-', '.']);
    let names = metadata.keys().filter(plain).chain(metadata.keys().filter(|name| !plain(name)));
    for (name, value) in names.filter_map(|name| metadata.get_key_value(name)) {
        let label = format!("__meta_wharf_{kind}_{}", name.replace(['-', '.'], "_"));
        let numbered = (2..).map(|number| format!("{label}_{number}"));
        let mut labels_of_name = std::iter::once(label.clone()).chain(numbered);
        if let Some(free) = labels_of_name.find(|label| !labels.contains_key(label)) {
            labels.insert(free, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_whose_names_differ_only_in_punctuation_have_labels_of_their_own() {
        let names = ["a.b", "a-b", "a_b", "c-d"];
        let given = names.map(|name| (name.to_owned(), format!("is {name}"))).into();
        let mut labels = BTreeMap::new();
        metadata(&mut labels, "metadata", &given);
        let shown: Vec<_> =
            labels.iter().map(|(label, value)| (&label[22..], &value[3..])).collect();
        assert_eq!(shown, [("a_b", "a_b"), ("a_b_2", "a-b"), ("a_b_3", "a.b"), ("c_d", "c-d")]);
    }
}
