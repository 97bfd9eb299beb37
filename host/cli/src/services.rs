//! `wharf services`

use std::collections::BTreeSet;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use wharf_registry_api::{
    Endpoint, EndpointState, ListOptions, RegistryClient, ServiceSummary, WatchEvent,
};

use wharf_schema::{printable, printable_json};

use crate::args::Services;

/// The most addresses that a row shows. If there are more, it shows their number.
const ADDRESSES: usize = 3;

/// The shortest time between two lists of --watch. Changes often come together.
const SETTLED: Duration = Duration::from_millis(200);

/// The pause before a registry that went away is asked again.
const RETRY: Duration = Duration::from_secs(1);

pub(crate) async fn run(arguments: Services) -> anyhow::Result<()> {
    let member = arguments.asked.member().await?;
    let registry = arguments.asked.client(member.as_ref())?;
    let mut shown = Shown { registry, as_json: arguments.json, text: String::new() };
    shown.update().await?;
    if !arguments.watch {
        return Ok(());
    }
    loop {
        if let Err(error) = shown.follow().await {
            if error.downcast_ref::<std::io::Error>().is_some() {
                return Err(error);
            }
            let reason = wharf_net::chain(error.as_ref());
            tracing::error!("the list cannot be followed, trying again: {reason}");
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The list that was printed last.
struct Shown {
    registry: RegistryClient,
    as_json: bool,
    text: String,
}

impl Shown {
    /// Prints the list whenever it changes, until the registry ends the watch.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut watch = self.registry.watch(None, None).await?;
        // A watch begins with what is there, up to a bookmark.
        let mut is_new = false;
        while let Some(event) = watch.next().await? {
            match event {
                WatchEvent::Upsert(_) | WatchEvent::Delete(_) if is_new => {
                    // Whatever else has happened by then is in the list too.
                    let settled = Instant::now() + SETTLED;
                    while let Ok(more) = tokio::time::timeout_at(settled.into(), watch.next()).await
                    {
                        if more?.is_none() {
                            return self.update().await;
                        }
                    }
                    self.update().await?;
                }
                WatchEvent::Bookmark(_) if !is_new => {
                    is_new = true;
                    self.update().await?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn update(&mut self) -> anyhow::Result<()> {
        let now = text(&self.registry, self.as_json).await?;
        if now == self.text {
            return Ok(());
        }
        let mut out = std::io::stdout().lock();
        if !self.text.is_empty() {
            writeln!(out)?;
        }
        write!(out, "{now}")?;
        out.flush()?;
        self.text = now;
        Ok(())
    }
}

/// The list, for people or as JSON.
async fn text(registry: &RegistryClient, as_json: bool) -> anyhow::Result<String> {
    let list = registry.services().await?;
    if as_json {
        let mut services = Vec::new();
        for service in &list.services {
            let mut value = serde_json::to_value(service)?;
            if let Some(fields) = value.as_object_mut() {
                let endpoints = endpoints(registry, service).await?;
                fields.insert("addresses".to_owned(), serde_json::to_value(endpoints)?);
            }
            services.push(value);
        }
        let text = serde_json::to_string_pretty(&json!({ "services": services }))?;
        return Ok(format!("{}\n", printable_json(&text)));
    }
    if list.services.is_empty() {
        return Ok(format!(
            "No host has announced a service at {}: drop a .wasm component into a host's plugins folder.\n",
            registry.address()
        ));
    }
    let mut rows = vec![["SERVICE", "VERSION", "ENDPOINTS", "STATE"].map(str::to_owned)];
    for service in &list.services {
        // Hosts choose these texts.
        rows.push(row(registry, service).await?.map(|cell| printable(&cell)));
    }
    Ok(table(&rows))
}

/// The endpoints of one version of a service.
async fn endpoints(
    registry: &RegistryClient,
    service: &ServiceSummary,
) -> anyhow::Result<Vec<Endpoint>> {
    let listed = registry.endpoints(&service.service, &ListOptions::default()).await?;
    let listed = listed.into_iter().flat_map(|list| list.endpoints);
    let endpoints =
        listed.filter(|e| e.spec.package == service.package && e.spec.version == service.version);
    Ok(endpoints.collect())
}

async fn row(registry: &RegistryClient, service: &ServiceSummary) -> anyhow::Result<[String; 4]> {
    let endpoints = endpoints(registry, service).await?;
    let mut addresses: Vec<String> = endpoints
        .iter()
        .map(|endpoint| match endpoint.state {
            EndpointState::Serving => endpoint.address.clone(),
            state => format!("{} ({state})", endpoint.address),
        })
        .collect();
    let more = addresses.len().saturating_sub(ADDRESSES);
    addresses.truncate(ADDRESSES);
    let mut addresses = addresses.join(", ");
    if more > 0 {
        addresses.push_str(&format!(", and {more} more"));
    }
    let mut state = match (service.serving, service.endpoints) {
        (0, _) => {
            let states: BTreeSet<String> = endpoints.iter().map(|e| e.state.to_string()).collect();
            states.into_iter().collect::<Vec<_>>().join(", ")
        }
        (serving, all) if serving == all => "serving".to_owned(),
        (serving, all) => format!("{serving} of {all} serving"),
    };
    match (service.unverified, service.endpoints) {
        (0, _) => {}
        (unverified, all) if unverified == all => state.push_str(", not heard lately"),
        (unverified, all) => state.push_str(&format!(", {unverified} of {all} not heard lately")),
    }
    for endpoint in &endpoints {
        if let Some(reason) = &endpoint.spec.reason {
            let whose =
                if endpoints.len() > 1 { format!("{}: ", endpoint.host) } else { String::new() };
            state.push_str(&format!("; {whose}{reason}"));
        }
    }
    let name = match &service.package {
        Some(package) => format!("{package}/{}", service.service),
        None => service.service.clone(),
    };
    Ok([name, service.version.clone().unwrap_or_else(|| "-".to_owned()), addresses, state])
}

/// A table in which each column is as wide as its widest cell.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["A", "B"], ["long", "x"]].map(|row| row.map(str::to_owned));
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
