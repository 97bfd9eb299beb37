//! Wharf: a host, and the client crate.

use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use wharf_client::Client;
use wharf_host::{Advertise, Config, Host};
use wharf_tests::{Args, plugin};

use crate::Sides;
use crate::callers::drive;
use crate::load::{Load, Round, Work};

pub(crate) struct Peer {
    host: Host,
    address: String,
    _plugins: tempfile::TempDir,
}

impl Peer {
    pub(crate) fn start(sides: &Sides) -> Self {
        sides.server.block_on(async {
            let plugins = tempfile::tempdir().unwrap();
            for name in ["arith", "textkit"] {
                let file = plugins.path().join(format!("{name}.wasm"));
                std::fs::write(file, plugin(name).unwrap()).unwrap();
            }
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let advertise = Advertise::new(None, address).unwrap();
            let config = Config::new("bench", plugins.path(), advertise);
            let host = Host::start(listener, None, config).unwrap();
            host.ready().await;
            Peer { host, address: address.to_string(), _plugins: plugins }
        })
    }

    pub(crate) async fn run(&self, load: &Load, length: Duration) -> Round {
        let clients: Vec<Client> =
            (0..load.connections).map(|_| Client::builder().direct(&self.address)).collect();
        for client in &clients {
            multiply(client.clone()).await;
        }
        match load.work {
            Work::Multiply => drive(&clients, load, length, multiply).await,
            Work::Echo(bytes) => {
                let payload = Bytes::from(vec![7; bytes]);
                let echo = move |client: Client| {
                    let payload = payload.clone();
                    async move {
                        let back: Bytes = client.call("textkit.echo", &payload).await.unwrap();
                        assert_eq!(back.len(), payload.len());
                    }
                };
                drive(&clients, load, length, echo).await
            }
        }
    }

    pub(crate) fn end(self, sides: &Sides) {
        sides.server.block_on(self.host.drain());
    }
}

async fn multiply(client: Client) {
    let product: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
    assert_eq!(product, 56);
}
