//! Which methods language models may call as tools.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor, value::SeqAccessDeserializer};
use wharf_schema::{MethodPath, Service, did_you_mean, find_name};

use super::values::Bounded;

/// `mcp = true`, or a list of methods: `mcp = ["multiply", "demo:arith/arith.divide"]`. Without it,
/// none: what a model may call is a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    #[default]
    None,
    All,
    Some(Vec<String>),
}

impl ToolChoice {
    /// The positions of the methods that are tools, for each of these services.
    ///
    /// # Errors
    /// When an entry of the list means no method that can be called. The error says which.
    pub(crate) fn among(&self, services: &[Arc<Service>]) -> Result<Vec<Box<[usize]>>, String> {
        let callable = |service: &Service| -> Vec<usize> {
            let methods = service.methods().iter().enumerate();
            methods.filter(|(_, method)| method.signature.is_ok()).map(|(n, _)| n).collect()
        };
        let mut chosen: Vec<Vec<usize>> = vec![Vec::new(); services.len()];
        match self {
            ToolChoice::None => {}
            ToolChoice::All => chosen = services.iter().map(|s| callable(s)).collect(),
            ToolChoice::Some(entries) => {
                for entry in entries {
                    let mut is_known = false;
                    for (service, chosen) in services.iter().zip(&mut chosen) {
                        let callable = callable(service);
                        let Some(method) = meant(entry, service, &callable) else { continue };
                        is_known = true;
                        chosen.push(method);
                    }
                    if !is_known {
                        let names = services.iter().flat_map(|service| service.methods());
                        let last = entry.rsplit('.').next().unwrap_or(entry);
                        let hint = did_you_mean(last, names.map(|method| &method.name[..]));
                        return Err(format!(
                            "its sidecar offers '{entry}' to models (mcp), and it has no such method{hint}"
                        ));
                    }
                }
            }
        }
        let sorted = chosen.into_iter().map(|mut methods| {
            methods.sort_unstable();
            methods.dedup();
            methods.into()
        });
        Ok(sorted.collect())
    }
}

/// The method of a service that an entry means: `multiply`, or with the service, `arith.multiply`.
fn meant(entry: &str, service: &Service, callable: &[usize]) -> Option<usize> {
    let name = match MethodPath::parse(entry) {
        Ok(path) if path.service.matches(service.name()) => path.method,
        Ok(_) => return None,
        Err(_) => entry.to_owned(),
    };
    let names = callable.iter().map(|method| &service.methods()[*method].name[..]);
    find_name(names, &name).map(|place| callable[place])
}

impl<'de> Deserialize<'de> for ToolChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choice;

        impl<'de> Visitor<'de> for Choice {
            type Value = ToolChoice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, or a list of methods like [\"multiply\"]")
            }

            fn visit_bool<E>(self, all: bool) -> Result<ToolChoice, E> {
                Ok(if all { ToolChoice::All } else { ToolChoice::None })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<ToolChoice, A::Error> {
                let list = Bounded::deserialize(SeqAccessDeserializer::new(list))?;
                Ok(ToolChoice::Some(list.0))
            }
        }

        deserializer.deserialize_any(Choice)
    }
}
