//! Calls with JSON. The types come from the service's description, so a program need not know them
//! when it is built.

use std::time::Instant;

use serde_json::Value;
use wharf_schema::{Outcome, Service, Signature, arguments_from_json, result_to_json};
#[cfg(feature = "discovery")]
use wharf_wire::Status;

use crate::client::Client;
#[cfg(feature = "discovery")]
use crate::connection::Deadline;
use crate::error::{CallError, Failure, RpcError};
#[cfg(feature = "discovery")]
use crate::named::Named;
use crate::options::CallOptions;

impl Client {
    /// Like [`Client::call`], with arguments and result as JSON. `arguments` is the only
    /// parameter's value, an array of several values, or `null` for none. Fields of records are in
    /// lowerCamelCase in results, and in any spelling in arguments; `list<u8>` is base64.
    ///
    /// The method's types come from the service's description, which is fetched once.
    ///
    /// A service that registered itself by `/register` speaks Go's net/rpc, and is called so while no
    /// host serves it: `arguments` is its one argument. Objects become structs (`a` is the field `A`),
    /// whole numbers integers, and `7.0` a float; where the service wants another type, it says so, and
    /// gets it. The text of its error is the [`CallError::Application`].
    ///
    /// # Errors
    /// The Err of a method's own `result` is [`CallError::Application`]. Otherwise as for
    /// [`Client::call`].
    ///
    /// # Cancel safety
    /// As for [`Client::call`].
    pub async fn call_json(
        &self,
        method: &str,
        arguments: Value,
    ) -> Result<Value, CallError<Value>> {
        let arguments = Arguments::Whole(arguments);
        let outcome = self.json(method, &arguments, CallOptions::default()).await?;
        let parse = |text: String| {
            serde_json::from_str(&text).map_err(|error| {
                let what = format!("the result is not JSON: {error}");
                RpcError::local(method, Failure::Method(what))
            })
        };
        match outcome {
            Outcome::Ok(result) => Ok(parse(result)?),
            Outcome::Err(error) => Err(CallError::Application(parse(error)?)),
        }
    }

    /// Like [`Client::call_json`], with options and one value for each parameter. The result is the
    /// text of a JSON value, because a text keeps all digits of its numbers.
    ///
    /// # Errors
    /// As for [`Client::call`]. The Err of a method's own `result` is not an error here: it is
    /// [`Outcome::Err`].
    ///
    /// # Cancel safety
    /// As for [`Client::call`].
    pub async fn call_json_with(
        &self,
        method: &str,
        arguments: &[Value],
        options: CallOptions,
    ) -> Result<Outcome, RpcError> {
        self.json(method, &Arguments::Each(arguments), options).await
    }

    async fn json(
        &self,
        method: &str,
        arguments: &Arguments<'_>,
        options: CallOptions,
    ) -> Result<Outcome, RpcError> {
        let named = self.named(method, &options)?;
        let mut deadline = self.deadline(&options);
        let mut fresh = false;
        loop {
            let described = match self.description(named.wanted(), deadline, fresh).await {
                #[cfg(feature = "discovery")]
                Err(error) if self.is_for_net_rpc(&named, &error, deadline).await => {
                    return self.net_rpc(&named, method, arguments, deadline).await;
                }
                described => described,
            };
            let (service, cached) = described?;
            fresh = true;
            // The time until here does not count as part of the call.
            deadline.begun = Instant::now();
            let failure = match encode(&service, named.method().unwrap_or_default(), arguments) {
                Ok((encoded, signature)) => {
                    let fingerprint = Some(signature.fingerprint);
                    let wanted = options.fingerprint;
                    if wanted.is_none() || wanted == fingerprint {
                        let encoded = encoded.into();
                        let asked = self.asked(&named, encoded, &options, fingerprint, deadline)?;
                        match self.ask(&asked).await {
                            Ok(answer) => {
                                let result = signature.result;
                                return result_to_json(service.types(), result, &answer.bytes)
                                    .map_err(|e| answer.unusable(method, Failure::Result(e)));
                            }
                            // Nothing ran, so the arguments can be encoded again.
                            Err(error) if error.failure.is_schema_mismatch() && cached => continue,
                            // The last host that serves it is gone, and a classic service goes on.
                            #[cfg(feature = "discovery")]
                            Err(error) if self.is_for_net_rpc(&named, &error, deadline).await => {
                                return self.net_rpc(&named, method, arguments, deadline).await;
                            }
                            Err(error) => return Err(error),
                        }
                    }
                    let message = "the method's signature is not the one that the caller was built against: compare it with the service's WIT";
                    Failure::Method(message.to_owned())
                }
                Err(failure) => failure,
            };
            // The plugin may have been replaced since its description was fetched.
            if !cached {
                return Err(RpcError::local(method, failure));
            }
        }
    }
}

