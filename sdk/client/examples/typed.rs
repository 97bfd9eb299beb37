//! Calls `demo:arith` with types generated from its WIT:
//! `cargo run --example typed -- http://127.0.0.1:8500`

use wharf_client::{CallError, Client};

wharf_client::bindgen!({
    path: "../../plugins/arith/wit",
    // They only compute and change nothing, so a lost call can be retried.
    idempotent: ["multiply", "divide"],
});

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = std::env::args().nth(1).unwrap_or("http://127.0.0.1:8500".to_owned());
    let arith = ArithClient::new(&Client::connect(&registry).await?);
    for b in [2, 0] {
        match arith.divide(Args { a: 7, b }).await {
            Ok(Quotient { quo, rem }) => println!("7 / {b} = {quo}, and {rem} is left"),
            Err(CallError::Application(error)) => {
                println!("7 / {b}: there is none, since {error}");
            }
            Err(CallError::Rpc(error)) => return Err(error.into()),
        }
    }
    Ok(())
}
