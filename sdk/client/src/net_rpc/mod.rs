//! Calls of Go's net/rpc services, which registered themselves by `/register`.
//!
//! They have no descriptions, so a call brings its own types: gob's are made of the JSON that is given,
//! and JSON is made of the types that the reply brings. Nothing but the call goes to them: no token, no
//! metadata, no cancel, no deadline.

mod connection;
mod gob;
mod json;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use wharf_registry_api::RpcProtocol;
use wharf_schema::Outcome;
use wharf_wire::Status;

use self::connection::Connection;
use crate::balance::{NetRpcName, Node};
use crate::connection::Deadline;
use crate::error::{ConnectError, Failure, Remote, RpcError};
use crate::named::Named;
use crate::observe::{Ended, Observer};

/// The most addresses that are connected. Beyond, idle ones are closed.
const MAX_CONNECTIONS: usize = 1024;

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// The connections to all such services.
#[derive(Default)]
pub(crate) struct NetRpcCalls {
    connections: Mutex<HashMap<Destination, Arc<Connection>>>,
}

/// An address, and how it encodes its messages.
type Destination = (Arc<str>, RpcProtocol);

/// What a service answered.
enum Reply {
    /// The result, as JSON.
    Result(String),
    /// The error, as text.
    Error(String),
}

impl NetRpcCalls {
    /// Calls a method with one argument. `spelled` is its name as the caller spelled it.
    pub(crate) async fn call(
        &self,
        (named, spelled): (&Named, &str),
        nodes: &[Arc<Node>],
        argument: Value,
        deadline: Deadline,
        observers: &[Arc<dyn Observer>],
    ) -> Result<Outcome, RpcError> {
        let mut course = Course { attempts: 0, endpoint: None };
        let called = self.attempts(&mut course, spelled, nodes, Arc::new(argument));
        let called = match tokio::time::timeout_at(deadline.at.into(), called).await {
            Ok(called) => called,
            Err(_) => Err(deadline.passed(course.attempts == 0)),
        };
        let called = called.map_err(|failure| RpcError {
            method: named.canonical().to_string(),
            endpoint: course.endpoint.as_deref().map(str::to_owned),
            attempts: course.attempts,
            may_have_executed: failure.may_have_executed(),
            failure,
        });
        for observer in observers {
            observer.call_ended(&Ended {
                method: named.short(),
                service: named.service(),
                endpoint: course.endpoint.as_deref(),
                attempts: course.attempts,
                elapsed: deadline.begun.elapsed(),
                error: called.as_ref().err(),
            });
        }
        called
    }

    /// Tries endpoints in a random order, until one takes the call.
    async fn attempts(
        &self,
        course: &mut Course,
        spelled: &str,
        nodes: &[Arc<Node>],
        argument: Arc<Value>,
    ) -> Result<Outcome, Failure> {
        let mut order: Vec<&Arc<Node>> = nodes.iter().collect();
        fastrand::shuffle(&mut order);
        let mut last = None;
        for node in order {
            let Some(name) = &node.net_rpc else { continue };
            let address = node.endpoint.address();
            course.attempts += 1;
            course.endpoint = Some(address.clone());
            if node.endpoint.is_verified() {
                // Such a service cannot prove its name.
                last = Some(Failure::Connect(Arc::new(ConnectError::NoTls)));
                continue;
            }
            let connection = self.connection(address, name.protocol);
            let method = method_name(name, spelled);
            match connection.call(&method, &argument).await {
                Ok(reply) => return outcome(&method, reply),
                // The call was not sent, so another endpoint may have it.
                Err(failure @ Failure::Connect(_)) => last = Some(failure),
                Err(failure) => return Err(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::NoEndpoint {
            service: spelled.to_owned(),
            reason: String::new(),
            was_there: false,
        }))
    }

    fn connection(&self, address: &Arc<str>, protocol: RpcProtocol) -> Arc<Connection> {
        let mut all = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (address.clone(), protocol);
        if let Some(known) = all.get(&key) {
            return known.clone();
        }
        if all.len() >= MAX_CONNECTIONS {
            all.retain(|_, connection| Arc::strong_count(connection) > 1);
        }
        let new = Arc::new(Connection::new(address.clone(), protocol));
        all.insert(key, new.clone());
        new
    }
}

struct Course {
    attempts: u32,
    endpoint: Option<Arc<str>>,
}

/// What the answer of a service means. What Go's server says of a call that it did not run is told by its
/// exact words: a service's own error may begin in the same way.
fn outcome(method: &str, reply: Reply) -> Result<Outcome, Failure> {
    let text = match reply {
        Reply::Result(json) => return Ok(Outcome::Ok(json)),
        Reply::Error(text) => text,
    };
    let is = |start: &str| text.strip_prefix(start) == Some(method);
    let does_not_fit = [
        "gob: wrong type (",
        "gob: decoding into local type ",
        "gob: type mismatch",
        "gob: duplicate type received",
    ];
    let status = if is("rpc: can't find service ") || is("rpc: can't find method ") {
        Status::Unimplemented
    } else if does_not_fit.iter().any(|start| text.starts_with(start)) {
        Status::InvalidArgument
    } else {
        return Ok(Outcome::Err(Value::from(text).to_string()));
    };
    Err(Failure::Remote(Box::new(Remote {
        status,
        message: text,
        not_executed: true,
        retry_after: None,
        served_wit: None,
    })))
}

/// The name of a method as Go knows it. A spelling in capitals is the caller's own.
fn method_name(name: &NetRpcName, spelled: &str) -> String {
    let (service, method) = spelled.rsplit_once('.').unwrap_or(("", spelled));
    let is_go = |name: &str| name.starts_with(|c: char| c.is_uppercase());
    let service = if is_go(service) { service } else { &name.service };
    match is_go(method) {
        true => format!("{service}.{method}"),
        false => format!("{service}.{}", wharf_schema::net_rpc(method)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_called_as_go_spells_it() {
        let name = NetRpcName { service: "HelloService".into(), protocol: RpcProtocol::default() };
        for (spelled, called) in [
            ("HelloService.Say", "HelloService.Say"),
            ("hello-service.say-it", "HelloService.SayIt"),
            ("hello_service.sayIt", "HelloService.SayIt"),
            ("HelloService.GetURL", "HelloService.GetURL"),
        ] {
            assert_eq!(method_name(&name, spelled), called);
        }
    }
}