#[cfg(feature = "discovery")]
impl Client {
    /// Whether a call that failed is one for a service of Go's net/rpc: only such services are listed,
    /// or the hosts that are listed do not serve it any more, nothing ran, and such a service is there.
    async fn is_for_net_rpc(&self, named: &Named, error: &RpcError, deadline: Deadline) -> bool {
        let is_gone = match &error.failure {
            Failure::NetRpc { .. } => return true,
            // A host was called, so there is a list, and looking at it does not wait.
            Failure::Remote(remote) => {
                matches!(remote.status, Status::NotFound | Status::Unavailable)
            }
            Failure::Connect(_) | Failure::ConnectionLost { .. } => true,
            _ => false,
        };
        is_gone && !error.may_have_executed && self.has_net_rpc(named, deadline).await
    }

    /// Calls a method of a service of Go's net/rpc, which takes one argument.
    async fn net_rpc(
        &self,
        named: &Named,
        spelled: &str,
        arguments: &Arguments<'_>,
        deadline: Deadline,
    ) -> Result<Outcome, RpcError> {
        let argument = match arguments {
            Arguments::Whole(value) => value.clone(),
            Arguments::Each([]) => Value::Null,
            Arguments::Each([only]) => only.clone(),
            Arguments::Each(several) => {
                let why =
                    format!("a method of Go's net/rpc takes one argument, not {}", several.len());
                return Err(RpcError::local(spelled, Failure::Method(why)));
            }
        };
        self.ask_net_rpc((named, spelled), argument, deadline).await
    }
}

/// Arguments, as a caller passes them.
enum Arguments<'a> {
    /// The one parameter, or an array of several.
    Whole(Value),
    /// One for each parameter.
    Each(&'a [Value]),
}

impl Arguments<'_> {
    /// One value for each parameter.
    fn each(&self, parameters: usize) -> &[Value] {
        match (self, parameters) {
            (Arguments::Each(values), _) => values,
            (Arguments::Whole(value), 1) => std::slice::from_ref(value),
            (Arguments::Whole(Value::Null), 0) => &[],
            (Arguments::Whole(Value::Array(values)), _) => values,
            // There are too few or too many; the error comes from where they are read.
            (Arguments::Whole(value), _) => std::slice::from_ref(value),
        }
    }
}

/// Encodes a method's arguments with the service's description.
fn encode<'s>(
    service: &'s Service,
    method: &str,
    arguments: &Arguments<'_>,
) -> Result<(Vec<u8>, &'s Signature), Failure> {
    let found = service.method(method).ok_or_else(|| {
        let known: Vec<&str> = service.methods().iter().map(|m| &m.name[..]).collect();
        let (service, known) = (service.name(), known.join(", "));
        Failure::Method(format!("the service '{service}' has no such method; it has {known}"))
    })?;
    let signature = found
        .signature
        .as_ref()
        .map_err(|reason| Failure::Method(format!("it cannot be called from outside: {reason}")))?;
    let arguments = arguments.each(signature.params.len());
    let encoded = arguments_from_json(service.types(), &signature.params, arguments)?;
    Ok((encoded, signature))
}
