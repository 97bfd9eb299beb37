//! Calls a method by its name, without any types:
//! `cargo run --example json -- http://127.0.0.1:8500`

use serde_json::json;
use wharf_client::Client;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = std::env::args().nth(1).unwrap_or("http://127.0.0.1:8500".to_owned());
    let client = Client::connect(&registry).await?;
    let quotient = client.call_json("arith.divide", json!({"a": 7, "b": 2})).await?;
    println!("{quotient}");
    Ok(())
}
