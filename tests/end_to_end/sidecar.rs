//! Sidecars: the settings that operators write beside a plugin, and what the plugin can then
//! access.

use std::io::{Read, Write};
use std::net::TcpStream;

use wharf_client::{Client, RpcError, Status};
use wharf_tests::{Args, Wharf, arith_that, eventually, get_json, guest, plugin};

type Reached<T> = Result<T, String>;

/// The `reach` guest, with a sidecar.
async fn up(sidecar: &str) -> Wharf {
    let reach = guest("reach").unwrap();
    let files: [(&str, &[u8]); 2] = [("reach.wasm", &reach), ("reach.toml", sidecar.as_bytes())];
    let wharf = Wharf::up_cached(&files).await.unwrap();
    // The plugin is large: on a busy machine, the host may be up before the plugin is compiled.
    eventually("it is compiled", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        (overview["files"][0]["state"] != "compiling").then_some(())
    })
    .await
    .unwrap();
    is_told(&wharf).await;
    wharf
}

/// Waits until the registry knows that nothing is compiled any more: it hears of that a moment later.
async fn is_told(wharf: &Wharf) {
    eventually("the registry knows that it is compiled", async || {
        let list = get_json(&format!("{}/v1/services/reach/endpoints", wharf.registry)).await;
        let list = list.unwrap();
        let endpoints = list["endpoints"].as_array().unwrap();
        endpoints.iter().all(|endpoint| endpoint["state"] != "compiling").then_some(())
    })
    .await
    .unwrap();
}

/// Writes a sidecar, and waits until the host has loaded or refused it.
async fn change(wharf: &Wharf, sidecar: &str) -> serde_json::Value {
    let seen = async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        let file = overview["files"][0].clone();
        (overview["services"][0]["generation"].clone(), file["reason"].clone(), file)
    };
    let (generation, reason, _) = seen().await;
    std::fs::write(wharf.file("reach.toml"), sidecar).unwrap();
    let read = eventually("the sidecar is read", async || {
        let (now, why, file) = seen().await;
        (file["state"] != "compiling" && (now != generation || why != reason)).then_some(file)
    });
    let file = read.await.unwrap();
    is_told(wharf).await;
    file
}

/// A server that sends `hello` on each connection.
fn greeter() -> std::net::SocketAddr {
    server(|mut stream| stream.write_all(b"hello\n"))
}

/// A server that answers each request with 204.
fn web() -> std::net::SocketAddr {
    server(|mut stream| {
        // A request without a body arrives in one read.
        let _ = stream.read(&mut [0; 4096])?;
        stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    })
}

fn server(
    serve: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static,
) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The client may have closed the connection.
            let _ = serve(stream);
        }
    });
    address
}

async fn call<A: serde::Serialize + ?Sized, R: serde::de::DeserializeOwned>(
    client: &Client,
    method: &str,
    arguments: &A,
) -> R {
    client.call::<A, R>(&format!("reach.{method}"), arguments).await.unwrap()
}

const NOTHING: &str = "[grants]\ndirs = []\nhttp = []\ntcp = []\n";

#[tokio::test]
async fn without_grants_nothing_is_reached_and_what_needs_one_does_not_load() {
    let wharf = up("").await;
    let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
    let reason = overview["files"][0]["reason"].as_str().unwrap().to_owned();
    for part in [
        "its imports need grants: wasi:filesystem/types@0.2.12, wasi:filesystem/preopens@0.2.12 (write 'dirs = ",
        "wasi:http/outgoing-handler@0.2.12 (write 'http = [\"api.example.com\"]', or 'http = []' to grant none)",
        "wasi:sockets/tcp@0.2.12",
        "write the grants under [grants] in the plugin's .toml file",
    ] {
        assert!(reason.contains(part), "{part} is not in: {reason}");
    }
    let file = change(&wharf, NOTHING).await;
    assert_eq!(file["state"], "serving");
    let client = wharf.client().await.unwrap();
    let greeter = greeter().to_string();
    assert_eq!(call::<_, Option<String>>(&client, "variable", "PATH").await, None);
    call::<_, Reached<String>>(&client, "read", "/etc/hostname").await.unwrap_err();
    call::<_, Reached<String>>(&client, "read", "../../etc/hostname").await.unwrap_err();
    call::<_, Reached<String>>(&client, "connect", &greeter).await.unwrap_err();
    call::<_, Reached<String>>(&client, "connect", "localhost:80").await.unwrap_err();
    let denied = call::<_, Reached<u16>>(&client, "fetch", &greeter).await.unwrap_err();
    assert!(denied.contains("HttpRequestDenied"), "{denied}");
}

