//! JSON Schema (2020-12) for the values of a service, as they are in JSON.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use crate::{Label, Param, Service, Type, TypeId, Types, lower_camel, net_rpc};

/// For whom JSON is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonDialect {
    /// Programs. All numbers are numbers.
    Plain,
    /// Language models and their clients. Many keep numbers as floats, so integers of 64 bits are
    /// strings of digits.
    Model,
}

/// Writes the schemas of one service. Types with names become definitions, which schemas refer to.
pub struct JsonSchemas<'s> {
    service: &'s Service,
    dialect: JsonDialect,
    /// Where the definitions will be: `#/components/schemas/`.
    place: String,
    /// What the names of definitions begin with.
    prefix: String,
    definitions: Map<String, Value>,
    /// The names of types that are defined.
    names: HashMap<TypeId, String>,
    /// Names that others have.
    taken: HashSet<String>,
    /// How many more types are described.
    left: usize,
}

/// The most types that are described, each as often as it occurs without a name. Written out, a graph
/// of types can be exponentially large.
const MAX_TYPES: usize = 50_000;

/// The largest array of a fixed length that is described element by element.
const MAX_PREFIX: usize = 100;

impl<'s> JsonSchemas<'s> {
    /// Schemas for a service. `place` is where the definitions will be in the document, and `prefix`
    /// what their names begin with.
    #[must_use]
    pub fn new(service: &'s Service, dialect: JsonDialect, place: &str, prefix: &str) -> Self {
        JsonSchemas {
            service,
            dialect,
            place: place.to_owned(),
            prefix: prefix.to_owned(),
            definitions: Map::new(),
            names: HashMap::new(),
            taken: HashSet::new(),
            left: MAX_TYPES,
        }
    }

