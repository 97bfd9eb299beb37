//! Which crate may depend on which. ARCHITECTURE.md promises that no other dependencies exist.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Our crates, and which of our crates each may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("wharf-wire", &[]),
    ("wharf-gob", &[]),
    ("wharf-schema", &[]),
    ("wharf-net", &[]),
    ("wharf-guest", &[]),
    ("wharf-registry-api", &[]),
    ("wharf-bindgen", &["wharf-schema"]),
    (
        "wharf-client",
        &[
            "wharf-wire",
            "wharf-gob",
            "wharf-schema",
            "wharf-net",
            "wharf-registry-api",
            "wharf-bindgen",
        ],
    ),
    ("wharf-registry", &["wharf-registry-api", "wharf-net"]),
    ("wharf-runtime", &["wharf-schema"]),
    (
        "wharf-host",
        &[
            "wharf-runtime",
            "wharf-wire",
            "wharf-gob",
            "wharf-schema",
            "wharf-net",
            "wharf-registry-api",
        ],
    ),
    (
        "wharf",
        &[
            "wharf-client",
            "wharf-host",
            "wharf-net",
            "wharf-registry",
            "wharf-registry-api",
            "wharf-runtime",
            "wharf-schema",
        ],
    ),
    ("arith", &["wharf-guest"]),
    ("textkit", &["wharf-guest"]),
    ("wharf-guest-reach", &[]),
    ("wharf-guest-rogue", &[]),
    ("wharf-guest-zoo", &[]),
];

/// Libraries that shape the code around them, and the only crates that may use them.
const CONFINED: &[(&str, &[&str])] = &[
    ("wasmtime", &["wharf-runtime"]),
    ("wasmtime-wasi", &["wharf-runtime"]),
    ("wasmtime-wasi-http", &["wharf-runtime"]),
    ("axum", &["wharf-registry", "wharf-host"]),
    ("reqwest", &["wharf-registry-api"]),
    ("rustls", &["wharf-net", "wharf-registry-api"]),
    ("hyper", &["wharf-net"]),
    ("redb", &["wharf-registry"]),
    ("tonic", &["wharf-registry"]),
    ("anyhow", &["wharf"]),
    ("clap", &["wharf"]),
];

/// Each of our crates, with its dependencies outside of tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec().unwrap();
    let packages = metadata.packages.into_iter().map(|package| {
        let normal = package.dependencies.into_iter().filter(|d| d.kind == DependencyKind::Normal);
        (package.name.to_string(), normal.map(|d| d.name).collect())
    });
    packages.collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let dependencies = dependencies();
    let ours: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> =
        ARROWS.iter().map(|(name, _)| *name).chain(["wharf-tests"]).collect();
    assert_eq!(ours, listed, "every crate has its row in ARROWS");
    for (name, allowed) in ARROWS {
        let unexpected: Vec<&String> = dependencies[*name]
            .iter()
            .filter(|d| ours.contains(d.as_str()) && !allowed.contains(&d.as_str()))
            .collect();
        assert!(unexpected.is_empty(), "{name} must not know of {unexpected:?}");
    }
}

#[test]
fn libraries_that_shape_their_users_are_confined() {
    for (library, allowed) in CONFINED {
        let users: Vec<String> = dependencies()
            .into_iter()
            .filter(|(name, uses)| name != "wharf-tests" && uses.contains(*library))
            .map(|(name, _)| name)
            .filter(|name| !allowed.contains(&name.as_str()))
            .collect();
        assert!(users.is_empty(), "{library} appears in {users:?}");
    }
}

/// The most crates in a client that calls hosts directly, ours included. Those that only run at build
/// time are not in it.
const FEW: usize = 45;

#[test]
fn a_client_without_discovery_has_few_crates_and_knows_neither_http_nor_tls() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command.args(["tree", "--manifest-path", manifest, "--package", "wharf-client"]);
    command.args(["--no-default-features", "--edges", "normal,no-proc-macro", "--prefix", "none"]);
    let output = command.args(["--offline", "--format", "{p}"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let crates: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(crates.contains("tokio") && crates.len() <= FEW, "{}: {crates:?}", crates.len());
    for unwanted in ["reqwest", "rustls", "hyper", "wharf-gob"] {
        assert!(!crates.contains(unwanted), "{unwanted}");
    }
}
