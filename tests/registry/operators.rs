//! What operators do with a registry that runs: look, drain, remove, back up and restore; and how it is
//! configured and supervised.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use wharf_tests::{Finished, Process, RegistryProcess, eventually, wharf};

/// Runs `wharf registry VERB ...` against a registry.
async fn operate(registry: &RegistryProcess, words: &[&str]) -> Finished {
    let words = [&["registry"], words, &["--registry", &registry.url]].concat();
    wharf(&words).await.unwrap()
}

async fn durable(folder: &Path, name: &str) -> RegistryProcess {
    let store = folder.join(name);
    RegistryProcess::start(&["--ttl", "1h", "--store", store.to_str().unwrap()]).await.unwrap()
}

#[tokio::test]
async fn operators_see_how_a_registry_is_and_drain_and_remove_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(folder.path(), "registry.redb").await;
    registry.declare("box-1", 1, &["arith", "textkit"]).await;
    registry.declare("box-2", 1, &["arith"]).await;
    registry.get("/register?name=Db&addr=db:5432").await;
    let status = operate(&registry, &["status"]).await;
    assert_eq!(status.code, Some(0), "{}", status.stderr);
    for says in [
        ": ready\n",
        "store         file\n",
        "hosts         2, and 1 registrations\n",
        "services      3 at 4 endpoints\n",
        "heartbeats    every 20m; dropped after 1h\n",
    ] {
        assert!(status.stdout.contains(says), "{says}: {}", status.stdout);
    }
    let json: Value =
        serde_json::from_str(&operate(&registry, &["status", "--json"]).await.stdout).unwrap();
    assert_eq!((&json["store"], &json["hosts"]), (&json!("file"), &json!(2)));
    let hosts = operate(&registry, &["hosts"]).await.stdout;
    let rows: Vec<&str> = hosts.lines().collect();
    assert!(rows[0].starts_with("HOST") && rows.len() == 4, "{hosts}");
    assert!(rows[1].starts_with("Db@db:5432") && rows[2].starts_with("box-1"), "{hosts}");
    assert!(rows[2].contains("127.0.0.1:9") && rows[2].ends_with("serving"), "{hosts}");
    let state = async || {
        let (_, list) = registry.get("/v1/services/textkit/endpoints").await;
        list["endpoints"][0]["state"].as_str().unwrap_or("gone").to_owned()
    };
    let drained = operate(&registry, &["drain", "box-1"]).await;
    assert!(drained.stdout.starts_with("box-1 gets no new calls"), "{}", drained.stderr);
    assert_eq!(state().await, "draining");
    // It stays so when the host declares itself again.
    registry.declare("box-1", 1, &["arith", "textkit"]).await;
    assert_eq!(state().await, "draining");
    assert_eq!(operate(&registry, &["drain", "box-1", "--undo"]).await.code, Some(0));
    assert_eq!(state().await, "serving");
    assert_eq!(operate(&registry, &["remove", "box-1"]).await.code, Some(0));
    assert_eq!(state().await, "gone");
    assert_eq!(operate(&registry, &["remove", "Db@db:5432"]).await.code, Some(0));
    assert_eq!(registry.get("/services").await.1["Db"], Value::Null);
    for verb in ["drain", "remove"] {
        let unknown = operate(&registry, &[verb, "nobody"]).await;
        assert_eq!(unknown.code, Some(4));
        assert!(unknown.stderr.contains("'wharf registry hosts' lists them"), "{}", unknown.stderr);
    }
    let nobody = wharf(&["registry", "status", "--registry", "http://127.0.0.1:9"]).await.unwrap();
    assert_eq!(nobody.code, Some(5), "{}", nobody.stderr);
}

