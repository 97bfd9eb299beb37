//! tonic, with the messages that prost would generate, and without Nagle's delay.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost::Message;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::Sides;
use crate::callers::drive;
use crate::load::{Load, Round, Work};

#[derive(Clone, PartialEq, Message)]
struct Factors {
    #[prost(int64, tag = "1")]
    a: i64,
    #[prost(int64, tag = "2")]
    b: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Product {
    #[prost(int64, tag = "1")]
    value: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(bytes = "bytes", tag = "1")]
    bytes: Bytes,
}

type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

struct Multiply;

impl UnaryService<Factors> for Multiply {
    type Response = Product;
    type Future = Answer<Product>;

    fn call(&mut self, request: Request<Factors>) -> Self::Future {
        let Factors { a, b } = request.into_inner();
        Box::pin(async move { Ok(Response::new(Product { value: a.wrapping_mul(b) })) })
    }
}

struct Echo;

impl UnaryService<Payload> for Echo {
    type Response = Payload;
    type Future = Answer<Payload>;

    fn call(&mut self, request: Request<Payload>) -> Self::Future {
        Box::pin(async move { Ok(Response::new(request.into_inner())) })
    }
}

/// What tonic would generate for a service of these two methods.
#[derive(Clone)]
struct Service;

impl NamedService for Service {
    const NAME: &'static str = "arith.Arith";
}

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/arith.Arith/Multiply" => {
                    let codec = ProstCodec::<Product, Factors>::default();
                    tonic::server::Grpc::new(codec).unary(Multiply, request).await
                }
                "/arith.Arith/Echo" => {
                    let codec = ProstCodec::<Payload, Payload>::default();
                    tonic::server::Grpc::new(codec).unary(Echo, request).await
                }
                other => panic!("{other} is not called"),
            })
        })
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
            let incoming =
                tonic::transport::server::TcpIncoming::from(listener).with_nodelay(Some(true));
            tokio::spawn(Server::builder().add_service(Service).serve_with_incoming(incoming));
            Peer { address }
        })
    }

    pub(crate) async fn run(&self, load: &Load, length: Duration) -> Round {
        let mut clients = Vec::new();
        for _ in 0..load.connections {
            let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
            let client = Grpc::new(endpoint.tcp_nodelay(true).connect().await.unwrap());
            multiply(client.clone()).await;
            clients.push(client);
        }
        match load.work {
            Work::Multiply => drive(&clients, load, length, multiply).await,
            Work::Echo(bytes) => {
                let payload = Payload { bytes: vec![7; bytes].into() };
                let echo = move |mut client: Grpc<Channel>| {
                    let payload = payload.clone();
                    async move {
                        client.ready().await.unwrap();
                        let path = PathAndQuery::from_static("/arith.Arith/Echo");
                        let codec = ProstCodec::<Payload, Payload>::default();
                        let answer = client.unary(Request::new(payload), path, codec).await;
                        assert_eq!(answer.unwrap().into_inner().bytes.len(), 64 * 1024);
                    }
                };
                drive(&clients, load, length, echo).await
            }
        }
    }
}

async fn multiply(mut client: Grpc<Channel>) {
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/arith.Arith/Multiply");
    let codec = ProstCodec::<Factors, Product>::default();
    let answer = client.unary(Request::new(Factors { a: 7, b: 8 }), path, codec).await.unwrap();
    assert_eq!(answer.into_inner().value, 56);
}
