//! The command line, as a person at a terminal uses it.

use tokio::io::{AsyncBufReadExt, BufReader};
use wharf_tests::{Finished, Wharf, get, plugin, wharf, within};

async fn up() -> Wharf {
    let (arith, textkit) = (plugin("arith").unwrap(), plugin("textkit").unwrap());
    Wharf::up(&[("arith.wasm", &arith), ("textkit.wasm", &textkit)], &[]).await.unwrap()
}

async fn call(on: &Wharf, arguments: &[&str]) -> Finished {
    let base = ["call", "--registry", &on.registry];
    wharf(&[&base, arguments].concat()).await.unwrap()
}

#[tokio::test]
async fn call_prints_results_and_the_methods_own_errors() {
    let on = up().await;
    let done = call(&on, &["Arith.Multiply", r#"{"a":7,"b":8}"#]).await;
    assert_eq!((done.code, &done.stdout[..]), (Some(0), "56\n"), "{}", done.stderr);
    let done = call(&on, &["arith.divide", r#"{"a":7,"b":0}"#]).await;
    assert_eq!((done.code, &done.stdout[..]), (Some(3), ""));
    assert_eq!(done.stderr, "error: arith.divide returned an error: divide-by-zero\n");
    let done = call(&on, &["--json", "arith.divide", r#"{"a":7,"b":2}"#]).await;
    assert_eq!(done.stdout, "{\"quo\":3,\"rem\":1}\n");
    let done = call(&on, &["textkit.recase", "hello there", "title"]).await;
    assert_eq!(done.stdout, "Hello There\n");
    let done = call(&on, &["--json", "textkit.recase", "7", "upper"]).await;
    assert_eq!(done.stdout, "\"7\"\n");
    let done = call(&on, &["textkit.analyze", "one two"]).await;
    let order: Vec<&str> = done.stdout.lines().filter_map(|l| l.trim().split('"').nth(1)).collect();
    assert_eq!(order, ["bytes", "chars", "words", "lines", "longestWord", "wordsPerLine"]);
    let done = wharf(&["call", "--direct", &on.host, "textkit.join", r#"["a","b"]"#, r#""-""#])
        .await
        .unwrap();
    assert_eq!(done.stdout, "a-b\n", "{}", done.stderr);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "{\"a\":7,\n \"b\":8}\n").unwrap();
    let at = format!("@{}", file.path().display());
    assert_eq!(call(&on, &["arith.multiply", &at]).await.stdout, "56\n");
    let done = call(&on, &["--json", "arith.divide", r#"{"a":7,"b":0}"#]).await;
    assert_eq!((done.code, &done.stdout[..]), (Some(3), "\"divide-by-zero\"\n"));
}

#[tokio::test]
async fn arguments_of_a_call_may_have_names_and_errors_may_be_json() {
    let on = up().await;
    for (arguments, code, stdout) in [
        (&["arith.multiply", "a=7", "b=8"][..], 0, "56\n"),
        (&["arith.multiply", "b=8", "A=-7"], 0, "-56\n"),
        (&["textkit.recase", "hello there", "to=title"], 0, "Hello There\n"),
        (&["arith.multiply", "a=7"], 1, ""),
        (&["arith.multiply", "a=7", "c=8"], 2, ""),
        (&["--json", "arith.divide", "a=7", "b=0"], 3, "\"divide-by-zero\"\n"),
        (
            &["--json", "arith.multipy"],
            4,
            "{\"code\":\"not_found\",\"message\":\"no method 'multipy' in the service 'arith'; did you mean 'multiply'?\"}\n",
        ),
    ] {
        let done = call(&on, arguments).await;
        assert_eq!(
            (done.code, &done.stdout[..]),
            (Some(code), stdout),
            "{arguments:?}: {}",
            done.stderr
        );
    }
    let done = call(&on, &["--json", "arith.multiply", "a=7"]).await;
    let error: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(error["code"], "invalid_argument");
    assert!(error["message"].as_str().unwrap().contains("b: the field is missing"), "{error}");
    let done = call(&on, &["--json", "--direct", "127.0.0.1:1", "arith.multiply"]).await;
    let error: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((done.code, &error["code"]), (Some(5), &"unavailable".into()));
}

#[tokio::test]
async fn describe_shows_how_each_method_is_called_and_its_examples_can_be_called() {
    let on = up().await;
    let describe = async |arguments: &[&str]| {
        wharf(&[&["describe", "--registry", &on.registry], arguments].concat()).await.unwrap()
    };
    let done = describe(&["arith"]).await;
    for words in [
        "service     demo:arith/arith@0.1.0\n",
        "fingerprint ",
        &format!("endpoint    {}, host ", on.host),
        "multiply: func(args: args) -> s64;",
        "  The product of `a` and `b`, wrapping around at 64 bits.\n  $ wharf call arith.multiply '{",
        "  or fails with \"divide-by-zero\"\n",
    ] {
        assert!(done.stdout.contains(words), "{words} is not in\n{}", done.stdout);
    }
    for service in ["arith", "demo:textkit/textkit@0.1.0"] {
        let done = describe(&[service, "--json"]).await;
        let described: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        let short = service.rsplit('/').next().unwrap().split('@').next().unwrap();
        for method in described["methods"].as_array().unwrap() {
            let url = format!("http://{}/{short}/{}", on.host, method["name"].as_str().unwrap());
            let body = method["arguments"].to_string();
            let answer = wharf_tests::http_client().unwrap().post(url).body(body);
            let answer = answer.header("content-type", "application/json").send().await.unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            // 422 is the method's own error.
            assert!(status == 200 || status == 422, "{method}: {text}");
        }
    }
    let one = describe(&["textkit.recase", "--json"]).await;
    let one: serde_json::Value = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(one["methods"].as_array().unwrap().len(), 1);
    assert_eq!(one["methods"][0]["command"], "wharf call textkit.recase 'text' 'lower'");
    let file = describe(&[&on.file("arith.wasm").display().to_string()]).await;
    assert!(file.stdout.starts_with("service     demo:arith/arith@0.1.0\n"), "{}", file.stderr);
    assert!(!file.stdout.contains("endpoint "));
    for (name, code, message) in [
        ("arih", 4, "error: no service 'arih'; did you mean 'arith'?\n"),
        (
            "arith.multipy",
            4,
            "error: no method 'multipy' in the service 'arith'; did you mean 'multiply'?\n",
        ),
        ("missing.wasm", 4, "error: missing.wasm cannot be read"),
    ] {
        let done = describe(&[name]).await;
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        assert!(done.stderr.starts_with(message), "{}", done.stderr);
    }
}

#[tokio::test]
async fn a_new_file_is_compared_with_an_old_one_or_with_what_is_served() {
    let on = up().await;
    let folder = tempfile::tempdir().unwrap();
    let reordered = folder.path().join("new.wasm").display().to_string();
    std::fs::write(&reordered, wharf_tests::arith_reordered().unwrap()).unwrap();
    let old = on.file("arith.wasm").display().to_string();
    for against in [&old[..], "arith"] {
        let ask = ["inspect", &reordered, "--against", against, "--registry", &on.registry];
        let done = wharf(&ask).await.unwrap();
        assert_eq!(done.code, Some(7), "{}", done.stderr);
        let first = "arith.multiply: the fields of args are in another order  typed clients\n";
        assert!(done.stdout.contains(first), "{}", done.stdout);
        assert_eq!(done.stderr, "error: 2 changes break callers\n");
        let done = wharf(&[&ask[..], &["--json"]].concat()).await.unwrap();
        let changes: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(changes["changes"][0]["breaks"], "typed clients", "{changes}");
    }
    let same = wharf(&["inspect", &old, "--against", &old]).await.unwrap();
    assert_eq!((same.code, same.stdout.starts_with("No difference")), (Some(0), true));
}

#[tokio::test]
async fn a_watched_list_is_printed_again_when_it_changes() {
    let on = up().await;
    let mut watching = tokio::process::Command::new(wharf_tests::Process::program().unwrap());
    watching.args(["services", "--watch", "--registry", &on.registry]).kill_on_drop(true);
    let mut watching = watching.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = async || within("a line", lines.next_line()).await.unwrap().unwrap().unwrap();
    assert!(next().await.starts_with("SERVICE "));
    assert!(next().await.starts_with("demo:arith/arith "));
    assert!(next().await.starts_with("demo:textkit/textkit "));
    std::fs::remove_file(on.file("textkit.wasm")).unwrap();
    // It may be listed once more, as one that is withdrawn.
    while !next().await.is_empty() {}
    assert!(next().await.starts_with("SERVICE "));
    assert!(next().await.starts_with("demo:arith/arith "));
}

#[tokio::test]
async fn call_says_what_is_wrong_and_what_was_meant() {
    let on = up().await;
    for (arguments, code, message) in [
        (&["arih.multiply", "1"][..], 4, "error: no service 'arih'; did you mean 'arith'?\n"),
        (
            &["arith.multipy", "1"],
            4,
            "error: no method 'multipy' in the service 'arith'; did you mean 'multiply'?\n",
        ),
        (&["zzz.f"], 4, "error: no service 'zzz': run 'wharf services' to list all services\n"),
        (
            &["arith"],
            2,
            "error: 'arith' is not a method: write SERVICE.METHOD, for example arith.multiply\n",
        ),
        (
            &["arith.multiply"],
            1,
            "error: arith.multiply: expected 1 argument (args: record { a: s64, b: s64 }), found 0; write it like {\"a\":-7,\"b\":-7}\n",
        ),
        (
            &["arith.multiply", r#"{"a":7}"#],
            1,
            "error: arith.multiply: args.b: the field is missing (s64); write it like {\"a\":-7,\"b\":-7}\n",
        ),
        (
            &["arith.multiply", r#"{"a":7,"b":"x"}"#],
            1,
            "error: arith.multiply: args.b: expected s64, found the string \"x\"; write it like {\"a\":-7,\"b\":-7}\n",
        ),
        (
            &["arith.multiply", "{"],
            1,
            "error: args: expected record { a: s64, b: s64 } as JSON: EOF while parsing an object at line 1 column 1; write it like {\"a\":-7,\"b\":-7}\n",
        ),
    ] {
        let done = call(&on, arguments).await;
        assert_eq!((done.code, &done.stderr[..]), (Some(code), message), "{arguments:?}");
    }
    let nowhere = ["call", "--registry", "127.0.0.1:1", "--timeout", "5s", "arith.multiply", "1"];
    let done = wharf(&nowhere).await.unwrap();
    assert_eq!(done.code, Some(5));
    let advice = "the registry at http://127.0.0.1:1 cannot be reached: is it running ('wharf up' or 'wharf registry')?";
    assert!(done.stderr.contains(advice), "{}", done.stderr);
    let registered = get(&format!("{}/register?name=Calc&addr=127.0.0.1:9", on.registry)).await;
    assert_eq!(registered.unwrap().0, 200);
    let done = call(&on, &["Calc.Multiply", "1"]).await;
    assert_eq!(done.code, Some(5));
    let unreachable = "at 127.0.0.1:9: cannot connect: Connection refused";
    assert!(done.stderr.contains(unreachable), "{}", done.stderr);
    let done = wharf(&["call", "--direct", "127.0.0.1:1", "arith.multiply", "1"]).await.unwrap();
    assert_eq!(done.code, Some(5));
    // That nobody listens there says enough.
    assert!(!done.stderr.contains("is it a Wharf host?"), "{}", done.stderr);
    assert!(
        done.stderr.contains("at 127.0.0.1:1: cannot connect: Connection refused"),
        "{}",
        done.stderr
    );
}

#[tokio::test]
async fn a_deadline_has_its_own_exit_code() {
    let hostile = wharf_tests::hostile().unwrap();
    let on = Wharf::up(&[("hostile.wasm", &hostile)], &[]).await.unwrap();
    let done = call(&on, &["--timeout", "200ms", "hostile.spin"]).await;
    assert_eq!(done.code, Some(6), "{}", done.stderr);
}

#[tokio::test]
async fn services_lists_what_is_registered() {
    let on = up().await;
    let done = wharf(&["services", "--registry", &on.registry]).await.unwrap();
    let address = &on.host;
    let expected = [
        format!(
            "{:<20}  VERSION  {:<width$}  STATE",
            "SERVICE",
            "ENDPOINTS",
            width = address.len()
        ),
        format!("{:<20}  0.1.0    {address}  serving", "demo:arith/arith"),
        format!("{:<20}  0.1.0    {address}  serving", "demo:textkit/textkit"),
    ];
    assert_eq!(done.stdout.lines().collect::<Vec<_>>(), expected);
    let done = wharf(&["services", "--json", "--registry", &on.registry]).await.unwrap();
    let json: serde_json::Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(json["services"][0]["service"], "arith");
}

#[tokio::test]
async fn inspect_shows_wit_with_docs_methods_fingerprints_and_needs() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let arith = file("arith.wasm", &plugin("arith").unwrap());
    let done = wharf(&["inspect", &arith]).await.unwrap();
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    for shown in [
        "service demo:arith/arith@0.1.0\n",
        "/// The two operands.\n",
        "8c5271fff12308832426464d37c999b3  multiply: func(args: record { a: s64, b: s64 }) -> s64\n",
        "imports\n  none: it needs nothing\n",
    ] {
        assert!(done.stdout.contains(shown), "{shown} is not in\n{}", done.stdout);
    }
    assert!(!done.stdout.contains("dynamic values"), "{}", done.stdout);
    let utf16 = wharf_tests::component_in_utf16(
        "package a:b; interface i { f: func(s: string); } world plugin { export i; }",
        r#"(module
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "a:b/i#f") (param i32 i32)))"#,
    )
    .unwrap();
    let done = wharf(&["inspect", &file("utf16.wasm", &utf16)]).await.unwrap();
    assert!(done.stdout.contains("called with dynamic values, which is slow"), "{}", done.stdout);
    let needy = wharf_tests::component(
        "package a:b; interface i { f: func(); } world plugin { import wasi:cli/environment@0.2.6; export i; }
         package wasi:cli@0.2.6 { interface environment { get-arguments: func() -> list<string>; } }",
        r#"(module
            (import "wasi:cli/environment@0.2.6" "get-arguments" (func (param i32)))
            (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
            (func (export "a:b/i#f")))"#,
    )
    .unwrap();
    let done = wharf(&["inspect", &file("needy.wasm", &needy)]).await.unwrap();
    assert!(
        done.stdout.contains(
            "wasi:cli/environment@0.2.6  environment: needs no grant; empty unless 'env' fills it\n"
        ),
        "{}",
        done.stdout
    );
    assert!(!done.stdout.contains("grants that it needs"), "{}", done.stdout);
    let reach = file("reach.wasm", &wharf_tests::guest("reach").unwrap());
    let done = wharf(&["inspect", &reach]).await.unwrap();
    for shown in [
        "  wasi:http/outgoing-handler@0.2.12  outgoing HTTP: needs the grant 'http'\n",
        "grants that it needs, in a .toml file beside it, for example\n  [grants]\n  dirs = [",
        "\n  http = [\"api.example.com\"]  # or http = []\n  tcp = [\"10.0.0.7:5432\"]  # or tcp = []\n",
    ] {
        assert!(done.stdout.contains(shown), "{shown} is not in\n{}", done.stdout);
    }

    let core = file("core.wasm", &wat::parse_str("(module)").unwrap());
    let done = wharf(&["inspect", &core]).await.unwrap();
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("it is a core WebAssembly module, not a component"),
        "{}",
        done.stderr
    );
    let done = wharf(&["inspect", "/nowhere.wasm"]).await.unwrap();
    assert_eq!(done.code, Some(4));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_the_flag_to_change_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let done = wharf(&["registry", "--listen", &address]).await.unwrap();
    assert_eq!(done.code, Some(1));
    let message = format!(
        "cannot listen on {address}: is another wharf running? Choose another address with --listen"
    );
    assert!(done.stderr.contains(&message), "{}", done.stderr);
    let done = wharf(&["host", "--listen", "127.0.0.1:0", "--plugins", "/nowhere"]).await.unwrap();
    assert!(
        done.stderr.contains(
            "the plugins folder /nowhere cannot be read: create it, or name another with --plugins"
        ),
        "{}",
        done.stderr
    );
}

#[tokio::test]
async fn no_directory_is_made_out_of_a_mistyped_path() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let plugins = folder.path().display().to_string();
    let host = ["host", "--listen", "127.0.0.1:0", "--plugins", &plugins];
    let joining = ["--join", "wharf-join-1", "--registry", "https://127.0.0.1:1"];
    for (arguments, message) in [
        (vec!["registry", "--store", &at("typo/records.redb")], "--store"),
        ([&host[..], &["--cache", &at("typo/cache")]].concat(), "--cache"),
        ([&host[..], &["--identity", &at("typo/host")], &joining].concat(), "--identity"),
        (vec!["up", "--plugins", &at("typo")], "the plugins folder"),
    ] {
        let ports = ["--listen", "127.0.0.1:0"];
        let done = match arguments[0] {
            "registry" => wharf(&[&arguments[..], &ports].concat()).await.unwrap(),
            "up" => {
                let ports = [&ports[..], &["--registry-listen", "127.0.0.1:0"]].concat();
                wharf(&[&arguments[..], &ports, &["--http-listen", "none"]].concat()).await.unwrap()
            }
            _ => wharf(&arguments).await.unwrap(),
        };
        assert_eq!(done.code, Some(1), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.contains(message), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.contains("typo"), "{arguments:?}: {}", done.stderr);
        assert!(!folder.path().join("typo").exists(), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_meant_is_refused_and_no_secret_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("only.pem");
    std::fs::write(&certificate, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let certificate = certificate.to_str().unwrap();
    for (arguments, why) in [
        (&["--store", "etcd://me:hunter2@db:2379"][..], "set WHARF_ETCD_USER to NAME:PASSWORD"),
        (&["--store", "etcd:/db:2379"], "write a file, memory, or etcd://HOST:PORT"),
        (&["--store", "redis://me:hunter2@db"], "write a file, memory, or etcd://HOST:PORT"),
        (
            &["--store", "etcd://db:2379", "--etcd-authorities", certificate],
            "are for TLS: write --store etcds://db:2379",
        ),
        (
            &["--store", "etcds://db:2379", "--etcd-certificate", certificate],
            "there is no private key in it",
        ),
        (&["--store", "etcd://db"], "write the cluster's members as"),
    ] {
        let base = ["registry", "--listen", "127.0.0.1:0"];
        let done = wharf(&[&base[..], arguments].concat()).await.unwrap();
        assert_eq!(done.code, Some(1), "{arguments:?}");
        assert!(done.stderr.contains(why), "{arguments:?}: {}", done.stderr);
        assert!(!done.stderr.contains("hunter2"), "{}", done.stderr);
    }
}

#[tokio::test]
async fn an_address_that_this_machine_does_not_have_is_called_that() {
    // An address for documentation, which nobody has.
    let base = ["registry", "--store", "memory", "--anyone-may-write"];
    let done = wharf(&[&base[..], &["--listen", "192.0.2.1:8500"]].concat()).await.unwrap();
    assert_eq!(done.code, Some(1));
    let expected = "cannot listen on 192.0.2.1:8500: this machine does not have that address. Choose another address with --listen";
    assert!(done.stderr.contains(expected), "{}", done.stderr);
}
