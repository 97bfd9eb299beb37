//! `wharf describe`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wharf_registry_api::{Endpoint, ListOptions};
use wharf_schema::{
    Method, MethodPath, Service, ServiceName, Type, TypeId, did_you_mean, example, example_of,
    printable, printable_json, printable_lines,
};

use crate::args::{Callee, Describe};
use crate::component;
use crate::exit::Exit;
use crate::explain::explained;

/// How long asking hosts may take.
const ASKING: Duration = Duration::from_secs(10);

pub(crate) async fn run(arguments: Describe) -> anyhow::Result<()> {
    let described = if component::is_file(&arguments.name) {
        let (_, inspection) = component::read(Path::new(&arguments.name))?;
        if inspection.services.is_empty() {
            let message = format!("{} exports no interface, so it is no service", arguments.name);
            return Err(Exit::NotFound(message).into());
        }
        let services = inspection.services.into_iter();
        services.map(|service| Description::of(Arc::new(service), None, Vec::new())).collect()
    } else {
        vec![running(&arguments.name, &arguments.callee).await?]
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let all: Vec<Value> = described.iter().map(Description::json).collect();
        let value = match &all[..] {
            [one] => one.clone(),
            _ => Value::Array(all),
        };
        writeln!(out, "{}", printable_json(&serde_json::to_string_pretty(&value)?))?;
        return Ok(());
    }
    for description in &described {
        write!(out, "{}", printable_lines(&description.text()))?;
    }
    Ok(())
}

/// The service, or the method, that hosts serve under this name.
async fn running(name: &str, callee: &Callee) -> anyhow::Result<Description> {
    let (service, method) = match MethodPath::parse(name) {
        Ok(path) => (path.service, Some(path.method)),
        // A version may look like a method: demo:arith/arith@0.1.0.
        Err(_) => {
            let service = ServiceName::parse(name);
            (service.map_err(|error| Exit::Usage(error.to_string()))?, None)
        }
    };
    let client = callee.client(ASKING).await?;
    let described = match client.describe(&service.to_string()).await {
        Ok(described) => described,
        Err(error) => return Err(explained(error.into(), &client, &service).await),
    };
    let method = match &method {
        Some(name) => match described.method_index(name) {
            Some(index) => Some(index),
            None => {
                let names = described.methods().iter().map(|method| &method.name[..]);
                let hint = did_you_mean(name, names);
                let message = format!("no method '{name}' in the service '{service}'{hint}");
                return Err(Exit::NotFound(message).into());
            }
        },
        None => None,
    };
    let endpoints = match client.registry() {
        Some(registry) => {
            let interface = &described.name().interface;
            let listed = registry.endpoints(interface, &ListOptions::default()).await?;
            let listed = listed.into_iter().flat_map(|list| list.endpoints);
            listed.filter(|endpoint| is_of(endpoint, described.name())).collect()
        }
        None => Vec::new(),
    };
    let mut description = Description::of(described, method, endpoints);
    if service.package.is_some() || service.version.is_some() || service.requirement.is_some() {
        // The short name may stand for another one.
        description.name = description.service.name().to_string();
    }
    Ok(description)
}

fn is_of(endpoint: &Endpoint, name: &ServiceName) -> bool {
    endpoint.spec.package == name.package
        && endpoint.spec.version == name.version.as_ref().map(ToString::to_string)
}

/// A service, or one method of it.
struct Description {
    service: Arc<Service>,
    method: Option<usize>,
    endpoints: Vec<Endpoint>,
    /// The service in commands: the short name, or the whole one if that is how it was asked for.
    name: String,
}

impl Description {
    fn of(service: Arc<Service>, method: Option<usize>, endpoints: Vec<Endpoint>) -> Self {
        let name = service.name().interface.clone();
        Description { service, method, endpoints, name }
    }

    fn methods(&self) -> impl Iterator<Item = &Method> {
        let all = self.service.methods().iter().enumerate();
        all.filter(|(index, _)| self.method.is_none_or(|only| only == *index)).map(|(_, m)| m)
    }

