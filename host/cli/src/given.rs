//! The arguments of a call, as they are written in a shell.

use std::io::Read;

use serde_json::{Map, Value};
use wharf_schema::{
    Param, Type, Types, argument_from_text, arguments_from_body, find_name, value_from_json,
};

use crate::exit::Exit;

/// The largest argument that is read from a file or from standard input, in bytes.
const MAX_ARGUMENT: u64 = 64 * 1024 * 1024;

/// One argument: what stands there, and what that means.
pub(crate) struct Given {
    /// The text, or what is in the file that it names.
    whole: String,
    /// If it is written as `NAME=VALUE`: both, as they stand there.
    named: Option<(String, String)>,
}

impl Given {
    /// Reads the files that are named, and standard input.
    pub(crate) fn all(arguments: &[String], stdin: &mut impl Read) -> anyhow::Result<Vec<Self>> {
        arguments.iter().map(|argument| Given::one(argument, stdin)).collect()
    }

    fn one(argument: &str, stdin: &mut impl Read) -> anyhow::Result<Self> {
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
        };
        let named = argument.split_once('=').filter(|(name, _)| is_name(name));
        let named = named.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Given { whole: text(argument, stdin)?, named })
    }
}

/// The text of an argument: as it stands, from a file (`@FILE`), or from standard input (`-`).
fn text(argument: &str, stdin: &mut impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    let (name, read) = match argument.strip_prefix('@') {
        Some(path) => {
            let file = std::fs::File::open(path)
                .map_err(|error| Exit::NotFound(format!("{path} cannot be read: {error}")))?;
            (path, file.take(MAX_ARGUMENT + 1).read_to_string(&mut text))
        }
        None if argument == "-" => {
            ("standard input", stdin.take(MAX_ARGUMENT + 1).read_to_string(&mut text))
        }
        None => return Ok(argument.to_owned()),
    };
    let read = read.map_err(|error| Exit::Usage(format!("{name} cannot be read: {error}")))?;
    if read as u64 > MAX_ARGUMENT {
        return Err(Exit::Usage(format!("{name} has more than {MAX_ARGUMENT} bytes")).into());
    }
    // A file ends with a line end, which is no part of a text.
    Ok(text.strip_suffix('\n').map(str::to_owned).unwrap_or(text))
}

/// The values of the parameters. The first arguments are taken in order. From the first one on that is
/// written as `NAME=VALUE`, where NAME is a parameter or a field of the only one, all are taken by name.
pub(crate) fn values(
    types: &Types,
    params: &[Param],
    given: &[Given],
    stdin: &mut impl Read,
) -> anyhow::Result<Vec<Value>> {
    let members = Members::of(types, params);
    let known =
        |given: &Given| given.named.as_ref().is_some_and(|(name, _)| members.find(name).is_some());
    let in_order = given.iter().position(known).unwrap_or(given.len());
    let (in_order, by_name) = given.split_at(in_order);
    if by_name.is_empty() {
        // What has no parameter becomes null here. The call refuses it with a better message.
        let value = |(index, given): (usize, &Given)| -> anyhow::Result<Value> {
            let Some(param) = params.get(index) else { return Ok(Value::Null) };
            let value = argument_from_text(types, param, &given.whole);
            let fits =
                |value: &Value| value_from_json(types, param.ty, value, &mut Vec::new()).is_ok();
            match &given.named {
                // Most likely it is meant for a parameter that does not exist.
                Some((name, _)) if !value.as_ref().is_ok_and(fits) => {
                    let message = format!("there is no '{name}'; {}", members.list());
                    Err(Exit::Usage(message).into())
                }
                _ => Ok(value?),
            }
        };
        return in_order.iter().enumerate().map(value).collect();
    }
    // Where others have names, this one is most likely mistyped.
    let mistyped = in_order.iter().find_map(|given| given.named.as_ref());
    if let Some((name, _)) = mistyped {
        return Err(Exit::Usage(format!("there is no '{name}'; {}", members.list())).into());
    }
    let mut object = Map::new();
    for (index, given) in in_order.iter().enumerate() {
        let Some(member) = members.0.get(index) else {
            return Err(Exit::Usage(format!("there is no parameter for '{}'", given.whole)).into());
        };
        object.insert(member.name.clone(), argument_from_text(types, member, &given.whole)?);
    }
    for given in by_name {
        let (name, value) = match &given.named {
            Some((name, value)) => (name, value),
            None => {
                let message = format!(
                    "'{}' stands behind arguments that have names: write it as NAME=VALUE too; {}",
                    given.whole,
                    members.list()
                );
                return Err(Exit::Usage(message).into());
            }
        };
        let Some(member) = members.find(name) else {
            return Err(Exit::Usage(format!("there is no '{name}'; {}", members.list())).into());
        };
        let value = argument_from_text(types, member, &text(value, stdin)?)?;
        if object.insert(member.name.clone(), value).is_some() {
            return Err(Exit::Usage(format!("'{}' is given twice", member.name)).into());
        }
    }
    let object = Value::Object(object);
    if members.are_fields(params) {
        return Ok(vec![object]);
    }
    // Tells what is missing by its name.
    arguments_from_body(types, params, Some(&object))?;
    let value = |param: &Param| object.get(&param.name).cloned().unwrap_or(Value::Null);
    Ok(params.iter().map(value).collect())
}

/// What arguments may be named by: the parameters, or the fields of the only one.
struct Members(Vec<Param>);

impl Members {
    fn of(types: &Types, params: &[Param]) -> Self {
        match params {
            [only] => match &types[only.ty] {
                Type::Record(fields) => {
                    let member = |name: &str, ty| Param { name: name.to_owned(), ty };
                    Members(fields.iter().map(|field| member(&field.name, field.ty)).collect())
                }
                _ => Members(params.to_vec()),
            },
            _ => Members(params.to_vec()),
        }
    }

