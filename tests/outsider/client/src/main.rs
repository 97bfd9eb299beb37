//! Takes seven of an article, and eleven, by the stubs that are made of the WIT: shop REGISTRY

use wharf_client::{CallError, Client};

wharf_client::bindgen!({ path: "../wit" });

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let registry = std::env::args().nth(1).ok_or("usage: shop REGISTRY")?;
    let client = Client::connect(&registry).await?;
    let stock = StockClient::new(&client);
    for count in [7, 11] {
        match stock.take("tea", count).await {
            Ok(Article { name, left }) => println!("{left} of {name} are left"),
            Err(CallError::Application(Refusal::TooFew(left))) => println!("only {left}"),
            Err(CallError::Application(Refusal::Unknown)) => println!("no such article"),
            Err(CallError::Rpc(error)) => return Err(error.into()),
        }
    }
    Ok(())
}
