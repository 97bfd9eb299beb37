//! Plain HTTP, as an operator's tools ask.

use anyhow::Context;

/// A client of plain HTTP.
///
/// # Errors
/// When the system does not give it what it needs.
pub fn client() -> anyhow::Result<reqwest::Client> {
    wharf_registry_api::choose_cryptography();
    Ok(reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?)
}

/// The status and body of what is at a URL.
///
/// # Errors
/// When nobody answers.
pub async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    let answer = client()?.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// The JSON at a URL.
///
/// # Errors
/// When there is none.
pub async fn get_json(url: &str) -> anyhow::Result<serde_json::Value> {
    let (status, body) = get(url).await?;
    serde_json::from_str(&body).with_context(|| format!("{url}: {status}: {body}"))
}
