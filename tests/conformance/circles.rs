//! The modules of a crate must not import each other in a circle. Without circles, there is an
//! order in which to read them, and one can be changed without the other. The test reads the
//! sources and follows re-exports.
//!
//! It compares sibling modules, each together with all modules below it. A module and its own
//! submodules may import each other, because they form one unit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{MetadataCommand, TargetKind};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree};

type Names = Vec<String>;

/// A module: its imports by name, and the paths that its code mentions.
#[derive(Default)]
struct Module {
    /// The path of each imported name.
    imported: BTreeMap<String, Names>,
    /// Modules that are imported with a glob.
    globs: Vec<Names>,
    /// Paths in its code, starting at the crate's root.
    mentioned: BTreeSet<Names>,
}

/// The modules of a crate, by path. The path of the root is empty.
#[derive(Default)]
struct Modules(BTreeMap<Names, Module>);

impl Modules {
    fn of_crate(root: &Path) -> Self {
        let mut modules = Modules::default();
        modules.read(&[], root, root.parent().unwrap());
        modules
    }

    /// Reads a file. Its submodules are in `folder`.
    fn read(&mut self, path: &[String], file: &Path, folder: &Path) {
        let text = std::fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        self.take(path, &parsed.items, folder);
    }

    fn take(&mut self, path: &[String], items: &[Item], folder: &Path) {
        let mut found = Found { path, module: Module::default() };
        for item in items {
            let Item::Mod(inner) = item else {
                if !attributes(item).iter().any(is_for_tests) {
                    found.visit_item(item);
                }
                continue;
            };
            if inner.attrs.iter().any(is_for_tests) {
                continue;
            }
            let name = inner.ident.to_string();
            let (inside, below) = (extended(path, &name), folder.join(&name));
            match &inner.content {
                Some((_, items)) => self.take(&inside, items, &below),
                None => {
                    let files: [PathBuf; 2] =
                        [folder.join(format!("{name}.rs")), below.join("mod.rs")];
                    let file = files.iter().find(|file| file.is_file());
                    let file = file.unwrap_or_else(|| panic!("{path:?} has no file for {name}"));
                    self.read(&inside, file, &below);
                }
            }
        }
        self.0.insert(path.to_vec(), found.module);
    }

    /// The module that defines the item at a path. `None` for an item of another crate.
    fn home(&self, path: &[String], depth: usize) -> Option<Names> {
        let mut at: Names = Vec::new();
        for (position, name) in path.iter().enumerate() {
            let below = extended(&at, name);
            if self.0.contains_key(&below) {
                at = below;
                continue;
            }
            let module = &self.0[&at];
            let rest = &path[position + 1..];
            // Limits how many re-exports are followed.
            let depth = depth.checked_sub(1)?;
            if let Some(base) = module.imported.get(name) {
                return self.home(&[self.absolute(&at, base)?, rest.to_vec()].concat(), depth);
            }
            for glob in module.globs.iter().filter_map(|glob| self.absolute(&at, glob)) {
                let inside = [extended(&glob, name), rest.to_vec()].concat();
                if let Some(home) = self.home(&inside, depth)
                    && home != glob
                {
                    return Some(home);
                }
            }
            return Some(at);
        }
        Some(at)
    }

    /// The path of an import in the module at `path`, starting at the crate's root. An import of a
    /// submodule may omit `self`.
    fn absolute(&self, path: &[String], import: &[String]) -> Option<Names> {
        let first = import.first()?;
        if first == "crate" {
            return Some(import[1..].to_vec());
        }
        self.0.contains_key(&extended(path, first)).then(|| [path, import].concat())
    }

    /// For each module, which of its submodules uses which other one, with an example.
    fn arrows(&self) -> BTreeMap<Names, BTreeMap<(String, String), String>> {
        let mut arrows = BTreeMap::<Names, BTreeMap<(String, String), String>>::new();
        for (from, module) in &self.0 {
            for path in &module.mentioned {
                let Some(to) = self.home(path, 8) else { continue };
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                let (Some(a), Some(b)) = (from.get(shared), to.get(shared)) else { continue };
                let why = format!("{} uses {}", from.join("::"), path.join("::"));
                let siblings = arrows.entry(from[..shared].to_vec()).or_default();
                siblings.entry((a.clone(), b.clone())).or_insert(why);
            }
        }
        arrows
    }

    /// The circles, each with its modules and an example.
    fn circles(&self) -> Vec<String> {
        let mut circles = Vec::new();
        for (parent, arrows) in self.arrows() {
            let mut reached: BTreeSet<(&str, &str)> =
                arrows.keys().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            loop {
                let further: Vec<_> = reached
                    .iter()
                    .flat_map(|(a, b)| {
                        reached
                            .range((*b, "")..)
                            .take_while(move |(c, _)| c == b)
                            .map(move |(_, d)| (*a, *d))
                    })
                    .filter(|pair| !reached.contains(pair))
                    .collect();
                if further.is_empty() {
                    break;
                }
                reached.extend(further);
            }
            for ((a, b), why) in &arrows {
                if a != b && reached.contains(&(b.as_str(), a.as_str())) {
                    circles.push(format!("{}: {a} -> {b}: {why}", parent.join("::")));
                }
            }
        }
        circles
    }
}

/// Collects what a module's code imports and mentions.
struct Found<'p> {
    path: &'p [String],
    module: Module,
}