#[tokio::test]
async fn granted_variables_and_directories_are_reached_and_no_others() {
    let wharf = up(NOTHING).await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "secret").unwrap();
    let (open, closed) = (outside.path().join("open"), outside.path().join("closed"));
    for folder in [&open, &closed] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("file"), "content").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.join("link")).unwrap();
    }
    let file = change(
        &wharf,
        &format!(
            "[grants]\nhttp = []\ntcp = []\nenv = {{ GREETING = \"hello\" }}\ninherit-env = [\"PATH\"]\n\
             dirs = [{{ host = {open:?}, guest = \"/open\", access = \"read-write\" }}, {{ host = {closed:?}, guest = \"/closed\" }}]\n"
        ),
    )
    .await;
    assert_eq!(file["state"], "serving", "{file}");
    let client = wharf.client().await.unwrap();
    assert_eq!(call::<_, Option<String>>(&client, "variable", "GREETING").await.unwrap(), "hello");
    assert!(call::<_, Option<String>>(&client, "variable", "PATH").await.is_some());
    assert_eq!(call::<_, Option<String>>(&client, "variable", "WHARF_LOG").await, None);
    let read = async |path: &str| call::<_, Reached<String>>(&client, "read", path).await;
    let write = async |path: &str| call::<_, Reached<()>>(&client, "write", &(path, "new")).await;
    assert_eq!(read("/open/file").await.unwrap(), "content");
    assert_eq!(read("/closed/file").await.unwrap(), "content");
    write("/open/file").await.unwrap();
    assert_eq!(std::fs::read_to_string(open.join("file")).unwrap(), "new");
    write("/closed/file").await.unwrap_err();
    write("/closed/another").await.unwrap_err();
    for escape in ["/open/link", "/open/../secret", "/closed/link", "/etc/hostname", "/secret"] {
        assert!(read(escape).await.is_err(), "{escape}");
    }
}

#[tokio::test]
async fn granted_addresses_and_hosts_are_reached_and_no_others() {
    let (granted, other, web, other_web) = (greeter(), greeter(), web(), self::web());
    let port = granted.port();
    let wharf = up(&format!(
        "[grants]\ndirs = []\nhttp = [\"{web}\"]\ntcp = [\"127.0.0.1:{port}\", \"localhost:{port}\"]\n"
    ))
    .await;
    let client = wharf.client().await.unwrap();
    let connect = async |to: String| call::<_, Reached<String>>(&client, "connect", &to).await;
    let fetch = async |from: String| call::<_, Reached<u16>>(&client, "fetch", &from).await;
    assert!(connect(granted.to_string()).await.unwrap().contains("hello"));
    assert!(connect(format!("localhost:{port}")).await.unwrap().contains("hello"));
    connect(other.to_string()).await.unwrap_err();
    connect(format!("localhost:{}", other.port())).await.unwrap_err();
    connect(format!("localhost.localdomain:{port}")).await.unwrap_err();
    assert_eq!(fetch(web.to_string()).await.unwrap(), 204);
    let smuggled = format!("{web}@{other_web}");
    for denied in [other_web.to_string(), format!("localhost:{}", web.port()), smuggled] {
        let error = fetch(denied.clone()).await.unwrap_err();
        let told = error.contains("HttpRequestDenied") || error.contains("the request is refused");
        assert!(told, "{denied}: {error}");
    }
}

#[tokio::test]
async fn a_sidecar_is_followed_as_it_changes_and_a_broken_one_changes_nothing() {
    let wharf = up("[grants]\ndirs = []\nhttp = []\ntcp = []\nenv = { A = \"1\" }\n").await;
    let client = wharf.client().await.unwrap();
    let variable = async || call::<_, Option<String>>(&client, "variable", "A").await;
    assert_eq!(variable().await.unwrap(), "1");
    let file = change(&wharf, &format!("{NOTHING}env = {{ A = \"2\" }}\n")).await;
    assert_eq!(file["state"], "serving");
    assert_eq!(variable().await.unwrap(), "2");

    let file = change(&wharf, "[limits]\nmemory = \"64 Mb!\"\n").await;
    assert_eq!(file["state"], "refused");
    assert_eq!(
        file["reason"],
        "reach.toml, line 2, limits.memory: '64 Mb!' is not a size: write it like \"64 MiB\" or \"512 KiB\""
    );
    assert_eq!(variable().await.unwrap(), "2", "the one before serves on");
    let listed = wharf_tests::wharf(&["services", "--registry", &wharf.registry]).await.unwrap();
    assert!(listed.stdout.contains("reach.toml, line 2, limits.memory"), "{}", listed.stdout);

    let file = change(&wharf, &format!("{NOTHING}[limits]\nresult-size = 64\n")).await;
    assert_eq!(file["state"], "serving");
    assert_eq!(variable().await, None);
}

