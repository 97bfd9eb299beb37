//! What an installation has: files, completions, man pages, units; and an image with nothing else in it.

use std::path::{Path, PathBuf};

use tokio::process::Command;
use wharf_tests::{Process, Wharf, installed, plugin, run_command, wharf};

/// Runs `make install` for this prefix.
async fn install(prefix: &Path) {
    let mut make = Command::new("make");
    make.arg("install").arg(format!("PREFIX={}", prefix.display()));
    make.arg(format!("BINARY={}", Process::program().unwrap().display()));
    make.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    let done = run_command(&mut make).await.unwrap();
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
}

#[tokio::test]
async fn an_installation_has_a_page_for_each_command_and_units_that_systemd_accepts() {
    let prefix = tempfile::tempdir().unwrap();
    install(prefix.path()).await;
    let read = |file: &str| std::fs::read_to_string(prefix.path().join(file)).unwrap();
    let page = read("share/man/man1/wharf-call.1");
    assert!(
        page.contains(".SH EXTRA") && page.contains("wharf call arith.multiply a=7 b=8"),
        "{page}"
    );
    let help = wharf(&["--help"]).await.unwrap().stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.contains(&"up") && names.contains(&"new"), "{help}");
    for name in names.iter().filter(|name| **name != "help") {
        let page = prefix.path().join(format!("share/man/man1/wharf-{name}.1"));
        assert!(page.exists(), "{}", page.display());
    }
    for (file, words) in [
        ("share/bash-completion/completions/wharf", "complete -o"),
        ("share/zsh/site-functions/_wharf", "#compdef wharf"),
        ("share/fish/vendor_completions.d/wharf.fish", "complete "),
        ("share/doc/wharf/examples/host.toml", "plugins = "),
    ] {
        assert!(read(file).contains(words), "{file}");
    }
    let Some(analyze) = installed("systemd-analyze", "Debian: systemd") else { return };
    for unit in ["wharf-host", "wharf-registry"] {
        let path = prefix.path().join(format!("lib/systemd/system/{unit}.service"));
        let mut verify = Command::new(&analyze);
        let done = run_command(verify.args(["verify", "--man=no"]).arg(&path)).await.unwrap();
        assert_eq!((done.code, &done.stderr[..]), (Some(0), ""), "{unit}");
        let mut security = Command::new(&analyze);
        security.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(&path);
        let done = run_command(&mut security).await.unwrap();
        assert_eq!(done.code, Some(0), "{unit}: {}{}", done.stdout, done.stderr);
    }
}

#[tokio::test]
async fn the_examples_of_configuration_are_ones_that_servers_take() {
    let folder = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../host/cli/systemd");
    for (server, key) in [("host", "plugins"), ("registry", "store")] {
        let text = std::fs::read_to_string(root.join(format!("{server}.toml"))).unwrap();
        // The paths of a system, and its ports, are not this test's.
        let other = |line: &str| match line.split_once(" = ") {
            Some((name, _)) if name == key => {
                format!("{key} = \"{}\"", folder.path().join("x").display())
            }
            Some((name, _)) if name.ends_with("listen") => format!("{name} = \"127.0.0.1:0\""),
            Some(("registry", _)) => "registry = \"none\"".to_owned(),
            _ => line.to_owned(),
        };
        let text: Vec<String> = text.lines().map(other).collect();
        let file = folder.path().join(format!("{server}.toml"));
        std::fs::write(&file, text.join("\n")).unwrap();
        if server == "host" {
            std::fs::create_dir(folder.path().join("x")).unwrap();
        } else {
            std::fs::remove_dir(folder.path().join("x")).unwrap();
        }
        let mut process = Process::start(&[server, "--config", file.to_str().unwrap()]).unwrap();
        process.announced(server).await.unwrap();
        let (status, _) = process.terminate().await.unwrap();
        assert!(status.success(), "{server}");
    }
}

