//! One connection to one address: calls are told apart by their numbers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot};
use wharf_registry_api::RpcProtocol;

use super::gob::{Learned, Replies, Requests, Shape};
use super::{MAX_MESSAGE, Reply, json};
use crate::error::{ConnectError, Failure};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection that is not used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// How often a call is sent again with other types.
const MAX_LEARNED: usize = 64;

/// How often it is looked whether the service still answers.
const LOOK: Duration = Duration::from_secs(1);

/// A service that reads nothing of a call for so long, and whose caller has given up, seems to be gone.
const SILENT: Duration = Duration::from_secs(2);

/// The most methods whose types are remembered.
const MAX_METHODS: usize = 1000;

/// Calls that wait until they can be written. Further callers wait for a place.
const QUEUE: usize = 64;

/// How often a call is sent again whose connection was lost before it was written.
const AGAIN: usize = 3;

/// An address, and the task that has the connection to it while there is one.
pub(super) struct Connection {
    address: Arc<str>,
    protocol: RpcProtocol,
    task: Mutex<Option<mpsc::Sender<Ask>>>,
    /// What services said of the types of their arguments, by method and by what the argument looks
    /// like.
    learned: Mutex<HashMap<(String, u64), Arc<Learned>>>,
}

/// A call for the task.
struct Ask {
    method: String,
    argument: Arc<Value>,
    /// For gob.
    shape: Arc<Shape>,
    answer: oneshot::Sender<Result<Reply, Failure>>,
}

impl Connection {
    pub(super) fn new(address: Arc<str>, protocol: RpcProtocol) -> Self {
        Connection { address, protocol, task: Mutex::default(), learned: Mutex::default() }
    }

    /// Makes a call.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the answer; the service goes on.
    ///
    /// # Errors
    /// [`Failure::Connect`] only if nothing was sent.
    pub(super) async fn call(&self, method: &str, argument: &Arc<Value>) -> Result<Reply, Failure> {
        let looks = match self.protocol {
            RpcProtocol::Gob => Shape::guess(argument).map_err(Failure::Method)?,
            _ => Shape::default(),
        };
        let key = (method.to_owned(), looks.signature());
        for _ in 0..MAX_LEARNED {
            let mut learned = Learned::clone(&self.learned(&key));
            let shape = looks.refined(&learned).map_err(Failure::Method)?;
            let text = match self.ask(method, argument, &Arc::new(shape)).await? {
                Reply::Error(text) if self.protocol == RpcProtocol::Gob => text,
                reply => return Ok(reply),
            };
            // If the service says which type it wants, the call did not run, and is sent again.
            if !learned.take(&text).map_err(Failure::Method)? {
                return Ok(Reply::Error(text));
            }
            let mut all = lock(&self.learned);
            if all.len() >= MAX_METHODS {
                all.clear();
            }
            all.insert(key.clone(), Arc::new(learned));
        }
        Err(Failure::Method("the service asks for ever other types of the argument".to_owned()))
    }

    fn learned(&self, key: &(String, u64)) -> Arc<Learned> {
        lock(&self.learned).get(key).cloned().unwrap_or_default()
    }

    /// Sends a call, and waits for its answer.
    async fn ask(
        &self,
        method: &str,
        argument: &Arc<Value>,
        shape: &Arc<Shape>,
    ) -> Result<Reply, Failure> {
        let mut last = None;
        for _ in 0..AGAIN {
            let (sender, answer) = oneshot::channel();
            let (method, argument, shape) = (method.to_owned(), argument.clone(), shape.clone());
            let ask = Ask { method, argument, shape, answer: sender };
            self.give(ask).await;
            match answer.await {
                Ok(Err(failure @ Failure::ConnectionLost { not_executed: true, .. })) => {
                    last = Some(failure);
                }
                Ok(result) => return result,
                // The runtime of the task has ended.
                Err(_) => return Err(lost("the client's runtime ended", false)),
            }
        }
        Err(last.unwrap_or_else(|| lost("the connection was closed", true)))
    }