#[tokio::test]
async fn a_backup_is_taken_under_load_and_comes_back_into_another_registry() {
    let folder = tempfile::tempdir().unwrap();
    let registry = durable(folder.path(), "one.redb").await;
    let services: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let services: Vec<&str> = services.iter().map(String::as_str).collect();
    for host in 0..300 {
        registry.declare(&format!("h{host}"), 1, &services).await;
    }
    let body =
        json!({"ID": "db-1", "Name": "db", "Address": "10.0.0.1", "Port": 1, "Tags": ["blue"]});
    let path = "/v1/agent/service/register";
    assert_eq!(registry.send(Method::PUT, path, Some(body)).await.0, 200);
    // Each host declares all of its services in one version: a backup has all or none of a change.
    let (http, url) = (registry.http.clone(), registry.url.clone());
    let changing = tokio::spawn(async move {
        for round in 2.. {
            for host in 0..300 {
                let mut body = wharf_tests::declaration(round, &["s0", "s1"]);
                body["metadata"] = json!({"round": round.to_string()});
                let put = http.put(format!("{url}/v1/hosts/h{host}")).json(&body);
                assert!(put.send().await.unwrap().status().is_success());
            }
        }
    });
    let file = folder.path().join("backup.ndjson");
    let path = file.to_str().unwrap();
    for _ in 0..5 {
        let taken = operate(&registry, &["backup", path]).await;
        assert!(taken.stdout.contains("301 records of 20"), "{}{}", taken.stdout, taken.stderr);
    }
    changing.abort();
    let text = std::fs::read_to_string(&file).unwrap();
    // What is one order of changes in the registry is one in the backup.
    let rounds: Vec<u64> = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line["key"].as_str().is_some_and(|key| key.starts_with("host/")))
        .map(|line| line["record"]["session"].as_u64().unwrap())
        .collect();
    let (least, most) = (rounds.iter().min().unwrap(), rounds.iter().max().unwrap());
    assert!(rounds.len() == 300 && most - least <= 1, "{least} to {most}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let other = durable(folder.path(), "two.redb").await;
    other.declare("h7", 99, &["newer"]).await;
    let restored = operate(&other, &["restore", path]).await;
    let says = "300 records of 20";
    assert!(restored.stdout.contains(says), "{}{}", restored.stdout, restored.stderr);
    assert!(restored.stdout.contains("1 were there already"), "{}", restored.stdout);
    assert_eq!(other.hosts("newer").await, ["h7"], "what lives stays as it is");
    assert_eq!(other.hosts("s0").await.len(), 299);
    let (_, db) = other.get("/v1/health/service/db").await;
    assert_eq!(db[0]["Service"]["ID"], "db-1");
    // A part is not restored, and an interrupted backup leaves the earlier one.
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    let part = operate(&other, &["restore", path]).await;
    assert!(part.code == Some(1) && part.stderr.contains("not a whole backup"), "{}", part.stderr);
}

#[tokio::test]
async fn only_administrators_back_up_and_restore() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("principals.toml");
    let principals = "[[principal]]\nname = 'a'\nsecret = 'admin-secret-0123456789'\nscopes = ['admin']
        [[principal]]\nname = 'b'\nsecret = 'other-secret-0123456789'\nscopes = ['read', 'write']\nhosts = ['*']";
    std::fs::write(&file, principals).unwrap();
    let registry = RegistryProcess::start(&["--principals", file.to_str().unwrap()]).await.unwrap();
    let backup = folder.path().join("backup");
    for (secret, code) in [("admin", 0), ("other", 1)] {
        let token = format!("{secret}-secret-0123456789");
        let words = ["backup", backup.to_str().unwrap(), "--registry-token", &token];
        let done = operate(&registry, &words).await;
        assert_eq!(done.code, Some(code), "{}", done.stderr);
        assert!(
            code == 0 || done.stderr.contains("does not have the scope \"admin\""),
            "{}",
            done.stderr
        );
    }
    for secret in ["admin", "other"] {
        let request = registry.http.post(format!("{}/v1/restore", registry.url));
        let request = request.bearer_auth(format!("{secret}-secret-0123456789"));
        let status = request.json(&json!({"records": []})).send().await.unwrap().status();
        assert_eq!(status.as_u16(), if secret == "admin" { 200 } else { 403 });
    }
}

