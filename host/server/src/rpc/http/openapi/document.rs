//! Writes an OpenAPI 3.1 document. <https://spec.openapis.org/oas/v3.1.1.html>

use std::collections::HashMap;

use serde_json::{Map, Value, json};
use wharf_schema::{
    JsonDialect, JsonSchemas, Method, Param, Service, Signature, Type, example_of, lower_camel,
    net_rpc,
};

use crate::rpc::sight::Shown;

/// Where the definitions of types are.
const SCHEMAS: &str = "#/components/schemas/";

/// The name of the schema of failures.
const FAILURE: &str = "WharfFailure";

/// Describes the services `chosen`. `all` are those of the host: the path of a service depends on
/// which others have its name.
pub(super) fn of(all: &[Shown], chosen: &[Shown], has_token: bool) -> Value {
    let mut count: HashMap<&str, usize> = HashMap::new();
    for served in all {
        *count.entry(&served.service.name().interface).or_default() += 1;
    }
    let (mut paths, mut schemas, mut tags) = (Map::new(), Map::new(), Vec::new());
    for served in chosen {
        let service = &served.service;
        let is_only = count.get(&service.name().interface[..]).is_none_or(|count| *count == 1);
        let names = Names::of(service, is_only);
        tags.push(json!({ "name": names.path, "description": service.docs() }));
        let mut types = JsonSchemas::new(service, JsonDialect::Plain, SCHEMAS, &names.prefix)
            .avoiding(schemas.keys());
        for method in service.methods() {
            let Ok(signature) = &method.signature else { continue };
            let operation = operation(service, method, signature, &names, &mut types);
            paths.insert(format!("/{}/{}", names.path, method.name), json!({ "post": operation }));
        }
        schemas.extend(types.definitions());
    }
    schemas.insert(FAILURE.to_owned(), failure());
    let mut components = json!({ "schemas": schemas });
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": title(chosen),
            "version": version(chosen),
            "description": "Services of a Wharf host. Names of paths and members may have any \
                            spelling; integers may be strings of digits. Floats without a \
                            number in JSON are \"NaN\", \"Infinity\" and \"-Infinity\".",
        },
        "servers": [{ "url": "/" }],
        "tags": tags,
        "paths": paths,
    });
    if has_token {
        components["securitySchemes"] = json!({ "token": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "token": [] }]);
    }
    document["components"] = components;
    document
}

/// What a service is called in the document.
struct Names {
    /// In paths.
    path: String,
    /// What the names of its types and operations begin with.
    prefix: String,
}

impl Names {
    /// The short name, if no other service of the host has it.
    fn of(service: &Service, is_only: bool) -> Self {
        let name = service.name();
        if is_only {
            let path = name.interface.clone();
            return Names { prefix: net_rpc(&path), path };
        }
        let path = name.to_string();
        let plain = path.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        Names { prefix: net_rpc(&plain), path }
    }
}

fn title(chosen: &[Shown]) -> String {
    match chosen {
        [one] => one.service.name().to_string(),
        _ => "Wharf".to_owned(),
    }
}

fn version(chosen: &[Shown]) -> String {
    let version = match chosen {
        [one] => one.service.name().version.as_ref().map(ToString::to_string),
        _ => None,
    };
    version.unwrap_or_else(|| "1".to_owned())
}

fn operation(
    service: &Service,
    method: &Method,
    signature: &Signature,
    names: &Names,
    types: &mut JsonSchemas<'_>,
) -> Value {
    let json_of = |schema: Value| json!({ "application/json": { "schema": schema } });
    let (ok, err) = match signature.result.map(|ty| &service.types()[ty]) {
        Some(Type::Result { ok, err }) => (*ok, Some(*err)),
        _ => (signature.result, None),
    };
    let result = ok.map_or_else(|| json!({ "type": "null" }), |ty| types.schema(ty));
    let mut responses = json!({
        "200": { "description": "The result.", "content": json_of(result) },
    });
    if let Some(err) = err {
        let err = err.map_or_else(|| json!({ "type": "null" }), |ty| types.schema(ty));
        let schema = json!({
            "type": "object",
            "properties": { "error": err },
            "required": ["error"],
            "additionalProperties": false,
        });
        responses["422"] =
            json!({ "description": "The method's own error.", "content": json_of(schema) });
    }
    let reference = json!({ "$ref": format!("{SCHEMAS}{FAILURE}") });
    responses["default"] =
        json!({ "description": "The call failed.", "content": json_of(reference) });
    let (summary, description) = documented(&method.docs);
    let mut operation = json!({
        "operationId": lower_camel(&format!("{}-{}", wharf_schema::kebab(&names.prefix), method.name)),
        "tags": [names.path],
    });
    if !summary.is_empty() {
        operation["summary"] = summary.into();
    }
    if !description.is_empty() {
        operation["description"] = description.into();
    }
    if !signature.params.is_empty() {
        operation["requestBody"] = request(service, &signature.params, types);
    }
    operation["responses"] = responses;
    operation
}

/// The body of a request: the record itself where a method takes one, else an object with the
/// parameters.
fn request(service: &Service, params: &[Param], types: &mut JsonSchemas<'_>) -> Value {
    let schema = match params {
        [only] if matches!(service.types()[only.ty], Type::Record(_)) => types.schema(only.ty),
        _ => types.parameters(params),
    };
    let mut content = json!({ "schema": schema });
    // A long example is cut off, and then is no JSON.
    if let Ok(example) = serde_json::from_str::<Value>(&example_of(service.types(), params)) {
        content["example"] = example;
    }
    let required = !params.iter().all(|param| matches!(service.types()[param.ty], Type::Option(_)));
    json!({ "required": required, "content": { "application/json": content } })
}

/// The first sentence of a doc comment, and the whole if there is more.
fn documented(docs: &str) -> (String, String) {
    let docs = docs.trim();
    let first = docs.split_once("\n\n").map_or(docs, |(first, _)| first);
    let summary = first.split_once(". ").map_or(first, |(sentence, _)| sentence);
    let summary = summary.trim_end_matches('.').replace('\n', " ");
    let more = docs.trim_end_matches('.').replace('\n', " ") != summary;
    (summary, if more { docs.to_owned() } else { String::new() })
}

/// A failure in the words of Connect's unary protocol.
fn failure() -> Value {
    let codes = [
        "canceled",
        "unknown",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal",
        "unavailable",
        "data_loss",
        "unauthenticated",
    ];
    json!({
        "type": "object",
        "description": "A call that failed, apart from the method's own errors.",
        "properties": {
            "code": { "type": "string", "enum": codes },
            "message": { "type": "string", "description": "What failed, why, and what to do next." },
            "details": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "type": { "type": "string" },
                        "value": { "type": "string", "contentEncoding": "base64" },
                        "debug": {
                            "type": "object",
                            "properties": {
                                "notExecuted": {
                                    "type": "boolean",
                                    "description": "Whether the call certainly did not run, so \
                                                    that it may be repeated.",
                                },
                                "retryAfterMs": { "type": "integer" },
                                "detail": { "type": "string" },
                            },
                        },
                    },
                    "required": ["type", "value"],
                },
            },
        },
        "required": ["code"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_sentence_is_the_summary() {
        assert_eq!(documented("The sum."), ("The sum".into(), String::new()));
        assert_eq!(documented("The sum\nof all."), ("The sum of all".into(), String::new()));
        let docs = "The sum. It wraps.\n\nMore.";
        assert_eq!(documented(docs), ("The sum".into(), docs.into()));
        assert_eq!(documented(""), (String::new(), String::new()));
    }
}
