//! Components of others: layouts and toolchains that nobody here wrote.

use wharf_tests::{Args, Wharf, component, eventually, get_json, plugin};

/// A component that exports these interfaces, each with a method `f` that returns the number.
fn serving(interfaces: &[&str], number: u32) -> Vec<u8> {
    use std::fmt::Write;

    let (mut packages, mut exports, mut module) = (String::new(), String::new(), String::new());
    for interface in interfaces {
        if let Some((package, name)) = interface.split_once('/') {
            write!(packages, "package {package} {{ interface {name} {{ f: func() -> u32; }} }} ")
                .unwrap();
            write!(exports, "export {interface}; ").unwrap();
        } else {
            write!(exports, "export {interface}: interface {{ f: func() -> u32; }} ").unwrap();
        }
        write!(module, "(func (export \"{interface}#f\") (result i32) (i32.const {number})) ")
            .unwrap();
    }
    let wit = format!("package test:serving; world w {{ {exports} }} {packages}");
    component(&wit, &format!("(module {module})")).unwrap()
}

async fn file(
    wharf: &Wharf,
    name: &str,
    is: impl Fn(&serde_json::Value) -> bool,
) -> serde_json::Value {
    eventually("the file is as expected", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        let files = overview["files"].as_array().unwrap().clone();
        files.into_iter().find(|file| file["file"] == name && is(file))
    })
    .await
    .unwrap()
}

async fn f(wharf: &Wharf, method: &str) -> Result<u32, String> {
    wharf.direct().call(method, &()).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_file_serves_all_but_what_another_serves_and_the_rest_once_that_is_gone() {
    let (one, two) = (serving(&["a:a/x", "a:c/y"], 1), serving(&["a:a/x", "b:b/z"], 2));
    let plugins = [("one.wasm", &one[..])];
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    std::fs::write(wharf.file("two.wasm"), &two).unwrap();
    let report = file(&wharf, "two.wasm", |file| file["state"] == "serving").await;
    assert_eq!(report["services"], serde_json::json!(["b:b/z"]));
    assert_eq!(report["left_out"], serde_json::json!(["one.wasm serves a:a/x already"]));
    wharf.process.logged("choose services in a sidecar").await.unwrap();
    assert_eq!(f(&wharf, "x.f").await, Ok(1));
    assert_eq!(f(&wharf, "z.f").await, Ok(2));
    std::fs::remove_file(wharf.file("one.wasm")).unwrap();
    let whole =
        |file: &serde_json::Value| file["services"].as_array().is_some_and(|s| s.len() == 2);
    file(&wharf, "two.wasm", whole).await;
    assert_eq!(f(&wharf, "x.f").await, Ok(2));
}

#[tokio::test]
async fn a_sidecar_chooses_which_services_are_served() {
    let (one, two) = (serving(&["a:a/x", "a:c/y"], 1), serving(&["a:a/x", "b:b/z"], 2));
    let chosen = b"services = [\"b:b/*\"]";
    let none = b"services = [\"c:c/*\"]";
    let plugins = [
        ("one.wasm", &one[..]),
        ("two.wasm", &two[..]),
        ("two.toml", &chosen[..]),
        ("three.wasm", &two[..]),
        ("three.toml", &none[..]),
    ];
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    let report = file(&wharf, "two.wasm", |file| file["state"] == "serving").await;
    assert_eq!(report["services"], serde_json::json!(["b:b/z"]));
    assert!(report.get("left_out").is_none(), "{report}");
    let refused = file(&wharf, "three.wasm", |file| file["state"] == "refused").await;
    let reason = refused["reason"].as_str().unwrap();
    assert!(
        reason.contains("none of its services is among those that its sidecar chooses"),
        "{reason}"
    );
    assert!(reason.contains("a:a/x, b:b/z"), "{reason}");
}

#[tokio::test]
async fn what_a_toolchain_or_wasi_exports_is_no_service() {
    let exporting = |package: &str, number: u32| {
        component(
            &format!(
                "package test:{package};
                 interface api {{ f: func() -> u32; }}
                 world w {{ export api; export exports: interface {{ init: func(); }} export wasi:cli/run@0.2.0; }}
                 package wasi:cli@0.2.0 {{ interface run {{ run: func() -> result; }} }}"
            ),
            &format!(
                r#"(module
                    (func (export "test:{package}/api#f") (result i32) (i32.const {number}))
                    (func (export "exports#init"))
                    (func (export "wasi:cli/run@0.2.0#run") (result i32) (i32.const 0)))"#
            ),
        )
        .unwrap()
    };
    let (one, two) = (exporting("one", 1), exporting("two", 2));
    let wharf = Wharf::up(&[("one.wasm", &one[..]), ("two.wasm", &two[..])], &[]).await.unwrap();
    for name in ["one", "two"] {
        let report = file(&wharf, &format!("{name}.wasm"), |file| file["state"] == "serving").await;
        assert_eq!(report["services"], serde_json::json!([format!("test:{name}/api")]));
    }
    assert_eq!(f(&wharf, "test:one/api.f").await, Ok(1));
    assert_eq!(f(&wharf, "test:two/api.f").await, Ok(2));
    for hidden in ["exports.init", "wasi:cli/run.run", "run.run"] {
        let error = f(&wharf, hidden).await.unwrap_err();
        assert!(error.contains("this host has no service"), "{error}");
    }
}

#[tokio::test]
async fn a_name_without_a_package_reaches_the_interface_that_has_none() {
    let (plain, packaged) = (serving(&["api"], 1), serving(&["x:y/api"], 2));
    let plugins = [("plain.wasm", &plain[..]), ("packaged.wasm", &packaged[..])];
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    assert_eq!(f(&wharf, "api.f").await, Ok(1));
    assert_eq!(f(&wharf, "x:y/api.f").await, Ok(2));
}

#[tokio::test]
async fn a_type_too_large_for_any_memory_is_refused_by_name() {
    let overflow = r#"(component
        (type $l (list u64 1073741824)) (type $t (tuple $l $l))
        (core module $m (memory (export "m") 1)
            (func (export "f") (result i32) i32.const 16))
        (core instance $i (instantiate $m))
        (func $f (result $t) (canon lift (core func $i "f") (memory (core memory $i "m"))))
        (func $g (result u32) (canon lift (core func $i "f")))
        (instance $inst (export "f" (func $f)) (export "g" (func $g)))
        (export "big:b/api" (instance $inst)))"#;
    let (overflow, arith) = (wat::parse_str(overflow).unwrap(), plugin("arith").unwrap());
    let plugins = [("overflow.wasm", &overflow[..]), ("arith.wasm", &arith[..])];
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    let refused = file(&wharf, "overflow.wasm", |file| file["state"] == "refused").await;
    let reason = refused["reason"].as_str().unwrap();
    assert_eq!(
        reason,
        "a type of its function 'f' is too large: a value would take more than 64 MiB"
    );
    let product = wharf.direct().call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await;
    assert_eq!(product.unwrap(), 56);
}