    fn are_fields(&self, params: &[Param]) -> bool {
        self.0 != params
    }

    fn find(&self, name: &str) -> Option<&Param> {
        let names = self.0.iter().map(|member| &member.name[..]);
        find_name(names, name).map(|place| &self.0[place])
    }

    fn list(&self) -> String {
        let names: Vec<&str> = self.0.iter().map(|member| &member.name[..]).collect();
        format!("there are {}", names.join(", "))
    }
}

/// Arguments for a service of Go's net/rpc, which nobody describes. If all have names, they are the
/// fields of the only argument.
pub(crate) fn undescribed(given: &[Given], stdin: &mut impl Read) -> anyhow::Result<Vec<Value>> {
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| text.into());
    let named = given.iter().map(|given| given.named.as_ref());
    match named.collect::<Option<Vec<_>>>().filter(|named| !named.is_empty()) {
        Some(named) => {
            let fields = named
                .into_iter()
                .map(|(name, written)| Ok((name.clone(), value(&text(written, stdin)?))));
            Ok(vec![Value::Object(fields.collect::<anyhow::Result<_>>()?)])
        }
        None => Ok(given.iter().map(|given| value(&given.whole)).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wharf_schema::{Field, Type};

    use super::*;

    fn given(arguments: &[&str]) -> Vec<Given> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Given::all(&arguments, &mut std::io::empty()).unwrap()
    }

    /// `scale(args: record { a: s64, note: option<string> })` and `recase(text: string, style: option<enum>)`
    fn types() -> (Types, Vec<Param>, Vec<Param>) {
        let mut types = Types::default();
        let number = types.add(Type::S64).unwrap();
        let text = types.add(Type::String).unwrap();
        let note = types.add(Type::Option(text)).unwrap();
        let field = |name: &str, ty| Field { name: name.into(), ty };
        let args = types.add(Type::Record(vec![field("a", number), field("note", note)])).unwrap();
        let style = types.add(Type::Enum(vec!["upper".into(), "title".into()])).unwrap();
        let style = types.add(Type::Option(style)).unwrap();
        let param = |name: &str, ty| Param { name: name.into(), ty };
        (types, vec![param("args", args)], vec![param("text", text), param("style", style)])
    }

    fn read(types: &Types, params: &[Param], arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        values(types, params, &given(arguments), &mut std::io::empty())
    }

    #[test]
    fn an_argument_may_come_from_a_file_or_from_standard_input() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"a\":7}\n").unwrap();
        let from_file = text(&format!("@{}", file.path().display()), &mut std::io::empty());
        assert_eq!(from_file.unwrap(), "{\"a\":7}");
        assert_eq!(text("-", &mut "text\n\n".as_bytes()).unwrap(), "text\n");
        assert_eq!(text("plain", &mut std::io::empty()).unwrap(), "plain");
        let missing = text("@/missing/file", &mut std::io::empty()).unwrap_err().to_string();
        assert!(missing.starts_with("/missing/file cannot be read"), "{missing}");
        let named = format!("args=@{}", file.path().display());
        let (types, record, _) = types();
        let twice = Param { name: "args".into(), ..record[0].clone() };
        let read = read(
            &types,
            &[twice.clone(), Param { name: "b".into(), ..twice }],
            &[&named, "b=@/missing"],
        );
        assert!(read.unwrap_err().to_string().starts_with("/missing cannot be read"));
    }

    #[test]
    fn arguments_are_taken_in_order_and_by_name() {
        let (types, record, two) = types();
        for (params, arguments, expected) in [
            (&record, &["a=7"][..], json!([{"a": 7}])),
            (&record, &["A=7", "note=x=1"], json!([{"a": 7, "note": "x=1"}])),
            (&record, &["{\"a\":7}"], json!([{"a": 7}])),
            (&two, &["hello"], json!(["hello"])),
            (&two, &["hello", "title"], json!(["hello", "title"])),
            (&two, &["hello", "style=title"], json!(["hello", "title"])),
            (&two, &["style=title", "text=hello"], json!(["hello", "title"])),
            (&two, &["text=hello"], json!(["hello", null])),
            // No parameter is called so.
            (&two, &["x=1", "title"], json!(["x=1", "title"])),
        ] {
            let read = read(&types, params, arguments).unwrap();
            assert_eq!(json!(read), expected, "{arguments:?}");
        }
    }

    #[test]
    fn mistakes_with_names_are_told() {
        let (types, record, two) = types();
        for (params, arguments, words) in [
            (&record, &["a=7", "b=8"][..], "there is no 'b'; there are a, note"),
            (&record, &["a=7", "8"], "'8' stands behind arguments that have names"),
            (&record, &["a=7", "A=8"], "'a' is given twice"),
            (&record, &["a=x"], "a: expected s64 as JSON"),
            (&two, &["txet=hello", "style=title"], "there is no 'txet'; there are text, style"),
            (&two, &["hello", "stile=title"], "there is no 'stile'; there are text, style"),
            (&two, &["style=title"], "text: the parameter is missing (string)"),
            (&two, &["hello", "text=x"], "'text' is given twice"),
        ] {
            let error = read(&types, params, arguments).unwrap_err().to_string();
            assert!(error.contains(words), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn an_undescribed_service_gets_what_is_written() {
        let undescribed =
            |arguments: &[&str]| undescribed(&given(arguments), &mut std::io::empty()).unwrap();
        assert_eq!(undescribed(&["A=7", "B=x"]), [json!({"A": 7, "B": "x"})]);
        assert_eq!(undescribed(&["7", "x"]), [json!(7), json!("x")]);
    }
}
