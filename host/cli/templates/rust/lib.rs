//! Greets people. The interface is in wit/{{name}}.wit.

mod bindings {
    use super::Plugin;

    wit_bindgen::generate!({ path: "wit", world: "plugin" });
    export!(Plugin);
}

use bindings::exports::demo::{{module}}::{{module}}::{Guest, Refusal};

struct Plugin;

impl Guest for Plugin {
    fn greet(name: String) -> Result<String, Refusal> {
        if name.is_empty() {
            return Err(Refusal::Nameless);
        }
        Ok(format!("Hello, {name}!"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_name_is_greeted() {
        assert_eq!(Plugin::greet("Ada".to_owned()).unwrap(), "Hello, Ada!");
        assert!(matches!(Plugin::greet(String::new()), Err(Refusal::Nameless)));
    }
}
