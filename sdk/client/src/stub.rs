//! The runtime part of the code that [`bindgen!`](crate::bindgen) generates. It changes together
//! with that code, and is not meant to be used by hand.

use std::sync::Arc;

pub use serde;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};
use wharf_schema::{Fingerprint, ServiceName, kebab};

use crate::attempts::Answer;
use crate::balance::Wanted;
use crate::client::{Client, decode, encode};
use crate::error::{CallError, RpcError};
use crate::named::Named;
use crate::options::CallOptions;

/// A service, as it was when the code was generated.
#[derive(Debug)]
pub struct Interface {
    /// `demo:arith`
    pub package: Option<&'static str>,
    /// `arith`
    pub interface: &'static str,
    /// `0.1.0`
    pub version: Option<&'static str>,
    /// The fingerprint of all methods.
    pub fingerprint: [u8; 16],
    /// The methods that can be called.
    pub methods: &'static [MethodSpec],
}

/// A method of an [`Interface`].
#[derive(Debug)]
pub struct MethodSpec {
    /// As the WIT spells it.
    pub name: &'static str,
    /// The fingerprint of its signature.
    pub fingerprint: [u8; 16],
    /// Whether it may run more than once.
    pub idempotent: bool,
}

/// Calls the methods of an interface.
#[derive(Clone)]
pub struct Stub {
    client: Client,
    options: Arc<CallOptions>,
    methods: Arc<[Prepared]>,
}

struct Prepared {
    named: Named,
    fingerprint: Fingerprint,
    idempotent: bool,
}

impl Stub {
    /// Prepares all methods.
    #[must_use]
    pub fn new(client: &Client, interface: &'static Interface, options: CallOptions) -> Self {
        // The newest compatible version, or any if the WIT has no version.
        let compatible = || interface.version.and_then(|version| version.parse().ok());
        let wanted = Wanted {
            service: ServiceName {
                package: interface.package.map(str::to_owned),
                interface: interface.interface.to_owned(),
                version: None,
                requirement: options.version.clone().or_else(compatible),
            },
            fingerprint: Some(Fingerprint(interface.fingerprint)),
        };
        let prepare = |spec: &MethodSpec| {
            let named = client.name(wanted.clone(), kebab(spec.name));
            let fingerprint = Fingerprint(spec.fingerprint);
            Prepared { named, fingerprint, idempotent: spec.idempotent }
        };
        let methods = interface.methods.iter().map(prepare).collect();
        Stub { client: client.clone(), options: Arc::new(options), methods }
    }

    /// Calls a method whose result is not a WIT `result`.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn call<A: Serialize, R: DeserializeOwned, E>(
        &self,
        method: usize,
        arguments: &A,
    ) -> Result<R, CallError<E>> {
        let (named, answer) = self.ask(method, arguments).await?;
        Ok(decode(named.canonical(), &answer)?)
    }

    /// Calls a method whose result is a WIT `result`.
    ///
    /// # Errors
    /// The method's own error, or the failure of the call.
    pub async fn call_fallible<A: Serialize, T: DeserializeOwned, E: DeserializeOwned>(
        &self,
        method: usize,
        arguments: &A,
    ) -> Result<T, CallError<E>> {
        let (named, answer) = self.ask(method, arguments).await?;
        decode::<Result<T, E>>(named.canonical(), &answer)?.map_err(CallError::Application)
    }

    async fn ask<A: Serialize>(
        &self,
        method: usize,
        arguments: &A,
    ) -> Result<(&Named, Answer), RpcError> {
        // Generated code only uses positions in the list that it gave.
        let Prepared { named, fingerprint, idempotent } = &self.methods[method];
        let arguments = encode(named.canonical(), arguments)?;
        let (options, deadline) = (&self.options, self.client.deadline(&self.options));
        let mut asked =
            self.client.asked(named, arguments, options, Some(*fingerprint), deadline)?;
        asked.idempotent |= idempotent;
        Ok((named, self.client.ask(&asked).await?))
    }
}

impl std::fmt::Debug for Stub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let methods: Vec<&str> = self.methods.iter().map(|m| &**m.named.canonical()).collect();
        f.debug_struct("Stub").field("client", &self.client).field("methods", &methods).finish()
    }
}

/// Bytes that are encoded as one block, not element by element.
#[derive(Clone, Copy, Debug)]
pub struct Blob<'b>(pub &'b [u8]);

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}
