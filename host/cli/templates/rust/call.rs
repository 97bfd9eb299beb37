//! Calls the service by JSON-RPC, with nothing but the standard library: cargo run --example call
//!
//! The crate wharf-client has typed calls, discovery and retries.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

fn main() -> std::io::Result<()> {
    let mut host = TcpStream::connect("127.0.0.1:7400")?;
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"{{method}}","params":{{arguments}}}"#;
    writeln!(host, "{call}")?;
    let mut answer = String::new();
    BufReader::new(host).read_line(&mut answer)?;
    print!("{answer}");
    Ok(())
}
