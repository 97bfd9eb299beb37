//! What an author does: makes a project, builds it, serves it, tries it, changes it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::process::Command;
use wharf_tests::{Finished, Process, Wharf, eventually, installed, run_command, tool};

/// The languages of `wharf new`, each with the program that runs its example of a client.
const LANGUAGES: [&str; 4] = ["rust", "python", "js", "c"];

/// A project that `wharf new` has made.
struct Project {
    folder: TempDir,
    name: &'static str,
}

impl Project {
    /// Makes a project, with the tools that its build needs. `None` if they are not installed.
    async fn new(name: &'static str, language: &str, arguments: &[&str]) -> Option<Self> {
        let modules = match language {
            "python" => tool("python/bin/componentize-py").unwrap().map(|_| None)?,
            "js" => {
                installed("npm", "Debian: nodejs npm")?;
                Some(tool("javascript/node_modules").unwrap()?)
            }
            "c" => {
                installed("clang", "Debian: clang lld wasi-libc")?;
                None
            }
            _ => None,
        };
        let folder = tempfile::tempdir().unwrap();
        let project = Project { folder, name };
        let new = ["new", name, "--lang", language];
        let made = project.run(project.folder.path(), &[&new, arguments].concat()).await;
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        assert!(made.stdout.contains(&format!("cd {name}\n  wharf dev\n")), "{}", made.stdout);
        if let Some(modules) = modules {
            // As npm would install them.
            std::os::unix::fs::symlink(modules, project.path("node_modules")).unwrap();
        }
        if language == "rust" {
            // The versions that this build has fetched already, and what was compiled of them.
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            std::fs::copy(root.join("Cargo.lock"), project.path("Cargo.lock")).unwrap();
            let own = std::env::current_exe().unwrap();
            let target = own.ancestors().nth(3).unwrap().join("authors");
            std::fs::create_dir_all(&target).unwrap();
            std::os::unix::fs::symlink(target, project.path("target")).unwrap();
        }
        Some(project)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(self.name).join(file)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.path(file), text).unwrap();
    }

    /// Replaces a part of a file.
    fn edit(&self, file: &str, from: &str, to: &str) {
        let text = self.read(file);
        assert!(text.contains(from), "{from} is not in\n{text}");
        self.write(file, &text.replace(from, to));
    }

    /// Runs `wharf` in the project's directory.
    async fn wharf(&self, arguments: &[&str]) -> Finished {
        self.run(&self.path(""), arguments).await
    }

    async fn run(&self, folder: &Path, arguments: &[&str]) -> Finished {
        let mut command = Command::new(Process::program().unwrap());
        command.args(arguments).current_dir(folder);
        command.env("PATH", path_with_tools()).env_remove("WHARF_LOG");
        run_command(&mut command).await.unwrap()
    }
}