    fn text(&self) -> String {
        let service = &self.service;
        let mut text = format!("service     {}\n", service.name());
        text.push_str(&format!("fingerprint {}\n", service.fingerprint()));
        for endpoint in &self.endpoints {
            let reason = endpoint.spec.reason.as_ref();
            let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            let Endpoint { address, host, state, .. } = endpoint;
            // Hosts choose these texts, and what has several lines could forge others.
            let line = printable(&format!("{address}, host {host}, {state}{reason}"));
            text.push_str(&format!("endpoint    {line}\n"));
        }
        if self.method.is_none() && !service.wit().is_empty() {
            text.push_str(&format!("\n{}\n", service.wit().trim_end()));
        }
        for method in self.methods() {
            text.push_str(&format!("\n{}\n", printable(&service.notation(method))));
            for line in method.docs.lines() {
                text.push_str(format!("  {}", line.trim()).trim_end());
                text.push('\n');
            }
            match Examples::by_name(&self.name, service, method) {
                Ok(examples) => {
                    text.push_str(&format!("  $ {}\n", printable(&examples.command)));
                    if let Some(result) = &examples.result {
                        text.push_str(&format!("  {}\n", printable(result)));
                    }
                    if let Some(error) = &examples.error {
                        text.push_str(&format!("  or fails with {}\n", printable(error)));
                    }
                }
                Err(reason) => {
                    text.push_str(&format!("  cannot be called: {}\n", printable(&reason)));
                }
            }
        }
        text
    }

    fn json(&self) -> Value {
        let service = &self.service;
        let methods = self.methods().map(|method| {
            let mut value = json!({
                "name": method.name,
                "docs": method.docs,
                "signature": service.notation(method),
            });
            match (Examples::by_name(&self.name, service, method), &method.signature) {
                (Ok(examples), Ok(signature)) => {
                    value["fingerprint"] = signature.fingerprint.to_string().into();
                    value["command"] = examples.command.into();
                    value["arguments"] = as_json(&examples.arguments);
                    value["result"] = examples.result.as_deref().map_or(Value::Null, as_json);
                    if let Some(error) = &examples.error {
                        value["error"] = as_json(error);
                    }
                }
                (Err(reason), _) => value["unavailable"] = reason.into(),
                (Ok(_), Err(reason)) => value["unavailable"] = reason.as_str().into(),
            }
            value
        });
        json!({
            "service": service.name().to_string(),
            "fingerprint": service.fingerprint().to_string(),
            "docs": service.docs(),
            "wit": service.wit(),
            "endpoints": self.endpoints,
            "methods": methods.collect::<Vec<Value>>(),
        })
    }
}

/// An example as JSON. One that was cut short is a text.
fn as_json(example: &str) -> Value {
    serde_json::from_str(example).unwrap_or_else(|_| example.into())
}

/// A word for a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// How a method is called, and what it may answer.
pub(crate) struct Examples {
    pub(crate) command: String,
    /// The body of a call over HTTP.
    pub(crate) arguments: String,
    pub(crate) result: Option<String>,
    error: Option<String>,
}

impl Examples {
    pub(crate) fn of(service: &Service, method: &Method) -> Result<Self, String> {
        Examples::by_name(&service.name().interface, service, method)
    }

    /// The same with another name for the service.
    fn by_name(name: &str, service: &Service, method: &Method) -> Result<Self, String> {
        let signature = method.signature.as_ref().map_err(Clone::clone)?;
        let types = service.types();
        let path = format!("{name}.{}", method.name);
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@+".contains(c);
        let path = if path.chars().all(is_plain) { path } else { quoted(&path) };
        let mut command = format!("wharf call {path}");
        for param in &signature.params {
            // A text needs no quotes of its own.
            let example = example(types, param.ty);
            let text = serde_json::from_str::<String>(&example).unwrap_or(example);
            command.push(' ');
            command.push_str(&quoted(&text));
        }
        let of =
            |ty: &Option<TypeId>| ty.map_or_else(|| "null".to_owned(), |ty| example(types, ty));
        let (result, error) = match signature.result.map(|ty| &types[ty]) {
            None => (None, None),
            Some(Type::Result { ok, err }) => (Some(of(ok)), Some(of(err))),
            Some(_) => (Some(of(&signature.result)), None),
        };
        Ok(Examples { command, arguments: example_of(types, &signature.params), result, error })
    }
}
