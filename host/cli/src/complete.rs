//! Completes the names of services and methods in a shell, as the registry lists them.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::CompletionCandidate;
use wharf_client::Client;
use wharf_registry_api::{DEFAULT_PORT, RegistryClient};

/// A shell that waits longer for its completions seems to hang.
const PATIENCE: Duration = Duration::from_millis(800);

/// The most names that are offered.
const MAX_NAMES: usize = 500;

/// `SERVICE` and, behind a dot, `SERVICE.METHOD`.
pub(crate) fn methods(begun: &OsStr) -> Vec<CompletionCandidate> {
    candidates(begun, true)
}

/// `SERVICE`
pub(crate) fn services(begun: &OsStr) -> Vec<CompletionCandidate> {
    candidates(begun, false)
}

/// What cannot be found out is not offered: there is no place for errors.
fn candidates(begun: &OsStr, with_methods: bool) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    wharf_registry_api::choose_cryptography();
    let names = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, names(begun, with_methods)).await.ok().flatten()
    });
    // A name that is being looked up must not hold up the shell.
    runtime.shutdown_background();
    // Shells insert names as they are, and hosts choose them.
    let is_plain =
        |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/@".contains(c));
    let names = names.unwrap_or_default().into_iter();
    let names = names.filter(|name| name.starts_with(begun) && is_plain(name));
    names.take(MAX_NAMES).map(CompletionCandidate::new).collect()
}

async fn names(begun: &str, with_methods: bool) -> Option<BTreeSet<String>> {
    let address = registry();
    match begun.rsplit_once('.').filter(|_| with_methods) {
        Some((service, _)) => {
            let client = Client::builder().without_lists().registry(&address).ok()?;
            let described = client.describe(service).await.ok()?;
            let methods = described.methods().iter();
            Some(methods.map(|method| format!("{service}.{}", method.name)).collect())
        }
        None => {
            let list = RegistryClient::new(&address).ok()?.services().await.ok()?;
            let dot = if with_methods { "." } else { "" };
            let names = list.services.into_iter().map(|listed| format!("{}{dot}", listed.service));
            Some(names.collect())
        }
    }
}

/// The registry that the line being completed names, or the environment, or the usual one.
fn registry() -> String {
    let words: Vec<String> = std::env::args().collect();
    let named = words.iter().enumerate().find_map(|(place, word)| match word.as_str() {
        "--registry" => words.get(place + 1).cloned(),
        other => other.strip_prefix("--registry=").map(str::to_owned),
    });
    let named = named.or_else(|| std::env::var("WHARF_REGISTRY").ok());
    let named = named.filter(|named| !named.is_empty());
    named.unwrap_or_else(|| format!("http://127.0.0.1:{DEFAULT_PORT}"))
}
