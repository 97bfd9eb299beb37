//! Errors about names that do not exist: suggests the most similar ones.

use wharf_client::{Client, Failure, RpcError};
use wharf_schema::{MethodPath, ServiceName, most_similar};

use crate::exit::Exit;

/// What a call's error means, with the most similar name if it is about an unknown one.
pub(crate) async fn explain(
    error: anyhow::Error,
    client: &Client,
    path: &MethodPath,
) -> anyhow::Error {
    if !matches!(failure(&error), Some(Failure::Method(_))) {
        return explained(error, client, &path.service).await;
    }
    let service = client.describe(&path.service.to_string()).await;
    let meant = service.ok().and_then(|service| {
        if service.method(&path.method).is_some() {
            // The method exists, so the error itself says what is wrong.
            return None;
        }
        let names = service.methods().iter().map(|method| &method.name[..]);
        most_similar(&path.method, names).map(str::to_owned)
    });
    match meant {
        Some(meant) => {
            let message = format!(
                "no method '{}' in the service '{}'; did you mean '{meant}'?",
                path.method, path.service
            );
            Exit::NotFound(message).into()
        }
        None => error,
    }
}

/// The same for whatever is asked of a service.
pub(crate) async fn explained(
    error: anyhow::Error,
    client: &Client,
    service: &ServiceName,
) -> anyhow::Error {
    match failure(&error) {
        Some(Failure::NoEndpoint { reason, .. }) if reason.is_empty() => {
            let Some(registry) = client.registry() else { return error };
            let Ok(list) = registry.services().await else { return error };
            let known = list.services;
            let names = known.iter().map(|service| &service.service[..]);
            let meant = most_similar(&service.interface, names);
            let hint = match meant {
                Some(meant) => format!("; did you mean '{meant}'?"),
                None if known.is_empty() => {
                    format!(": nothing is registered at {}", registry.address())
                }
                None => ": run 'wharf services' to list all services".to_owned(),
            };
            Exit::NotFound(format!("no service '{service}'{hint}")).into()
        }
        Some(Failure::NetRpc { .. }) => Exit::NotFound(format!(
            "'{service}' is a service of Go's net/rpc, which has no description: call it by 'wharf call {service}.METHOD'"
        ))
        .into(),
        Some(Failure::ConnectionLost { .. })
            if client.registry().is_none() =>
        {
            error.context(
                "is it a Wharf host? A server of Go's net/rpc is called by its name, once it is registered",
            )
        }
        _ => error,
    }
}

fn failure(error: &anyhow::Error) -> Option<&Failure> {
    error.downcast_ref::<RpcError>().map(|error| &error.failure)
}
