//! tarpc over TCP with bincode, as in its documentation, and without Nagle's delay.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use tarpc::context::{self, Context};
use tarpc::serde_transport::new as transport;
use tarpc::server::{BaseChannel, Channel};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tokio::net::{TcpListener, TcpStream};

use crate::Sides;
use crate::callers::drive;
use crate::load::{Load, Round, Work};

#[tarpc::service]
pub(crate) trait Arith {
    async fn multiply(a: i64, b: i64) -> i64;
    async fn echo(payload: Bytes) -> Bytes;
}

#[derive(Clone)]
struct Service;

impl Arith for Service {
    async fn multiply(self, _: Context, a: i64, b: i64) -> i64 {
        a.wrapping_mul(b)
    }

    async fn echo(self, _: Context, payload: Bytes) -> Bytes {
        payload
    }
}

pub(crate) struct Peer {
    address: SocketAddr,
}

impl Peer {
    pub(crate) fn start(sides: &Sides) -> Self {
        sides.server.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let framed = LengthDelimitedCodec::builder().new_framed(stream);
                    let channel = BaseChannel::with_defaults(transport(framed, Bincode::default()));
                    tokio::spawn(channel.execute(Service.serve()).for_each(|response| async {
                        tokio::spawn(response);
                    }));
                }
            });
            Peer { address }
        })
    }

    pub(crate) async fn run(&self, load: &Load, length: Duration) -> Round {
        let mut clients = Vec::new();
        for _ in 0..load.connections {
            let stream = TcpStream::connect(self.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let framed = LengthDelimitedCodec::builder().new_framed(stream);
            let transport = transport(framed, Bincode::default());
            let client = ArithClient::new(tarpc::client::Config::default(), transport).spawn();
            multiply(client.clone()).await;
            clients.push(client);
        }
        match load.work {
            Work::Multiply => drive(&clients, load, length, multiply).await,
            Work::Echo(bytes) => {
                let payload = Bytes::from(vec![7; bytes]);
                let echo = move |client: ArithClient| {
                    let payload = payload.clone();
                    async move {
                        let back = client.echo(context(), payload).await.unwrap();
                        assert_eq!(back.len(), 64 * 1024);
                    }
                };
                drive(&clients, load, length, echo).await
            }
        }
    }
}

/// With a deadline as long as our client's.
fn context() -> Context {
    let mut context = context::current();
    context.deadline = Instant::now() + Duration::from_secs(30);
    context
}

async fn multiply(client: ArithClient) {
    assert_eq!(client.multiply(context(), 7, 8).await.unwrap(), 56);
}
