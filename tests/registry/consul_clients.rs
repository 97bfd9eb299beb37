//! Others' clients of Consul, which register a service, report it, see it and withdraw it.

use std::path::Path;

use tokio::process::Command;
use wharf_tests::{RegistryProcess, go_program, installed, run_command, tool};

async fn registry(folder: &tempfile::TempDir) -> RegistryProcess {
    let store = folder.path().join("registry.redb");
    RegistryProcess::start(&["--store", store.to_str().unwrap()]).await.unwrap()
}

/// Runs a program that ends with `well` if all was as it wants.
async fn goes_well(command: &mut Command) {
    let done = run_command(command).await.unwrap();
    assert!(
        done.code == Some(0) && done.stdout.ends_with("well\n"),
        "{}{}",
        done.stdout,
        done.stderr
    );
}

const PYTHON: &str = r#"
import sys, threading
sys.path.insert(0, sys.argv[2])
import consul
host, port = sys.argv[1].split(":")
client = consul.Consul(host=host, port=int(port))
check = consul.Check.ttl("30s")
assert client.agent.service.register("py_web", service_id="py-1", address="127.0.0.1", port=8080,
                                     tags=["blue"], check=check)
index, nodes = client.health.service("py_web")
assert [c["Status"] for c in nodes[0]["Checks"]] == ["passing", "critical"], nodes
seen = []
def watch():
    seen.append(client.health.service("py_web", index=index, wait="20s", passing=True))
watching = threading.Thread(target=watch)
watching.start()
assert client.agent.check.ttl_pass("service:py-1", notes="fine")
watching.join()
_, nodes = seen[0]
assert nodes[0]["Service"]["ID"] == "py-1" and nodes[0]["Service"]["Tags"] == ["blue"], nodes
assert client.agent.services()["py-1"]["Port"] == 8080
assert client.agent.checks()["service:py-1"]["Output"] == "fine"
assert client.agent.check.ttl_warn("service:py-1")
assert client.agent.check.ttl_fail("service:py-1", notes="no")
assert client.health.service("py_web", passing=True)[1] == []
assert client.health.state("critical")[1][0]["CheckID"] == "service:py-1"
assert client.agent.service.maintenance("py-1", "true", "a new disk")
assert client.agent.service.maintenance("py-1", "false")
assert client.agent.check.register("second", check=consul.Check.tcp("127.0.0.1", 8080, "10s"),
                                   check_id="second", service_id="py-1")
assert client.agent.check.deregister("second")
assert client.catalog.services()[1] == {"py_web": ["blue"]}
assert client.agent.members()[0]["Name"] == "wharf-registry"
assert client.agent.service.deregister("py-1")
assert client.catalog.services()[1] == {}
assert client.catalog.register("rack", "10.0.0.9", service={"Service": "mail", "Port": 25})
assert client.catalog.node("rack")[1]["Services"]["mail"]["Port"] == 25
assert client.catalog.deregister("rack")
for not_there in [lambda: client.kv.get("a"), lambda: client.session.list()]:
    try:
        not_there()
        sys.exit("it was not said that this is not there")
    except consul.ConsulException as error:
        assert "does not have" in str(error), error
print("well")
"#;

#[tokio::test]
async fn python_consul_registers_passes_watches_and_deregisters() {
    let Some(python) = installed("python3", "Debian: python3") else { return };
    let Some(library) = tool("python-consul").unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(&folder).await;
    let mut command = Command::new(python);
    command.args(["-c", PYTHON, registry.address()]).arg(library);
    goes_well(&mut command).await;
}

const JAVASCRIPT: &str = r#"
import Consul from "consul";
import assert from "node:assert";
const [host, port] = process.argv[2].split(":");
const consul = new Consul({ host, port: Number(port) });
await consul.agent.service.register({ id: "js-1", name: "js_web", address: "127.0.0.1", port: 8080,
  tags: ["blue"], meta: { zone: "z1" }, check: { ttl: "30s", deregistercriticalserviceafter: "5m" } });
let list = await consul.health.service({ service: "js_web" });
assert.deepEqual(list[0].Checks.map(c => c.Status), ["passing", "critical"]);
assert.equal(list[0].Service.Meta.zone, "z1");
const watch = consul.watch({ method: consul.health.service, options: { service: "js_web", passing: true } });
const seen = new Promise((resolve, reject) => {
  watch.on("change", data => { if (data.length == 1) resolve(data); });
  watch.on("error", reject);
});
await consul.agent.check.pass({ id: "service:js-1", note: "fine" });
assert.equal((await seen)[0].Service.ID, "js-1");
watch.end();
assert.equal((await consul.agent.services())["js-1"].Port, 8080);
assert.equal((await consul.agent.check.list())["service:js-1"].Output, "fine");
await consul.agent.check.warn("service:js-1");
await consul.agent.check.fail("service:js-1");
assert.deepEqual(await consul.health.service({ service: "js_web", passing: true }), []);
assert.equal((await consul.health.state("critical"))[0].CheckID, "service:js-1");
await consul.agent.service.maintenance({ id: "js-1", enable: true, reason: "a new disk" });
await consul.agent.service.maintenance({ id: "js-1", enable: false });
assert.equal(await consul.status.leader(), "127.0.0.1:8300");
assert.deepEqual(await consul.catalog.datacenters(), ["dc1"]);
await consul.agent.service.deregister("js-1");
assert.deepEqual(await consul.catalog.service.list(), {});
await assert.rejects(consul.kv.get("a"), /Not Implemented|not implemented|does not have/i);
console.log("well");
process.exit(0);
"#;

#[tokio::test]
async fn npm_s_consul_registers_passes_watches_and_deregisters() {
    let Some(node) = installed("node", "Debian: nodejs") else { return };
    let Some(library) = tool("consul/node_modules").unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(&folder).await;
    std::os::unix::fs::symlink(library, folder.path().join("node_modules")).unwrap();
    let script = folder.path().join("script.mjs");
    std::fs::write(&script, JAVASCRIPT).unwrap();
    goes_well(Command::new(node).arg(script).arg(registry.address())).await;
}

#[tokio::test]
async fn a_go_client_registers_passes_watches_and_deregisters() {
    let library = Path::new("/usr/share/gocode/src/github.com/armon/consul-api");
    if !library.is_dir() {
        assert!(
            std::env::var_os("CI").is_none(),
            "the Go client is not installed, and CI skips nothing"
        );
        eprintln!("skipped: no Go client of Consul (Debian: golang-github-armon-consul-api-dev)");
        return;
    }
    let Some(program) = go_program("consul").await.unwrap() else { return };
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(&folder).await;
    goes_well(Command::new(program).arg(registry.address())).await;
}
