//! The guide `docs/secure-a-fleet.md`: each of its commands is run, in its order.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use wharf_tests::{EtcdCluster, Process, eventually, free_port, installed, plugin, run_command};

const GUIDE: &str = include_str!("../../docs/secure-a-fleet.md");

/// What stands in the guide's blocks of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let parts = GUIDE.split(language).skip(1);
    parts.map(|part| part.split("\n```").next().unwrap()).collect()
}

/// A shell command in a folder, in which `wharf` is the one that was built.
fn shell(folder: &Path, command: &str) -> Command {
    let program = Process::program().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(folder);
    shell.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
    shell.stdin(Stdio::null());
    shell
}

#[tokio::test]
async fn every_command_of_the_guide_does_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::create_dir(folder.join("plugins")).unwrap();
    std::fs::write(folder.join("plugins/arith.wasm"), plugin("arith").unwrap()).unwrap();
    for block in blocks("```toml\n") {
        std::fs::write(folder.join("principals.toml"), block).unwrap();
    }
    let etcd = EtcdCluster::start(1).await.unwrap();
    let store = etcd.as_ref().map_or("memory".to_owned(), EtcdCluster::store);
    let (registry, second, host) =
        (free_port().unwrap(), free_port().unwrap(), free_port().unwrap());
    let here = |command: &str, token: &str| {
        command
            .replace("10.0.0.2:8500", &format!("127.0.0.1:{registry}"))
            .replace("10.0.0.3:8500", &format!("127.0.0.1:{second}"))
            .replace("0.0.0.0:7400", &format!("127.0.0.1:{host}"))
            .replace("10.0.0.7:7400", &format!("127.0.0.1:{host}"))
            .replace(":7400:10.0.0.7", &format!(":{host}:127.0.0.1"))
            .replace(".internal:7400/", &format!(".internal:{host}/"))
            .replace("etcd://10.0.0.4:2379", &store)
            .replace("TOKEN", token)
    };
    let mut commands: Vec<&str> = blocks("```sh\n").into_iter().flat_map(str::lines).collect();
    // It needs the usual ports. The test of `up --secure` runs it on others.
    assert_eq!(commands.remove(0), "wharf up --secure");
    let (mut token, mut servers, mut results) = (String::new(), Vec::new(), Vec::new());
    for command in commands {
        let there = here(command, &token);
        let is_server = command.starts_with("wharf registry") || command.starts_with("wharf host");
        if is_server {
            let more = if command.starts_with("wharf host") { " --http-listen none" } else { "" };
            let mut server = Process::run(shell(folder, &format!("exec {there}{more}"))).unwrap();
            let key = command.split(' ').nth(1).unwrap();
            server.announced(key).await.unwrap_or_else(|error| panic!("{there}: {error:?}"));
            servers.push(server);
            continue;
        }
        if command.starts_with("curl") && installed("curl", "Debian: curl").is_none() {
            continue;
        }
        // What was started just now may not be in the registry's list yet.
        let done = eventually(command, async || {
            let done = run_command(&mut shell(folder, &there)).await.unwrap();
            let is_call = command.contains("rith");
            (done.code == Some(0) || !is_call).then_some(done)
        })
        .await
        .unwrap();
        assert_eq!(done.code, Some(0), "{there}: {done:?}");
        let said = done.stdout.trim().to_owned();
        if command.starts_with("wharf identity token") {
            token = said;
        } else {
            results.push(said);
        }
    }
    assert_eq!(servers.len(), 3);
    let products = results.iter().filter(|said| *said == "56").count();
    assert!(products == 2 || installed("curl", "Debian: curl").is_none(), "{results:?}");
    assert!(results.iter().any(|said| said.contains("'demo:arith/*'")), "{results:?}");
}
