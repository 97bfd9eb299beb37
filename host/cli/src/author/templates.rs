//! The files of a new project, which this program carries.

use crate::args::Language;

/// What stands for `{{name}}` and the like.
pub(super) struct Values(Vec<(&'static str, String)>);

impl Values {
    pub(super) fn new<const N: usize>(values: [(&'static str, String); N]) -> Self {
        Values(values.into())
    }

    /// A text with its values.
    pub(super) fn fill(&self, text: &str) -> String {
        let fill = |text: String, (name, value): &(&str, String)| {
            text.replace(&format!("{{{{{name}}}}}"), value)
        };
        self.0.iter().fold(text.to_owned(), fill)
    }
}

/// A file: its path in the project, and its text.
type File = (&'static str, &'static str);

macro_rules! file {
    ($path:literal, $template:literal) => {
        ($path, include_str!(concat!("../../templates/", $template)))
    };
}

/// The interface of a service that was not given one, and its example calls.
pub(super) const SERVICE: File = file!("wit/{{name}}.wit", "common/service.wit");
pub(super) const CALLS: File = file!("calls.toml", "common/calls.toml");

/// The source of that service.
pub(super) fn source(language: Language) -> File {
    match language {
        Language::Rust => file!("src/lib.rs", "rust/lib.rs"),
        Language::Python => file!("app.py", "python/app.py"),
        Language::Js => file!("app.js", "js/app.js"),
        Language::C => file!("service.c", "c/service.c"),
    }
}

/// What every project of the language has.
pub(super) fn files(language: Language) -> &'static [File] {
    match language {
        Language::Rust => &[
            file!("Cargo.toml", "rust/Cargo.toml.in"),
            file!("examples/call.rs", "rust/call.rs"),
            file!("wharf.toml", "rust/wharf.toml"),
            file!("{{name}}.toml", "rust/sidecar.toml"),
            file!("README.md", "rust/README.md"),
            file!(".gitignore", "rust/gitignore"),
        ],
        Language::Python => &[
            file!("build.sh", "python/build.sh"),
            file!("call.py", "python/call.py"),
            file!("wharf.toml", "python/wharf.toml"),
            file!("{{name}}.toml", "python/sidecar.toml"),
            file!("README.md", "python/README.md"),
            file!(".gitignore", "python/gitignore"),
        ],
        Language::Js => &[
            file!("package.json", "js/package.json"),
            file!("build.mjs", "js/build.mjs"),
            file!("call.mjs", "js/call.mjs"),
            file!("wharf.toml", "js/wharf.toml"),
            file!("{{name}}.toml", "js/sidecar.toml"),
            file!("README.md", "js/README.md"),
            file!(".gitignore", "js/gitignore"),
        ],
        Language::C => &[
            file!("Makefile", "c/Makefile"),
            file!("call.sh", "c/call.sh"),
            file!("wharf.toml", "c/wharf.toml"),
            file!("{{name}}.toml", "c/sidecar.toml"),
            file!("README.md", "c/README.md"),
            file!(".gitignore", "c/gitignore"),
        ],
    }
}
