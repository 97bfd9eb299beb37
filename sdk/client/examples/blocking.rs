//! A program that is not async: `cargo run --example blocking -- http://127.0.0.1:8500`

use wharf_client::blocking::Client;

wharf_client::bindgen!("../../plugins/arith/wit");

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = std::env::args().nth(1).unwrap_or("http://127.0.0.1:8500".to_owned());
    let client = Client::connect(&registry)?;
    let arith = ArithClient::new(client.client());
    let product = client.wait(arith.multiply(Args { a: 7, b: 8 }))?;
    println!("7 * 8 = {product}");
    Ok(())
}
