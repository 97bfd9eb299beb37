//! The client for programs that are not async.
//!
//! ```no_run
//! # #[derive(serde::Serialize)] struct Args { a: i64, b: i64 }
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = wharf_client::blocking::Client::connect("http://127.0.0.1:8500")?;
//! let product: i64 = client.call("arith.multiply", &Args { a: 7, b: 8 })?;
//! # Ok(()) }
//! ```
//!
//! The client runs on a background thread. In an async program it would block everything else on
//! the calling thread: use [`crate::Client`] there.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Handle, Runtime};
#[cfg(feature = "discovery")]
use wharf_registry_api::RegistryError;

use crate::builder::ClientBuilder;
use crate::error::{CallError, RpcError};
use crate::options::CallOptions;

/// Calls services, and waits for their answers. Clones share everything.
#[derive(Clone, Debug)]
pub struct Client {
    client: crate::Client,
    handle: Handle,
    /// The process that the background thread is in.
    process: u32,
    _background: Arc<Background>,
}

/// Why the client cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The background thread cannot be started.
    #[error("the client's thread cannot be started")]
    Thread(#[source] std::io::Error),
    /// Not the address of a registry.
    #[cfg(feature = "discovery")]
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Ends the runtime when the last clone is dropped.
#[derive(Debug)]
struct Background(Option<Runtime>);

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // Does not wait: this may run inside an async program, where waiting is not allowed.
            runtime.shutdown_background();
        }
    }
}

impl Client {
    /// A client that uses the registry at this address, `http://127.0.0.1:8500`.
    ///
    /// # Errors
    /// When the address is invalid, or the background thread cannot be started.
    #[cfg(feature = "discovery")]
    pub fn connect(registry: &str) -> Result<Self, StartError> {
        Self::build(|builder| builder.registry(registry))
    }

    /// A client with its own settings. `build` makes it from the builder.
    ///
    /// # Errors
    /// The error of `build`, or [`StartError::Thread`] if the background thread cannot be started.
    pub fn build<E: Into<StartError>>(
        build: impl FnOnce(ClientBuilder) -> Result<crate::Client, E>,
    ) -> Result<Self, StartError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("wharf-client")
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let client = {
            let _entered = runtime.enter();
            build(crate::Client::builder()).map_err(Into::into)?
        };
        let handle = runtime.handle().clone();
        let (process, background) = (std::process::id(), Background(Some(runtime)));
        Ok(Client { client, handle, process, _background: Arc::new(background) })
    }

    /// As [`crate::Client::call`].
    ///
    /// # Errors
    /// As for [`crate::Client::call`].
    pub fn call<A, R>(&self, method: &str, arguments: &A) -> Result<R, RpcError>
    where
        A: Serialize + Sync + ?Sized,
        R: DeserializeOwned + Send,
    {
        self.wait(self.client.call(method, arguments))
    }

    /// As [`crate::Client::call_with`].
    ///
    /// # Errors
    /// As for [`crate::Client::call_with`].
    pub fn call_with<A, R>(
        &self,
        method: &str,
        arguments: &A,
        options: CallOptions,
    ) -> Result<R, RpcError>
    where
        A: Serialize + Sync + ?Sized,
        R: DeserializeOwned + Send,
    {
        self.wait(self.client.call_with(method, arguments, options))
    }

    /// As [`crate::Client::call_json`].
    ///
    /// # Errors
    /// As for [`crate::Client::call_json`].
    pub fn call_json(
        &self,
        method: &str,
        arguments: serde_json::Value,
    ) -> Result<serde_json::Value, CallError<serde_json::Value>> {
        self.wait(self.client.call_json(method, arguments))
    }

    /// The async client behind this one, for typed stubs: `ArithClient::new(client.client())`.
    #[must_use]
    pub fn client(&self) -> &crate::Client {
        &self.client
    }

    /// Waits for a future of the async client: `client.wait(arith.multiply(&arguments))`.
    ///
    /// In a child that was forked after the client was made, its calls fail at once.
    pub fn wait<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        if self.process != std::process::id() {
            // The background thread is not in this child: nothing would ever be answered.
            self.client.forked();
        }
        if Handle::try_current().is_err() {
            return self.handle.block_on(future);
        }
        // A thread that runs an async runtime must not block on another one. A new thread may.
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| self.handle.block_on(future));
            waiting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Failure;

    #[test]
    fn in_a_forked_child_a_call_fails_at_once_and_says_why() {
        let build = |builder: ClientBuilder| Ok::<_, StartError>(builder.direct("127.0.0.1:1"));
        let client = Client::build(build).unwrap();
        let error = client.call::<_, ()>("a.b", &()).unwrap_err();
        assert!(matches!(error.failure, Failure::Connect(_)), "{error}");
        // As a child finds it, whose process is another one.
        let child = Client { process: 0, ..client };
        let error = child.call::<_, ()>("a.b", &()).unwrap_err();
        assert!(matches!(error.failure, Failure::Forked), "{error}");
        assert!(!error.may_have_executed);
    }
}
