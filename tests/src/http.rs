//! Plain HTTP requests, like those of an operator's tools.

use anyhow::Context;

/// A client for plain HTTP.
///
/// # Errors
/// When it cannot be made.
pub fn client() -> anyhow::Result<reqwest::Client> {
    wharf_registry_api::choose_cryptography();
    Ok(reqwest::Client::builder().no_proxy().tls_certs_only([]).build()?)
}

/// A client that believes every certificate.
///
/// # Errors
/// When it cannot be made.
pub fn client_that_trusts_all() -> anyhow::Result<reqwest::Client> {
    wharf_registry_api::choose_cryptography();
    Ok(reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true).build()?)
}

/// The status and body of the response from a URL.
///
/// # Errors
/// When there is no response.
pub async fn get(url: &str) -> anyhow::Result<(u16, String)> {
    let answer = client()?.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// The JSON from a URL.
///
/// # Errors
/// When there is no response, or it is not JSON.
pub async fn get_json(url: &str) -> anyhow::Result<serde_json::Value> {
    let (status, body) = get(url).await?;
    serde_json::from_str(&body).with_context(|| format!("{url}: {status}: {body}"))
}