/// Where builds find componentize-py.
fn path_with_tools() -> std::ffi::OsString {
    let own = std::env::current_exe().unwrap();
    let tools = own.ancestors().nth(3).unwrap().join("tools/python/bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(std::iter::once(tools).chain(std::env::split_paths(&path))).unwrap()
}

/// Makes a project, passes its own test, drops it into a host and calls it, also by its own client.
async fn from_nothing_to_an_answer(language: &str, client: &[&str], clients_file: &str) {
    let Some(project) = Project::new("price-list", language, &[]).await else { return };
    let tested = project.wharf(&["test"]).await;
    assert_eq!(tested.code, Some(0), "{}{}", tested.stdout, tested.stderr);
    let ok = "ok    price-list.greet {\"name\":\"Ada\"}\nok    price-list.greet {\"name\":\"\"}\n\
              2 calls, all as they should be\n";
    assert!(tested.stdout.ends_with(ok), "{}", tested.stdout);

    let file = |name: &str| (name.to_owned(), std::fs::read(project.path(name)).unwrap());
    let dropped = ["price-list.wasm", "price-list.toml"].map(file);
    let dropped = dropped.each_ref().map(|(name, bytes)| (&name[..], &bytes[..]));
    let on = Wharf::up(&dropped, &[]).await.unwrap();
    let call = ["call", "--direct", &on.host, "price-list.greet", "name=Ada"];
    assert_eq!(wharf_tests::wharf(&call).await.unwrap().stdout, "Hello, Ada!\n");
    // The toolchain drops the documentation of the WIT, and the project's build keeps it.
    let described = ["describe", "--direct", &on.host, "price-list"];
    let described = wharf_tests::wharf(&described).await.unwrap().stdout;
    assert!(described.contains("/// A greeting for whoever has this name."), "{described}");

    project.edit(clients_file, "127.0.0.1:7400", &on.host);
    let mut command = Command::new(client[0]);
    // Wherever this build puts what it makes, the project's example is not to lie there.
    command.args(&client[1..]).current_dir(project.path("")).env_remove("CARGO_TARGET_DIR");
    let called = run_command(&mut command).await.unwrap();
    assert!(called.stdout.contains("Hello, Ada!"), "{}{}", called.stdout, called.stderr);
}

#[tokio::test]
async fn a_new_project_in_rust_builds_passes_its_test_and_is_called() {
    let client = ["cargo", "run", "--quiet", "--example", "call"];
    from_nothing_to_an_answer("rust", &client, "examples/call.rs").await;
}

#[tokio::test]
async fn a_new_project_in_python_builds_passes_its_test_and_is_called() {
    from_nothing_to_an_answer("python", &["python3", "call.py"], "call.py").await;
}

#[tokio::test]
async fn a_new_project_in_javascript_builds_passes_its_test_and_is_called() {
    from_nothing_to_an_answer("js", &["node", "call.mjs"], "call.mjs").await;
}

#[tokio::test]
async fn a_new_project_in_c_builds_passes_its_test_and_is_called() {
    from_nothing_to_an_answer("c", &["sh", "call.sh"], "call.sh").await;
}

#[tokio::test]
async fn a_project_starts_from_an_interface_in_every_language() {
    let guests = concat!(env!("CARGO_MANIFEST_DIR"), "/guests");
    for (wit, method, methods) in [
        (format!("{guests}/tongues/tongues.wit"), "tongue.echo", 7),
        (format!("{guests}/zoo/wit"), "zoo.nothing", 16),
        (format!("{guests}/../wit/borrowed"), "till.nothing", 2),
    ] {
        for language in LANGUAGES {
            let arguments = ["--wit", &wit];
            let Some(project) = Project::new("stock", language, &arguments).await else { continue };
            // Nothing is expected of it yet.
            let tested = project.wharf(&["test"]).await;
            let output = format!("{language}: {}{}", tested.stdout, tested.stderr);
            assert_eq!(tested.code, Some(0), "{output}");
            assert!(tested.stdout.ends_with("no calls: write some into calls.toml\n"), "{output}");
            let shown = project.wharf(&["describe", "stock.wasm", "--json"]).await.stdout;
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            let shown = if shown.is_array() { shown } else { serde_json::json!([shown]) };
            let all = shown.as_array().unwrap().iter().map(|s| s["methods"].as_array().unwrap());
            let found = all.map(Vec::len).max().unwrap();
            assert!(found >= methods, "{language}: {found} of {methods} methods");
            // A method that is not written fails, and says so where the language lets it.
            project.write(
                "calls.toml",
                &format!(
                    "[[call]]\nmethod = \"{method}\"\narguments = {{}}\nstatus = \"INTERNAL\"\n"
                ),
            );
            if method.ends_with(".nothing") {
                let tested = project.wharf(&["test", "--no-build"]).await;
                let output = format!("{language}: {}{}", tested.stdout, tested.stderr);
                assert_eq!(tested.code, Some(0), "{output}");
                assert!(
                    language == "c" || output.contains("nothing is not written yet"),
                    "{output}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_call_that_goes_wrong_fails_the_test_with_what_was_expected() {
    let Some(project) = Project::new("hello", "c", &[]).await else { return };
    project.edit("calls.toml", "\"Hello, Ada!\"", "\"Good bye\"");
    let tested = project.wharf(&["test"]).await;
    assert_eq!(tested.code, Some(7), "{}", tested.stderr);
    let expected = "FAIL  hello.greet {\"name\":\"Ada\"} (call 1)\n      expected the result \"Good bye\"\n      \
                    got the result \"Hello, Ada!\"\n";
    assert!(tested.stdout.contains(expected), "{}", tested.stdout);
    assert_eq!(tested.stderr, "error: of 2 calls, 1 went wrong\n");

    project.edit("service.c", "#include \"plugin.h\"", "#include \"plug.h\"");
    let tested = project.wharf(&["test"]).await;
    assert_eq!(tested.code, Some(1), "{}", tested.stderr);
    assert!(tested.stderr.contains("'plug.h' file not found"), "{}", tested.stderr);
    assert!(
        tested.stderr.contains("error: the build failed (exit status: 2): make"),
        "{}",
        tested.stderr
    );
    project.edit("calls.toml", "method", "methud");
    let tested = project.wharf(&["test"]).await;
    assert!(
        tested.stderr.contains("calls.toml, line 4: unknown field `methud`"),
        "{}",
        tested.stderr
    );
}

#[tokio::test]
async fn a_project_that_cannot_be_made_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("there")).unwrap();
    std::fs::write(folder.path().join("bad.wit"), "package a:b; interface c { f: fun(); }")
        .unwrap();
    for (arguments, code, words) in [
        (&["new", "there"][..], 2, "there is there already"),
        (&["new", "Bad Name"], 2, "write words of small letters and digits"),
        (&["new", "record"], 2, "cannot be the name of an interface"),
        (&["new", "calls"], 2, "its sidecar would be calls.toml, which is another file"),
        (&["new", "wharf"], 2, "its sidecar would be wharf.toml"),
        (&["new", "class", "--lang", "python"], 2, "means something else in this language"),
        (&["new", "x", "--wit", "missing.wit"], 4, "there is no WIT at missing.wit"),
        (&["new", "x", "--wit", "bad.wit"], 1, "bad.wit:1:31"),
        (&["new", "x", "--lang", "cobol"], 2, "possible values: rust, python, js, c"),
        (&["dev", "there"], 4, "there has no wharf.toml"),
        (&["test", "there"], 4, "there has no wharf.toml"),
        (&["build", "there"], 4, "there has no wharf.toml"),
    ] {
        let mut command = Command::new(Process::program().unwrap());
        let done = run_command(command.args(arguments).current_dir(folder.path())).await.unwrap();
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.contains(words), "{arguments:?}: {}", done.stderr);
    }
    assert!(!folder.path().join("x").exists());
}

#[tokio::test]
async fn a_served_project_follows_its_sources_and_a_failed_build_leaves_the_old_version() {
    let Some(project) = Project::new("hello", "rust", &[]).await else { return };
    let folder = project.path("").display().to_string();
    let flags =
        ["--listen", "127.0.0.1:0", "--http-listen", "none", "--registry-listen", "127.0.0.1:0"];
    let mut dev = Process::start(&[&["dev", &folder][..], &flags].concat()).unwrap();
    let registry = dev.announced("registry").await.unwrap();
    let greet = async |words: &str| {
        let name = format!("name={words}");
        let call = ["call", "--registry", &registry, "hello.greet", &name];
        wharf_tests::wharf(&call).await.unwrap()
    };
    let answers = async |expected: &str| {
        eventually(expected, async || (greet("Ada").await.stdout == expected).then_some(()))
            .await
            .unwrap();
    };
    answers("Hello, Ada!\n").await;
    dev.says("  demo:hello/hello@0.1.0").await.unwrap();
    dev.says(&format!("    wharf call --registry {registry} hello.greet 'text'")).await.unwrap();
    dev.says("waiting for changes").await.unwrap();

    project.edit("src/lib.rs", "Hello, {name}!", "Hi, {name}!");
    answers("Hi, Ada!\n").await;
    dev.says("waiting for changes").await.unwrap();

    project.edit("src/lib.rs", "Hi, {name}!\")", "Hi, {name}!\") oops");
    dev.logged("error: expected").await.unwrap();
    dev.says("the version before goes on serving").await.unwrap();
    assert_eq!(greet("Ada").await.stdout, "Hi, Ada!\n");

    // The interface changes too, and the service prints and dies.
    project.edit("src/lib.rs", " oops", "");
    project.edit(
        "src/lib.rs",
        "if name.is_empty()",
        "println!(\"greeting {name}\"); assert!(name != \"Bob\"); if name.is_empty()",
    );
    project.edit(
        "src/lib.rs",
        "fn greet(name: String)",
        "fn greet(name: String, _loud: Option<bool>)",
    );
    project.edit("wit/hello.wit", "(name: string)", "(name: string, loud: option<bool>)");
    dev.says("  hello.greet: parameter loud is new, and optional; what was written without a name no longer fits (breaks everybody)")
        .await
        .unwrap();
    let died = greet("Bob").await;
    assert_eq!(died.code, Some(1));
    assert!(died.stderr.contains("its last words were: assertion failed"), "{}", died.stderr);
    dev.logged("greeting Bob").await.unwrap();
    dev.logged("a guest trapped").await.unwrap();
    // What a build has started ends with it.
    project.edit("wharf.toml", "build = \"", "build = \"echo $$ > build.pid; sleep 3600; ");
    let builder = eventually("a build that does not end", async || {
        let text = std::fs::read_to_string(project.path("build.pid")).ok()?;
        text.trim().parse::<u32>().ok()
    })
    .await
    .unwrap();
    let (status, _) = dev.terminate().await.unwrap();
    assert!(status.success());
    let group = format!("/proc/{builder}");
    eventually("the build has ended", async || (!Path::new(&group).exists()).then_some(()))
        .await
        .unwrap();
    eventually("what it had started has ended too", async || {
        let group = builder.to_string();
        let left = run_command(Command::new("pgrep").args(["--pgroup", &group])).await.ok()?;
        left.stdout.is_empty().then_some(())
    })
    .await
    .unwrap();
}