#[tokio::test]
async fn a_grant_that_is_taken_back_is_used_no_more() {
    let wharf = up(&format!("{NOTHING}env = {{ SECRET = \"s\" }}\n")).await;
    let client = wharf.direct();
    assert!(call::<_, Option<String>>(&client, "variable", "SECRET").await.is_some());
    std::fs::remove_file(wharf.file("reach.toml")).unwrap();
    let error: RpcError = eventually("it ends", async || {
        client.call::<_, Option<String>>("reach.variable", "SECRET").await.err()
    })
    .await
    .unwrap();
    let status = error.failure.status();
    assert!(matches!(status, Status::Unavailable | Status::NotFound), "{error}");
    assert!(!error.failure.may_have_executed());
    let (_, log) = wharf.process.terminate().await.unwrap();
    assert!(log.contains("grants were taken from it, and it cannot be loaded with the new ones"));
}

#[tokio::test]
async fn limits_of_a_sidecar_hold_for_its_plugin_alone() {
    let (rogue, reach) = (guest("rogue").unwrap(), guest("reach").unwrap());
    let wharf = Wharf::up(
        &[
            ("rogue.wasm", &rogue),
            ("rogue.toml", b"[limits]\ncall-timeout = \"200ms\"\n[isolation]\nreuse = 1\n"),
            ("reach.wasm", &reach),
            ("reach.toml", NOTHING.as_bytes()),
        ],
        &[],
    )
    .await
    .unwrap();
    let client = wharf.client().await.unwrap();
    let error = client.call::<_, ()>("rogue.sleep", &60_000u64).await.unwrap_err();
    assert_eq!(error.failure.status(), Status::DeadlineExceeded, "{error}");
    for _ in 0..40 {
        let count: u32 = client.call("rogue.count", &()).await.unwrap();
        assert_eq!(count, 1, "each call has an instance of its own");
    }
    assert_eq!(call::<_, Option<String>>(&client, "variable", "X").await, None);
}

#[tokio::test]
async fn a_sidecar_without_a_plugin_is_said_to_have_no_effect() {
    let reach = guest("reach").unwrap();
    let plugins: [(&str, &[u8]); 2] = [("reach.wasm", &reach), ("raech.toml", NOTHING.as_bytes())];
    let wharf = Wharf::up(&plugins, &[]).await.unwrap();
    let (_, log) = wharf.process.terminate().await.unwrap();
    assert!(log.contains("there is no raech.wasm, so this file has no effect"), "{log}");
}

#[tokio::test]
async fn a_file_that_is_pinned_gives_way_only_to_the_one_that_is_pinned() {
    let old = plugin("arith").unwrap();
    let new = arith_that("(i64.const 9)").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pin = |bytes: &[u8]| {
        let path = folder.path().join("bytes");
        std::fs::write(&path, bytes).unwrap();
        let output = std::process::Command::new("sha256sum").arg(&path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        format!("sha256 = \"{}\"\n", text.split_whitespace().next().unwrap())
    };
    let (of_old, of_new) = (pin(&old), pin(&new));
    let wharf = Wharf::up(&[("arith.wasm", &old), ("arith.toml", of_old.as_bytes())], &[]).await;
    let wharf = wharf.unwrap();
    let client = wharf.client().await.unwrap();
    let multiply =
        async || client.call::<_, i64>("arith.multiply", &Args { a: 7, b: 8 }).await.unwrap();
    assert_eq!(multiply().await, 56);
    std::fs::write(wharf.file("arith.wasm"), &new).unwrap();
    let reason = eventually("the new one is refused", async || {
        let overview = get_json(&format!("{}/services", wharf.http)).await.unwrap();
        overview["files"][0]["reason"].as_str().map(str::to_owned)
    })
    .await
    .unwrap();
    for part in ["it is not the file that is pinned", &of_new[10..74], &of_old[10..74]] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!(multiply().await, 56, "the old one goes on serving");
    std::fs::write(wharf.file("arith.toml"), &of_new).unwrap();
    eventually("the new one serves", async || (multiply().await == 9).then_some(())).await.unwrap();
    std::fs::write(wharf.file("arith.toml"), "sha256 = \"abc\"\n").unwrap();
    let told = "arith.toml, line 1, sha256: a SHA-256 has 64 hexadecimal digits";
    wharf.process.logged(told).await.unwrap();
}