    /// The same, without definitions of these names.
    #[must_use]
    pub fn avoiding<'n>(mut self, taken: impl IntoIterator<Item = &'n String>) -> Self {
        self.taken.extend(taken.into_iter().cloned());
        self
    }

    /// The definitions that the schemas so far refer to.
    #[must_use]
    pub fn definitions(self) -> Map<String, Value> {
        self.definitions
    }

    /// The schema of all parameters as one object, by their names.
    pub fn parameters(&mut self, params: &[Param]) -> Value {
        let members =
            params.iter().map(|param| (&param.name[..], param.ty, "")).collect::<Vec<_>>();
        self.object(&members)
    }

    /// The schema of a type itself, even if it has a name.
    pub fn in_place(&mut self, ty: TypeId) -> Value {
        let label = self.service.label(ty);
        let mut schema = self.written_out(ty, label);
        if let Some(label) = label.filter(|label| !label.docs.is_empty()) {
            schema["description"] = label.docs.clone().into();
        }
        schema
    }

    /// The schema of a type, which is a reference if it has a name.
    pub fn schema(&mut self, ty: TypeId) -> Value {
        if self.left == 0 {
            // Anything.
            return json!({});
        }
        self.left -= 1;
        match self.service.label(ty) {
            Some(label) => self.defined(ty, label),
            None => self.written_out(ty, None),
        }
    }

    /// A reference to a type's definition, which is added if it is new.
    fn defined(&mut self, ty: TypeId, label: &Label) -> Value {
        let reference = |name: &str| json!({ "$ref": format!("{}{name}", self.place) });
        if let Some(known) = self.names.get(&ty) {
            return reference(known);
        }
        // Types of several interfaces may have one name, and then they have numbers.
        let plain = format!("{}{}", self.prefix, net_rpc(&label.name));
        let is_free =
            |name: &String| !self.definitions.contains_key(name) && !self.taken.contains(name);
        let numbered = (2..).map(|number| format!("{plain}{number}"));
        let name = std::iter::once(plain.clone()).chain(numbered).find(is_free);
        let name = name.unwrap_or(plain);
        let reference = reference(&name);
        self.names.insert(ty, name.clone());
        // Its place in the order is before those that it refers to.
        self.definitions.insert(name.clone(), Value::Null);
        let schema = self.in_place(ty);
        self.definitions.insert(name, schema);
        reference
    }

    fn written_out(&mut self, ty: TypeId, label: Option<&Label>) -> Value {
        let docs = |place: usize| {
            label.and_then(|label| label.members.get(place)).map_or("", String::as_str)
        };
        match &self.types()[ty] {
            Type::Bool => json!({ "type": "boolean" }),
            Type::U8 => json!({ "type": "integer", "minimum": 0, "maximum": 255 }),
            Type::U16 => json!({ "type": "integer", "minimum": 0, "maximum": 65535 }),
            Type::U32 => json!({ "type": "integer", "minimum": 0, "maximum": 4_294_967_295u32 }),
            Type::S8 => json!({ "type": "integer", "minimum": -128, "maximum": 127 }),
            Type::S16 => json!({ "type": "integer", "minimum": -32768, "maximum": 32767 }),
            Type::S32 => json!({ "type": "integer", "format": "int32" }),
            Type::U64 => match self.dialect {
                JsonDialect::Plain => {
                    json!({ "type": "integer", "minimum": 0, "format": "uint64" })
                }
                JsonDialect::Model => json!({
                    "type": "string",
                    "pattern": "^[0-9]+$",
                    "description": "a whole number of 64 bits, as a string of digits",
                }),
            },
            Type::S64 => match self.dialect {
                JsonDialect::Plain => json!({ "type": "integer", "format": "int64" }),
                JsonDialect::Model => json!({
                    "type": "string",
                    "pattern": "^-?[0-9]+$",
                    "description": "a whole number of 64 bits, as a string of digits",
                }),
            },
            // Some floats have no number in JSON. Generators of clients would make a union of it.
            Type::F32 | Type::F64 if self.dialect == JsonDialect::Model => json!({
                "anyOf": [{ "type": "number" }, { "enum": ["NaN", "Infinity", "-Infinity"] }],
            }),
            Type::F32 => json!({ "type": "number", "format": "float" }),
            Type::F64 => json!({ "type": "number", "format": "double" }),
            Type::Char => json!({ "type": "string", "minLength": 1, "maxLength": 1 }),
            Type::String => json!({ "type": "string" }),
            Type::Bytes => json!({ "type": "string", "contentEncoding": "base64" }),
            Type::List(element) => json!({ "type": "array", "items": self.schema(*element) }),
            Type::FixedList(element, len) => json!({
                "type": "array",
                "items": self.schema(*element),
                "minItems": len,
                "maxItems": len,
            }),
            Type::Tuple(parts) => {
                let (count, parts) = (parts.len(), parts.clone());
                let items: Vec<Value> =
                    parts.iter().take(MAX_PREFIX).map(|part| self.schema(*part)).collect();
                json!({
                    "type": "array",
                    "prefixItems": items,
                    "minItems": count,
                    "maxItems": count,
                })
            }
            Type::Record(fields) => {
                let fields = fields.clone();
                let members: Vec<(&str, TypeId, &str)> = fields
                    .iter()
                    .enumerate()
                    .map(|(place, field)| (&field.name[..], field.ty, docs(place)))
                    .collect();
                self.object(&members)
            }
            Type::Variant(cases) => {
                let cases = cases.clone();
                let cases: Vec<(&str, Option<TypeId>, &str)> = cases
                    .iter()
                    .enumerate()
                    .map(|(place, case)| (&case.name[..], case.ty, docs(place)))
                    .collect();
                self.one_of(&cases, label)
            }
            Type::Result { ok, err } => self.one_of(&[("ok", *ok, ""), ("err", *err, "")], label),
            Type::Enum(names) => {
                let mut schema = json!({ "type": "string", "enum": names });
                let said: Vec<String> = names
                    .iter()
                    .enumerate()
                    .filter(|(place, _)| !docs(*place).is_empty())
                    .map(|(place, name)| format!("{name}: {}", docs(place)))
                    .collect();
                if !said.is_empty() && label.is_some_and(|label| label.docs.is_empty()) {
                    schema["description"] = said.join("\n").into();
                }
                schema
            }
            Type::Flags(names) => json!({
                "type": "array",
                "items": { "type": "string", "enum": names },
                "uniqueItems": true,
            }),
            Type::Option(some) => self.nullable(*some),
        }
    }

    /// The schema of an option. An option within an option is an object, because null is taken.
    fn nullable(&mut self, some: TypeId) -> Value {
        if matches!(self.types()[some], Type::Option(_)) {
            let inner = self.schema(some);
            let object = json!({
                "type": "object",
                "properties": { "some": inner },
                "required": ["some"],
                "additionalProperties": false,
            });
            return json!({ "anyOf": [{ "type": "null" }, inner, object] });
        }
        let mut schema = self.schema(some);
        match schema.get("type") {
            // Where there is an enum, it would have to allow null too.
            Some(Value::String(name)) if schema.get("enum").is_none() => {
                schema["type"] = json!([name, "null"]);
                schema
            }
            _ => json!({ "anyOf": [schema, { "type": "null" }] }),
        }
    }

    fn object(&mut self, members: &[(&str, TypeId, &str)]) -> Value {
        let (mut properties, mut required) = (Map::new(), Vec::new());
        for (name, ty, docs) in members {
            let mut schema = self.schema(*ty);
            if !docs.is_empty() {
                schema["description"] = (*docs).into();
            }
            let name = lower_camel(name);
            if !matches!(self.types()[*ty], Type::Option(_)) {
                required.push(Value::from(&name[..]));
            }
            properties.insert(name, schema);
        }
        let mut schema = json!({ "type": "object", "properties": properties });
        if !required.is_empty() {
            schema["required"] = required.into();
        }
        schema["additionalProperties"] = false.into();
        schema
    }

    /// One of several cases: its name, or an object with the payload under its name. Generators of
    /// clients name types by the titles, which therefore are as unique as the definitions.
    fn one_of(&mut self, cases: &[(&str, Option<TypeId>, &str)], label: Option<&Label>) -> Value {
        let names: Vec<&str> = cases
            .iter()
            .filter(|(_, payload, _)| payload.is_none())
            .map(|(name, ..)| *name)
            .collect();
        let mut all = Vec::new();
        if !names.is_empty() {
            all.push(json!({ "type": "string", "enum": names }));
        }
        for (name, payload, docs) in cases {
            let Some(payload) = payload else { continue };
            let schema = self.schema(*payload);
            let mut case = json!({
                "type": "object",
                "properties": { *name: schema },
                "required": [name],
                "additionalProperties": false,
            });
            if let Some(label) = label {
                let title = format!("{}{}{}", self.prefix, net_rpc(&label.name), net_rpc(name));
                case["title"] = title.into();
            }
            if !docs.is_empty() {
                case["description"] = (*docs).into();
            }
            all.push(case);
        }
        match all.len() {
            1 => all.remove(0),
            _ => json!({ "oneOf": all }),
        }
    }

    fn types(&self) -> &'s Types {
        self.service.types()
    }
}