#[tokio::test]
async fn flags_come_from_a_file_and_the_environment_and_the_command_line_goes_before_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wharf.toml");
    let store = folder.path().join("from-file.redb");
    let text = format!(
        "ttl = '30s'\nstore = '{}'\n[registry]\nlisten = '127.0.0.1:0'\nmax-connections = 100\n[host]\nplugins = 'p'",
        store.display()
    );
    std::fs::write(&file, text).unwrap();
    let start = async |words: &[&str], environment: &[(&str, &str)]| {
        let mut command = tokio::process::Command::new(Process::program().unwrap());
        command.arg("registry").args(words).envs(environment.iter().copied());
        let mut process = Process::run(command).unwrap();
        let url = process.announced("registry").await.unwrap();
        let status: Value = wharf_tests::http_client()
            .unwrap()
            .get(format!("{url}/v1/status"))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        (process, status)
    };
    let config = file.to_str().unwrap();
    let (process, status) = start(&["--config", config], &[]).await;
    assert_eq!((&status["ttlMs"], &status["store"]), (&json!(30_000), &json!("file")));
    assert!(store.exists());
    process.kill().await.unwrap();
    let environment = [("WHARF_CONFIG", config), ("WHARF_TTL", "40s")];
    let (process, status) = start(&["--store", "memory"], &environment).await;
    assert_eq!((&status["ttlMs"], &status["store"]), (&json!(40_000), &json!("memory")));
    process.kill().await.unwrap();
    let (_process, status) = start(&["--ttl=50s", "--store", "memory"], &environment).await;
    assert_eq!(status["ttlMs"], 50_000);
    // Other commands take nothing of it.
    std::fs::write(&file, "lisen = '127.0.0.1:0'").unwrap();
    let wrong = wharf(&["registry", "--config", config]).await.unwrap();
    assert_eq!(wrong.code, Some(2));
    let says = "'lisen' is no flag of 'wharf registry': see 'wharf registry --help'";
    assert!(wrong.stderr.contains(says), "{}", wrong.stderr);
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let text =
        format!("registry = 'none'\nlisten = '127.0.0.1:0'\nplugins = '{}'", plugins.display());
    std::fs::write(&file, text).unwrap();
    let mut host = Process::start(&["host", "--config", config]).unwrap();
    host.announced("host").await.unwrap();
    host.kill().await.unwrap();
    std::fs::write(&file, "listen = ").unwrap();
    let wrong = wharf(&["host", "--config", config]).await.unwrap();
    assert!(wrong.code == Some(2) && wrong.stderr.contains("line 1"), "{}", wrong.stderr);
    std::fs::write(&file, "listen = 'nowhere'").unwrap();
    let wrong = wharf(&["registry", "--config", config]).await.unwrap();
    assert!(wrong.code == Some(2) && wrong.stderr.contains("--listen"), "{}", wrong.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_when_a_server_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let plugins = plugins.to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0"];
    for words in [
        vec!["registry"],
        vec!["host", "--registry", "none", "--plugins", plugins],
        vec!["up", "--registry-listen", "127.0.0.1:0", "--plugins", plugins],
    ] {
        let notify = [("NOTIFY_SOCKET", path.to_str().unwrap())];
        let words = [&words[..], &listen].concat();
        let process = Process::start_with(&words, &notify).unwrap();
        let told = || {
            let mut text = [0; 200];
            let length = socket.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..length]).trim().to_owned()
        };
        let told = async || tokio::task::block_in_place(told);
        assert_eq!(told().await, "READY=1", "{words:?}");
        process.signal("TERM").unwrap();
        assert_eq!(told().await, "STOPPING=1", "{words:?}");
        assert!(process.ended().await.unwrap().0.success());
    }
}

#[tokio::test]
async fn the_process_itself_is_measured() {
    let registry = RegistryProcess::start(&[]).await.unwrap();
    for series in ["process_resident_memory_bytes", "process_open_fds", "process_cpu_seconds_total"]
    {
        assert!(registry.metric(series).await.is_some(), "{series}");
    }
    eventually("files that can be open", async || {
        registry.metric("process_max_fds").await.filter(|most| *most >= 1024.0)
    })
    .await
    .unwrap();
}