impl Found<'_> {
    /// A path that starts at the crate's root, with `crate` first. Paths into other crates stay as
    /// they are.
    fn absolute(&self, names: &[String]) -> Option<Names> {
        let mut base = match names.first()?.as_str() {
            "crate" => Vec::new(),
            "self" | "super" => self.path.to_vec(),
            _ => return None,
        };
        let mut rest = &names[1..];
        if names[0] == "super" {
            base.pop();
            while rest.first().is_some_and(|name| name == "super") {
                base.pop();
                rest = &rest[1..];
            }
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn mention(&mut self, names: &[String]) {
        self.module.mentioned.extend(self.absolute(names));
    }

    fn import(&mut self, before: &[String], tree: &UseTree) {
        let mut bind = |name: String, names: &[String]| {
            let absolute = self.absolute(names);
            let stands_for = match &absolute {
                Some(absolute) => extended_front("crate", absolute),
                None => names.to_vec(),
            };
            self.module.mentioned.extend(absolute);
            if name == "*" {
                self.module.globs.push(stands_for);
            } else {
                self.module.imported.insert(name, stands_for);
            }
        };
        match tree {
            UseTree::Path(path) => {
                let before = extended(before, &path.ident.to_string());
                self.import(&before, &path.tree);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(before, tree)),
            UseTree::Glob(_) => bind("*".to_owned(), before),
            UseTree::Name(name) if name.ident == "self" => {
                bind(before.last().cloned().unwrap_or_default(), before);
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                bind(name.clone(), &extended(before, &name));
            }
            UseTree::Rename(rename) => {
                let names = match rename.ident == "self" {
                    true => before.to_vec(),
                    false => extended(before, &rename.ident.to_string()),
                };
                bind(rename.rename.to_string(), &names);
            }
        }
    }

    /// Finds paths among the tokens of a macro call. The parser does not parse these.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut names: Names = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => names.push(name.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' => continue,
                TokenTree::Group(group) => {
                    self.mention(&std::mem::take(&mut names));
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.mention(&std::mem::take(&mut names));
                }
            }
        }
        self.mention(&names);
    }
}

impl<'ast> Visit<'ast> for Found<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.import(&[], &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.mention(&names);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.tokens(call.tokens.clone());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    matches!(&attribute.meta, Meta::List(list)
        if list.path.is_ident("cfg") && list.tokens.to_string() == "test")
}

fn extended(names: &[String], name: &str) -> Names {
    names.iter().cloned().chain([name.to_owned()]).collect()
}

fn extended_front(name: &str, names: &[String]) -> Names {
    std::iter::once(name.to_owned()).chain(names.iter().cloned()).collect()
}

#[test]
fn no_modules_of_a_crate_import_each_other_in_a_circle() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let mut circles = Vec::new();
    let mut modules = 0;
    for package in metadata.packages.iter().filter(|package| *package.name != "wharf-tests") {
        for target in &package.targets {
            let code =
                [TargetKind::Lib, TargetKind::Bin, TargetKind::ProcMacro, TargetKind::CDyLib];
            if !target.kind.iter().any(|kind| code.contains(kind)) {
                continue;
            }
            let read = Modules::of_crate(target.src_path.as_std_path());
            modules += read.0.len();
            circles.extend(read.circles().iter().map(|why| format!("{}: {why}", package.name)));
        }
    }
    assert!(modules > 100, "only {modules} modules were found: are the sources elsewhere?");
    assert!(circles.is_empty(), "modules in circles:\n{}", circles.join("\n"));
}

/// The circles of a crate. The first of these files is its root.
#[track_caller]
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }
    Modules::of_crate(&folder.path().join(files[0].0)).circles()
}

#[test]
fn circles_are_found_however_the_modules_name_each_other() {
    let root = ("lib.rs", "mod a; mod b; pub use b::B;");
    for (a, b) in [
        ("use crate::b::B; pub struct A;", "use crate::a::A; pub struct B;"),
        ("use crate::B; pub struct A;", "use super::a::{self, A}; pub struct B;"),
        ("fn f() -> crate::B {}", "fn f() { super::a::f() }"),
        ("fn f() { println!(\"{}\", crate::b::X) }", "use crate::a::*;"),
        ("mod inner { use crate::b::B as C; }", "pub struct B(crate::a::A);"),
    ] {
        assert_eq!(circles_of(&[root, ("a.rs", a), ("b.rs", b)]).len(), 2, "{a} and {b}");
    }
    let three = [
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b;"),
        ("b/mod.rs", "mod deep;"),
        ("b/deep.rs", "use crate::c::X;"),
        ("c.rs", "use crate::a::Y;"),
    ];
    let circles = circles_of(&three);
    assert_eq!(circles.len(), 3, "{circles:?}");
}

#[test]
fn what_is_no_circle_is_not_taken_for_one() {
    let root = ("lib.rs", "mod a; mod b; pub use b::B;");
    for (a, b) in [
        ("use crate::b::B;", "pub struct B;"),
        ("use crate::B;", "#[cfg(test)] mod tests { use crate::a::A; }"),
        ("use crate::B;", "#[cfg(test)] use crate::a::A;"),
        ("mod inner; use self::inner::X;", "use other::a::A;"),
    ] {
        let files =
            [root, ("a.rs", a), ("a/inner.rs", "use super::Y; use crate::b::B;"), ("b.rs", b)];
        assert_eq!(circles_of(&files), Vec::<String>::new(), "{a} and {b}");
    }
}