#[cfg(all(test, feature = "wit"))]
mod tests {
    use super::*;

    #[allow(clippy::unwrap_used, reason = "a test's helper fails by panicking")]
    fn service() -> Service {
        let source = "package t:t@1.0.0; interface api {
            /// A shape.
            variant shape {
                /// Nothing at all.
                nothing,
                circle(f64),
                named(string),
            }
            enum color { red, dark-blue }
            record args {
                /// How many.
                how-many: u64,
                color: option<color>,
                shape: option<shape>,
                note: option<string>,
                pair: tuple<u8, char>,
                deep: option<option<s32>>,
            }
            f: func(args: args, more: list<list<u8>>) -> result<color, shape>;
        }";
        let mut resolve = wit_parser::Resolve::default();
        resolve.push_str("test.wit", source).unwrap();
        let (_, interface) = resolve.interfaces.iter().next().unwrap();
        crate::service_from_wit(&resolve, interface, "t:t/api@1.0.0", String::new()).unwrap()
    }

    #[test]
    fn types_with_names_are_defined_once_with_their_docs() {
        let service = service();
        let signature = service.methods()[0].signature.as_ref().unwrap();
        let mut schemas = JsonSchemas::new(&service, JsonDialect::Plain, "#/c/", "Api");
        let parameters = schemas.parameters(&signature.params);
        assert_eq!(
            parameters,
            json!({
                "type": "object",
                "properties": {
                    "args": { "$ref": "#/c/ApiArgs" },
                    "more": { "type": "array",
                        "items": { "type": "string", "contentEncoding": "base64" } },
                },
                "required": ["args", "more"],
                "additionalProperties": false,
            })
        );
        let definitions = schemas.definitions();
        assert_eq!(
            definitions["ApiArgs"],
            json!({
                "type": "object",
                "properties": {
                    "howMany": { "type": "integer", "minimum": 0, "format": "uint64",
                        "description": "How many." },
                    "color": { "anyOf": [{ "$ref": "#/c/ApiColor" }, { "type": "null" }] },
                    "shape": { "anyOf": [{ "$ref": "#/c/ApiShape" }, { "type": "null" }] },
                    "note": { "type": ["string", "null"] },
                    "pair": { "type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [
                        { "type": "integer", "minimum": 0, "maximum": 255 },
                        { "type": "string", "minLength": 1, "maxLength": 1 },
                    ] },
                    "deep": { "anyOf": [
                        { "type": "null" },
                        { "type": ["integer", "null"], "format": "int32" },
                        { "type": "object",
                            "properties": { "some": { "type": ["integer", "null"], "format": "int32" } },
                            "required": ["some"], "additionalProperties": false },
                    ] },
                },
                "required": ["howMany", "pair"],
                "additionalProperties": false,
            })
        );
        assert_eq!(
            definitions["ApiColor"],
            json!({ "type": "string", "enum": ["red", "dark-blue"] })
        );
        assert_eq!(definitions["ApiShape"]["description"], "A shape.");
        let cases = definitions["ApiShape"]["oneOf"].as_array().unwrap();
        assert_eq!(cases[0], json!({ "type": "string", "enum": ["nothing"] }));
        assert_eq!(cases[1]["properties"]["circle"]["type"], "number");
        assert_eq!(cases[1]["title"], "ApiShapeCircle");
    }

    #[test]
    fn a_schema_is_bounded_where_types_spell_out_exponentially() {
        let mut ty = "u8".to_owned();
        let mut lines = String::new();
        for n in 0..40 {
            lines.push_str(&format!("type t{n}x = tuple<{ty}, {ty}>; "));
            ty = format!("t{n}x");
        }
        let source = format!("package t:t@1.0.0; interface api {{ {lines} f: func() -> {ty}; }}");
        let mut resolve = wit_parser::Resolve::default();
        resolve.push_str("test.wit", &source).unwrap();
        let (_, interface) = resolve.interfaces.iter().next().unwrap();
        let service =
            crate::service_from_wit(&resolve, interface, "t:t/api@1.0.0", String::new()).unwrap();
        let result = service.methods()[0].signature.as_ref().unwrap().result.unwrap();
        let schema = JsonSchemas::new(&service, JsonDialect::Plain, "#/c/", "").schema(result);
        assert!(schema.to_string().len() < 10_000_000);
    }

    #[test]
    fn types_of_one_name_in_two_interfaces_have_a_definition_each() {
        let source = "package t:t@1.0.0;
            interface db { record error { code: u8 } }
            interface net { record error { text: string } }
            interface api {
                use db.{error as db-error}; use net.{error as net-error};
                f: func(a: db-error, b: net-error, c: db-error);
            }";
        let mut resolve = wit_parser::Resolve::default();
        resolve.push_str("test.wit", source).unwrap();
        let (_, interface) =
            resolve.interfaces.iter().find(|(_, i)| i.name.as_deref() == Some("api")).unwrap();
        let service =
            crate::service_from_wit(&resolve, interface, "t:t/api@1.0.0", String::new()).unwrap();
        let signature = service.methods()[0].signature.as_ref().unwrap();
        let taken = "ApiError".to_owned();
        let mut schemas =
            JsonSchemas::new(&service, JsonDialect::Plain, "#/", "Api").avoiding([&taken]);
        let parameters = schemas.parameters(&signature.params);
        let of = |name: &str| parameters["properties"][name]["$ref"].as_str().unwrap().to_owned();
        assert_eq!(of("a"), of("c"));
        assert_ne!(of("a"), of("b"));
        let definitions = schemas.definitions();
        let fields = |reference: String| definitions[&reference[2..]]["required"].clone();
        assert_eq!((fields(of("a")), fields(of("b"))), (json!(["code"]), json!(["text"])));
        assert!(!definitions.contains_key("ApiError"));
    }

    #[test]
    fn for_models_large_integers_are_strings() {
        let service = service();
        let signature = service.methods()[0].signature.as_ref().unwrap();
        let mut schemas = JsonSchemas::new(&service, JsonDialect::Model, "#/$defs/", "");
        schemas.parameters(&signature.params);
        let definitions = schemas.definitions();
        assert_eq!(definitions["Args"]["properties"]["howMany"]["type"], "string");
    }
}
