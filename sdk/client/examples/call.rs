//! Calls `arith.multiply` with plain serde types:
//! `cargo run --example call -- http://127.0.0.1:8500`

use serde::Serialize;
use wharf_client::Client;

#[derive(Serialize)]
struct Args {
    a: i64,
    b: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = std::env::args().nth(1).unwrap_or("http://127.0.0.1:8500".to_owned());
    let client = Client::connect(&registry).await?;
    let product: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 }).await?;
    println!("7 * 8 = {product}");
    Ok(())
}