#[tokio::test]
async fn a_shell_completes_commands_services_and_methods() {
    let Some(bash) = installed("bash", "Debian: bash") else { return };
    let on = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let program = Process::program().unwrap();
    let complete = async |line: &str| {
        let words = line.split(' ').count() - 1;
        let script = format!(
            "source <(wharf completions bash); COMP_WORDS=({line}); COMP_CWORD={words}; COMP_TYPE=9; \
             _clap_complete_wharf wharf \"${{COMP_WORDS[{words}]}}\" x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let mut shell = Command::new(&bash);
        let path = std::env::var("PATH").unwrap();
        shell.env("PATH", format!("{}:{path}", program.parent().unwrap().display()));
        shell.env("WHARF_REGISTRY", &on.registry);
        let done = run_command(shell.args(["-c", &script])).await.unwrap();
        assert_eq!(done.stderr, "", "{line}");
        done.stdout
    };
    assert_eq!(complete("wharf desc").await, "describe\n");
    assert_eq!(complete("wharf describe ar").await, "arith\n");
    assert_eq!(complete("wharf call ar").await, "arith.\n");
    assert_eq!(complete("wharf call arith.m").await, "arith.multiply\n");
    assert_eq!(complete("wharf call nothing.m").await.trim(), "");
}

#[tokio::test]
async fn the_version_is_told_for_scripts() {
    let version = wharf(&["version", "--json"]).await.unwrap();
    let version: serde_json::Value = serde_json::from_str(&version.stdout).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(version["protocol"]["newest"], wharf_client::PROTOCOL_VERSIONS.1);
}

#[tokio::test]
async fn health_is_an_exit_code() {
    let on = Wharf::up(&[("arith.wasm", &plugin("arith").unwrap())], &[]).await.unwrap();
    let registry = on.registry.strip_prefix("http://").unwrap();
    let http = on.http.strip_prefix("http://").unwrap();
    for (arguments, code, words) in [
        (&["health", http][..], 0, "healthy"),
        (&["health", &on.http], 0, "healthy"),
        (&["health", registry, "--path", "/healthz"], 0, "healthy"),
        (&["health", http, "--path", "/nothing"], 5, "404"),
        (&["health", "127.0.0.1:1"], 5, "it cannot be reached"),
        (&["health", http, "--path", "x"], 2, "write it like /readyz"),
    ] {
        let done = wharf(arguments).await.unwrap();
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.stderr);
        assert!(format!("{}{}", done.stdout, done.stderr).contains(words), "{}", done.stderr);
    }
}

/// The libraries that a program is linked with; a release has none.
async fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = run_command(Command::new("ldd").arg(program)).await.unwrap().stdout;
    let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

#[tokio::test]
async fn the_program_needs_nothing_but_itself() {
    let Some(unshare) = installed("unshare", "Debian: util-linux") else { return };
    let Some(chroot) = installed("chroot", "Debian: coreutils") else { return };
    let root = tempfile::tempdir().unwrap();
    let program = Process::program().unwrap();
    let copy = |from: &Path, to: &str| {
        let to = root.path().join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, to).unwrap();
    };
    copy(&program, "/wharf");
    for library in libraries(&program).await {
        copy(&library, library.to_str().unwrap());
    }
    for folder in ["proc", "cache", "plugins", "tmp"] {
        std::fs::create_dir(root.path().join(folder)).unwrap();
    }
    std::fs::write(root.path().join("plugins/arith.wasm"), plugin("arith").unwrap()).unwrap();
    let mut command = Command::new(unshare);
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child"]);
    command.arg(format!("--mount-proc={}", root.path().join("proc").display()));
    command.arg(chroot).arg(root.path()).args(["/wharf", "up", "--plugins", "/plugins"]);
    command.args(["--listen", "127.0.0.1:0", "--http-listen", "none"]);
    command.args(["--registry-listen", "127.0.0.1:0"]);
    // As the Containerfile has it.
    command.env_clear().env("WHARF_CACHE", "/cache/code").env("TMPDIR", "/tmp");
    let mut inside = Process::run(command).unwrap();
    let registry = inside.announced("registry").await.unwrap();
    let called = wharf(&["call", "--registry", &registry, "arith.multiply", "a=7", "b=8"]).await;
    assert_eq!(called.unwrap().stdout, "56\n");
    assert!(root.path().join("cache/code").read_dir().unwrap().next().is_some());
    inside.kill().await.unwrap();
}
