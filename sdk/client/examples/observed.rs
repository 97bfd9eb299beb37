//! Sends trace context and a token with every call, and prints how each call ended:
//! `cargo run --example observed -- http://127.0.0.1:8500`

use std::error::Error;
use std::time::Duration;

use wharf_client::{
    CallOptions, Client, Ended, Interceptor, KeepAlive, Observer, Outgoing, TraceParent,
};

wharf_client::bindgen!({ path: "../../plugins/arith/wit", idempotent: ["multiply"] });

/// The metadata of every call.
struct Identity {
    token: String,
    trace_parent: TraceParent,
}

impl Interceptor for Identity {
    fn outgoing(&self, call: &mut Outgoing<'_>) -> Result<(), Box<dyn Error + Send + Sync>> {
        call.insert("authorization", &format!("Bearer {}", self.token))?;
        call.insert(TraceParent::KEY, &self.trace_parent.to_string())?;
        Ok(())
    }
}

/// A real program would feed its metrics here.
struct Printed;

impl Observer for Printed {
    fn call_ended(&self, call: &Ended<'_>) {
        let Ended { method, elapsed, attempts, .. } = call;
        let status = call.error.map_or("OK", |error| error.status().name());
        println!("{method} took {elapsed:?} in {attempts} attempt(s): {status}");
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = std::env::args().nth(1).unwrap_or("http://127.0.0.1:8500".to_owned());
    let trace_parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse()?;
    let client = Client::builder()
        .timeout(Duration::from_secs(2))
        .keep_alive(KeepAlive { give_up_after: Duration::from_secs(1), ..KeepAlive::default() })
        .interceptor(Identity { token: "secret".to_owned(), trace_parent })
        .observer(Printed)
        .registry(&registry)?;
    // If the first endpoint does not answer within 50 ms, the call is also sent to a second one.
    let hedge_after = Some(Duration::from_millis(50));
    let options = CallOptions { hedge_after, ..CallOptions::default() };
    let arith = ArithClient::with_options(&client, options);
    arith.multiply(Args { a: 7, b: 8 }).await?;
    Ok(())
}
