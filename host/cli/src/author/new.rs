//! `wharf new`: makes a project.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use heck::{ToLowerCamelCase, ToSnakeCase, ToUpperCamelCase};
use serde_json::Value;
use wharf_schema::{Method, Service};

use super::interface::Interfaces;
use super::keywords::is_keyword;
use super::templates::{self, Values};
use super::{calls, stubs};
use crate::args::{Language, New};
use crate::describe::Examples;
use crate::exit::Exit;

/// The longest name of a project, in bytes.
const MAX_NAME: usize = 60;

pub(crate) fn run(arguments: &New) -> anyhow::Result<()> {
    let New { name, lang, wit, world } = arguments;
    check(name, *lang).map_err(Exit::Usage)?;
    let root = Path::new(name);
    if root.exists() {
        return Err(Exit::Usage(format!("{name} is there already: choose another name")).into());
    }
    let project = match wit {
        Some(path) => Made::from(*lang, name, &Interfaces::read(path, world.as_deref())?)?,
        None => Made::greeter(*lang, name)?,
    };
    let mut paths: Vec<String> =
        project.files.iter().map(|(path, _)| path.to_ascii_lowercase()).collect();
    paths.sort_unstable();
    if let Some(pair) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
        let message = format!(
            "'{name}' cannot be the name of a service: its sidecar would be {}, which is another file; choose another name",
            pair[0]
        );
        return Err(Exit::Usage(message).into());
    }
    for (path, text) in &project.files {
        let path = root.join(path);
        let folder = path.parent().unwrap_or(root);
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "made {name}; next:\n  cd {name}\n  wharf dev")?;
    writeln!(out, "and, in another terminal:\n  wharf call {}", project.call)?;
    Ok(())
}

/// Whether a project may be called so: it becomes a name in WIT, in the language, and of files.
fn check(name: &str, language: Language) -> Result<(), String> {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if name.len() > MAX_NAME || !name.split('-').all(is_word) {
        return Err(format!(
            "'{name}' cannot be the name of a service: write words of small letters and digits with '-' between them, as in price-list"
        ));
    }
    let is_taken = is_keyword(language, &name.to_snake_case())
        || is_keyword(language, &name.to_lower_camel_case())
        || is_keyword(language, &name.to_upper_camel_case())
        || language == Language::Rust && name == "test";
    if is_taken {
        return Err(format!("'{name}' means something else in this language: choose another name"));
    }
    Ok(())
}

/// The files of a project.
struct Made {
    files: Vec<(String, String)>,
    /// The first call to make, behind `wharf call`.
    call: String,
}

impl Made {
    /// A service that greets.
    fn greeter(language: Language, name: &str) -> anyhow::Result<Self> {
        let values = Values::new([("name", name.to_owned())]);
        let (path, text) = templates::SERVICE;
        let wit = values.fill(text);
        // The name may be a word of WIT.
        Interfaces::of(&wit).map_err(|_| {
            Exit::Usage(format!("'{name}' cannot be the name of an interface: choose another name"))
        })?;
        let first = First {
            method: format!("{name}.greet"),
            path: format!("{name}/greet"),
            arguments: "{\"name\":\"Ada\"}".to_owned(),
            call: format!("{name}.greet Ada"),
        };
        let mut made = Made::with(language, name, super::interface::WORLD, &first);
        made.files.push((values.fill(path), wit));
        let values = all_values(name, super::interface::WORLD, &first);
        for (path, text) in [templates::CALLS, templates::source(language)] {
            made.files.push((values.fill(path), values.fill(text)));
        }
        Ok(made)
    }

    /// One that exports these interfaces, and whose methods are not written yet.
    fn from(language: Language, name: &str, interfaces: &Interfaces) -> anyhow::Result<Self> {
        let callable = interfaces
            .services
            .iter()
            .flat_map(|(_, service)| service.methods().iter().map(move |method| (service, method)));
        let mut callable = callable.filter(|(_, method)| method.signature.is_ok());
        let (service, method) =
            callable.next().context("none of its methods can be called from outside")?;
        let first = First::of(service, method).map_err(anyhow::Error::msg)?;
        let mut made = Made::with(language, name, interfaces.world_name(), &first);
        let (path, _) = templates::source(language);
        made.files.push((path.to_owned(), stubs::source(language, interfaces)?));
        let services = interfaces.services.iter().map(|(_, service)| service);
        made.files.push(("calls.toml".to_owned(), calls::examples(services)));
        for (path, text) in &interfaces.files {
            made.files.push((format!("wit/{}", path.display()), text.clone()));
        }
        Ok(made)
    }

    fn with(language: Language, name: &str, world: &str, first: &First) -> Self {
        let values = all_values(name, world, first);
        let files = templates::files(language).iter();
        let files = files.map(|(path, text)| (values.fill(path), values.fill(text))).collect();
        Made { files, call: first.call.clone() }
    }
}

/// The first method, as the examples of a project call it.
struct First {
    method: String,
    path: String,
    arguments: String,
    call: String,
}

impl First {
    fn of(service: &Service, method: &Method) -> Result<Self, String> {
        let examples = Examples::of(service, method)?;
        let interface = &service.name().interface;
        // An example that was cut short is no JSON.
        let arguments: Value = serde_json::from_str(&examples.arguments).unwrap_or_default();
        Ok(First {
            method: format!("{interface}.{}", method.name),
            path: format!("{interface}/{}", method.name),
            arguments: arguments.to_string(),
            call: examples.command.trim_start_matches("wharf call ").to_owned(),
        })
    }
}

fn all_values(name: &str, world: &str, first: &First) -> Values {
    let module = name.to_snake_case();
    Values::new([
        ("name", name.to_owned()),
        ("MODULE", module.to_uppercase()),
        ("file", module.clone()),
        ("module", module),
        ("Class", name.to_upper_camel_case()),
        ("object", name.to_lower_camel_case()),
        ("world", world.to_owned()),
        ("header", world.to_snake_case()),
        ("method", first.method.clone()),
        ("path", first.path.clone()),
        ("arguments", first.arguments.clone()),
        ("call", first.call.clone()),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANGUAGES: [Language; 4] = [Language::Rust, Language::Python, Language::Js, Language::C];

    #[test]
    fn names_are_words_that_wit_and_the_language_take() {
        for name in ["hello", "price-list2", "a"] {
            check(name, Language::Rust).unwrap();
        }
        for name in ["", "Hello", "a--b", "-a", "2a", "a_b", "../a", "fn", "test", &"a".repeat(61)]
        {
            assert!(check(name, Language::Rust).is_err(), "{name}");
        }
        check("test", Language::Python).unwrap();
        for (language, name) in
            [(Language::Python, "lambda"), (Language::Python, "none"), (Language::Js, "new")]
        {
            assert!(check(name, language).is_err(), "{name}");
        }
        for word in ["record", "interface", "plugin"] {
            let error = Made::greeter(Language::Python, word).err().unwrap().to_string();
            assert!(error.contains("cannot be the name of an interface"), "{error}");
        }
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        let interfaces = Interfaces::of("package a:b; interface c { f: func(x: u8); }").unwrap();
        for language in LANGUAGES {
            for made in [
                Made::greeter(language, "price-list").unwrap(),
                Made::from(language, "price-list", &interfaces).unwrap(),
            ] {
                for (path, text) in &made.files {
                    assert!(!path.contains("{{") && !text.contains("{{"), "{path}:\n{text}");
                }
                for path in ["price-list.toml", "wharf.toml", "calls.toml", "README.md"] {
                    assert!(made.files.iter().any(|(made, _)| made == path), "{path}");
                }
            }
        }
    }
}