    /// Gives a call to the task. Where none runs one is started, which has the call from the
    /// beginning: a task that cannot connect may end before anything else reaches it.
    async fn give(&self, mut ask: Ask) {
        loop {
            let running = {
                let mut task = lock(&self.task);
                match task.as_ref().filter(|task| !task.is_closed()) {
                    Some(running) => running.clone(),
                    None => {
                        let (sender, asks) = mpsc::channel(QUEUE);
                        let given = sender.try_send(ask);
                        tokio::spawn(run(self.address.clone(), self.protocol, asks));
                        *task = Some(sender);
                        match given {
                            Ok(()) => return,
                            Err(error) => ask = error.into_inner(),
                        }
                        continue;
                    }
                }
            };
            match running.send(ask).await {
                Ok(()) => return,
                // The task has just ended.
                Err(SendError(back)) => ask = back,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lost(reason: &str, not_executed: bool) -> Failure {
    Failure::ConnectionLost { reason: reason.to_owned(), not_executed }
}

/// The calls that were written, by number, and when something was read last.
struct Waiting {
    calls: Mutex<HashMap<u64, Sent>>,
    heard: Mutex<Instant>,
}

/// A call that was written.
struct Sent {
    at: Instant,
    answer: oneshot::Sender<Result<Reply, Failure>>,
}

impl Waiting {
    fn insert(&self, number: u64, answer: oneshot::Sender<Result<Reply, Failure>>) {
        lock(&self.calls).insert(number, Sent { at: Instant::now(), answer });
    }

    /// Ends when the peer seems to be gone: somebody gave up a call to it, and nothing was read since
    /// that call was sent.
    async fn watched(&self) -> String {
        loop {
            tokio::time::sleep(LOOK).await;
            let (now, heard) = (Instant::now(), *lock(&self.heard));
            let mut calls = lock(&self.calls);
            let given_up = |sent: &Sent| sent.answer.is_closed() && now - sent.at > SILENT;
            if calls.values().any(|sent| given_up(sent) && heard < sent.at) {
                return "the service does not answer".to_owned();
            }
            // An answer that nobody wants need not be expected.
            calls.retain(|_, sent| !given_up(sent));
        }
    }
}

/// Connects, and makes calls until the connection ends.
async fn run(address: Arc<str>, protocol: RpcProtocol, mut asks: mpsc::Receiver<Ask>) {
    let waiting = Waiting { calls: Mutex::default(), heard: Mutex::new(Instant::now()) };
    let ended = match connected(&address).await {
        Ok(stream) => {
            let (reader, writer) = stream.into_split();
            let reason = tokio::select! {
                reason = read(reader, protocol, &waiting) => reason,
                reason = write(writer, protocol, &mut asks, &waiting) => reason,
                reason = waiting.watched() => reason,
            };
            Ok(reason)
        }
        Err(error) => Err(Arc::new(error)),
    };
    asks.close();
    for sent in std::mem::take(&mut *lock(&waiting.calls)).into_values() {
        let reason = ended.as_ref().map_or("", |reason| &reason[..]);
        // Whoever has given up does not hear it.
        let _ = sent.answer.send(Err(lost(reason, false)));
    }
    while let Some(ask) = asks.recv().await {
        let failure = match &ended {
            Ok(reason) => lost(reason, true),
            Err(error) => Failure::Connect(error.clone()),
        };
        let _ = ask.answer.send(Err(failure));
    }
}

async fn connected(address: &str) -> Result<TcpStream, ConnectError> {
    let connecting = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await;
    let stream = connecting.map_err(|_| ConnectError::TimedOut(CONNECT))?;
    let stream = stream.map_err(ConnectError::Io)?;
    stream.set_nodelay(true).map_err(ConnectError::Io)?;
    Ok(stream)
}

/// Writes calls. Returns why it ends.
async fn write(
    mut writer: OwnedWriteHalf,
    protocol: RpcProtocol,
    asks: &mut mpsc::Receiver<Ask>,
    waiting: &Waiting,
) -> String {
    let (mut requests, mut number) = (Requests::default(), 0u64);
    loop {
        let ask = match tokio::time::timeout(IDLE, asks.recv()).await {
            Ok(Some(ask)) => ask,
            Ok(None) => return "the client ended".to_owned(),
            Err(_) if lock(&waiting.calls).is_empty() => return "it was idle".to_owned(),
            Err(_) => continue,
        };
        if ask.answer.is_closed() {
            continue;
        }
        number += 1;
        let mut message = Vec::new();
        let put = match protocol {
            RpcProtocol::JsonRpc => {
                json::put_call(&mut message, number, &ask.method, &ask.argument);
                Ok(())
            }
            _ => requests.put_call(&mut message, number, (&ask.method, &ask.argument), &ask.shape),
        };
        if let Err(why) = put {
            let _ = ask.answer.send(Err(Failure::Method(why)));
            continue;
        }
        if message.len() > 2 * MAX_MESSAGE {
            let (len, max) = (message.len() as u64, MAX_MESSAGE as u64);
            let _ = ask.answer.send(Err(Failure::TooLarge { len, max }));
            continue;
        }
        waiting.insert(number, ask.answer);
        if let Err(error) = writer.write_all(&message).await {
            return error.to_string();
        }
    }
}

/// Reads answers. Returns why it ends.
async fn read(mut reader: OwnedReadHalf, protocol: RpcProtocol, waiting: &Waiting) -> String {
    let mut buffer = BytesMut::new();
    let (mut replies, mut framing) = (Replies::default(), json::Framing::default());
    loop {
        let next = match protocol {
            RpcProtocol::JsonRpc => framing.next_reply(&mut buffer),
            _ => replies.next(&mut buffer),
        };
        match next {
            Ok(Some((number, reply))) => {
                if let Some(sent) = lock(&waiting.calls).remove(&number) {
                    let _ = sent.answer.send(Ok(reply));
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => return why,
        }
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return "the service closed it".to_owned(),
            Ok(_) => *lock(&waiting.heard) = Instant::now(),
            Err(error) => return error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 16)]
    async fn whoever_calls_what_cannot_be_connected_hears_why() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Arc<str> = listener.local_addr().unwrap().to_string().into();
        drop(listener);
        let connection = Arc::new(Connection::new(address, RpcProtocol::Gob));
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let connection = connection.clone();
            callers.spawn(async move {
                for _ in 0..3000 {
                    let called = connection.call("Calc.Multiply", &Arc::new(Value::from(1))).await;
                    assert!(matches!(called, Err(Failure::Connect(_))), "{:?}", called.err());
                }
            });
        }
        callers.join_all().await;
    }
}
