//! The methods that models may call as tools, as the Model Context Protocol describes them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};
use wharf_schema::{JsonDialect, JsonSchemas, Method, Service, Signature, Type, TypeId, Types};

use super::sight::Shown;

/// The member that has a result which is no object. Clients want objects.
pub(super) const WRAPPED: &str = "result";

/// The tools of one page.
const PAGE: usize = 100;

/// The longest name of a tool, in bytes.
const MAX_NAME: usize = 128;

/// The most bytes of all descriptions. Written out, types can be exponentially large.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What models may call. The order is that of the names.
pub(super) struct Tools(BTreeMap<String, Tool>);

struct Tool {
    /// The full name of the method.
    method: String,
    /// What models are told, as JSON.
    description: String,
}

impl Tools {
    /// Those that the sidecars of these services offer.
    pub(super) fn of(all: &[Shown]) -> Self {
        let offering: Vec<_> = all.iter().filter(|served| !served.tools.is_empty()).collect();
        let mut count: HashMap<&str, usize> = HashMap::new();
        for served in &offering {
            *count.entry(&served.service.name().interface).or_default() += 1;
        }
        let (mut tools, mut bytes) = (BTreeMap::new(), 0);
        for served in offering {
            let service = &served.service;
            let full = service.name().to_string();
            let short = &service.name().interface;
            let prefix = match count.get(&short[..]) {
                Some(1) => short.clone(),
                _ => full.replace(|c: char| !c.is_ascii_alphanumeric(), "-"),
            };
            for method in served.tools.iter().filter_map(|place| service.methods().get(*place)) {
                let Ok(signature) = &method.signature else { continue };
                let name = format!("{prefix}_{}", method.name);
                let description = described(service, method, signature, &name).to_string();
                bytes += description.len();
                let is_taken = tools.contains_key(&name);
                if is_taken || name.len() > MAX_NAME || bytes > MAX_BYTES {
                    bytes -= description.len();
                    let why =
                        "its name is taken or too long, or the descriptions of all are too long";
                    tracing::warn!(method = method.name, service = full, why, "a tool is left out");
                    continue;
                }
                tools.insert(name, Tool { method: format!("{full}.{}", method.name), description });
            }
        }
        Tools(tools)
    }

    /// The full name of the method of a tool.
    pub(super) fn method(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|tool| &tool.method[..])
    }

    /// The descriptions of the tools after this one, and its last tool's name if there are more.
    pub(super) fn page(&self, after: Option<&str>) -> (Vec<&str>, Option<&str>) {
        use std::ops::Bound::{Excluded, Unbounded};

        let from = after.map_or(Unbounded, Excluded);
        let mut rest = self.0.range::<str, _>((from, Unbounded)).peekable();
        let (mut page, mut last) = (Vec::new(), None);
        while page.len() < PAGE
            && let Some((name, tool)) = rest.next()
        {
            page.push(&tool.description[..]);
            last = Some(&name[..]);
        }
        (page, last.filter(|_| rest.peek().is_some()))
    }
}

/// The type of what a successful call gives. `None`: nothing.
pub(super) fn carried(types: &Types, result: Option<TypeId>) -> Option<TypeId> {
    match result.map(|ty| &types[ty]) {
        Some(Type::Result { ok, .. }) => *ok,
        _ => result,
    }
}

/// Whether values of a type are objects in JSON already.
pub(super) fn is_object(types: &Types, ty: TypeId) -> bool {
    matches!(types[ty], Type::Record(_))
}

fn described(service: &Service, method: &Method, signature: &Signature, name: &str) -> Value {
    let mut tool = json!({
        "name": name,
        "description": match method.docs.trim() {
            "" => format!("{}.{}", service.name(), method.name),
            docs => docs.to_owned(),
        },
        "inputSchema": input(service, signature),
    });
    if let Some(output) = output(service, signature) {
        tool["outputSchema"] = output;
    }
    tool
}

/// An object with the parameters, or the record itself where a method takes one.
fn input(service: &Service, signature: &Signature) -> Value {
    let mut types = schemas(service);
    let schema = match &signature.params[..] {
        [only] if matches!(service.types()[only.ty], Type::Record(_)) => types.in_place(only.ty),
        params => types.parameters(params),
    };
    with_definitions(schema, types.definitions())
}

/// An object with the result, or the record itself if the result is one. None without a result.
fn output(service: &Service, signature: &Signature) -> Option<Value> {
    let carried = carried(service.types(), signature.result)?;
    let mut types = schemas(service);
    let schema = match is_object(service.types(), carried) {
        true => types.in_place(carried),
        false => json!({
            "type": "object",
            "properties": { WRAPPED: types.schema(carried) },
            "required": [WRAPPED],
            "additionalProperties": false,
        }),
    };
    Some(with_definitions(schema, types.definitions()))
}

fn schemas(service: &Service) -> JsonSchemas<'_> {
    JsonSchemas::new(service, JsonDialect::Model, "#/$defs/", "")
}

fn with_definitions(mut schema: Value, definitions: Map<String, Value>) -> Value {
    if !definitions.is_empty() {
        schema["$defs"] = definitions.into();
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_end() {
        let tool = |n: usize| Tool { method: String::new(), description: n.to_string() };
        let tools = Tools((0..250).map(|n| (format!("t{n:03}"), tool(n))).collect());
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let (page, next) = tools.page(after);
            assert!(page.len() <= PAGE);
            seen.extend(page);
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        let all: Vec<String> = (0..250).map(|n| n.to_string()).collect();
        assert_eq!(seen, all);
        // A tool that is gone still has its place in the order.
        assert_eq!(tools.page(Some("t2485")).0, ["249"]);
        assert_eq!(tools.page(Some("t249")), (Vec::new(), None));
    }
}
