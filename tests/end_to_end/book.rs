//! The book in `docs/`: every command in it is run in its order, on a machine of its own, and says what
//! the book says. What else is code in it is a file that these commands use, or is checked for itself.
//!
//! - A block `console` has commands behind `$ `, and what they print. `...` stands for anything, alone on a
//!   line for any lines. A command prints nothing else, and ends well unless a line `# exits with N` follows.
//! - A block with `file=PATH` is written to that file when its turn comes.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wharf_tests::{Alone, Finished, Process, eventually, guest, plugin, run_command};

/// How long something may take to become true that a command shows, such as a file that is loaded.
const PATIENCE: Duration = Duration::from_secs(60);

/// A block of code in a chapter.
struct Block {
    language: String,
    file: Option<String>,
    text: String,
}

fn chapter(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn blocks(chapter: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in chapter.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => block.text.push_str(&format!("{line}\n")),
            (None, Some(info)) => {
                let (language, rest) = info.split_once(',').unwrap_or((info, ""));
                let file = rest.strip_prefix("file=").map(str::to_owned);
                open = Some(Block { language: language.to_owned(), file, text: String::new() });
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// A command of a `console` block, and what it is to print.
struct Line {
    command: String,
    code: i32,
    expected: Vec<String>,
}

fn lines(block: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            let command = command.trim().to_owned();
            lines.push(Line { command, code: 0, expected: Vec::new() });
        } else {
            let last = lines.last_mut().unwrap_or_else(|| panic!("no command before '{line}'"));
            match last.command.strip_suffix('\\') {
                _ if line.starts_with("# exits with ") => {
                    last.code = line["# exits with ".len()..].trim().parse().unwrap();
                }
                Some(begun) => last.command = format!("{begun}{}", line.trim_start()),
                None => last.expected.push(line.to_owned()),
            }
        }
    }
    lines
}

/// Whether an output is what the book shows of it.
fn is_shown(output: &[&str], expected: &[String]) -> bool {
    match (output, expected) {
        (_, [any]) if any == "..." => true,
        (_, [any, rest @ ..]) if any == "..." => {
            (0..=output.len()).any(|skipped| is_shown(&output[skipped..], rest))
        }
        ([line, lines @ ..], [wanted, rest @ ..]) => fits(line, wanted) && is_shown(lines, rest),
        ([], []) => true,
        _ => false,
    }
}

/// The same for one line.
fn fits(line: &str, wanted: &str) -> bool {
    let (line, wanted) = (line.trim_end(), wanted.trim_end());
    let Some((first, rest)) = wanted.split_once("...") else { return line == wanted };
    let Some(mut left) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split("...").collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

/// Somebody who follows a chapter.
struct Reader {
    machine: Alone,
    folder: TempDir,
    /// Where the shell is.
    at: PathBuf,
    servers: Vec<Process>,
}

impl Reader {
    fn new() -> Option<Self> {
        let machine = Alone::if_possible()?;
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap();
        // What readers have installed, and what they would fetch.
        std::fs::create_dir_all(root.join("programs")).unwrap();
        let npm = "#!/bin/sh\nif [ \"$1\" = install ]; then exec ln -sfn \"$NODE_MODULES\" node_modules; fi\nPATH=${PATH#*:} exec npm \"$@\"\n";
        std::fs::write(root.join("programs/npm"), npm).unwrap();
        use std::os::unix::fs::PermissionsExt;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(root.join("programs/npm"), executable).unwrap();
        std::fs::create_dir_all(root.join("work/plugins")).unwrap();
        let crates = [
            ("wharf-bindgen", "sdk/bindgen"),
            ("wharf-client", "sdk/client"),
            ("wharf-gob", "sdk/gob"),
            ("wharf-guest", "sdk/guest"),
            ("wharf-net", "sdk/net"),
            ("wharf-registry-api", "registry/api"),
            ("wharf-schema", "sdk/schema"),
            ("wharf-wire", "sdk/wire"),
        ];
        let patches: String = crates
            .iter()
            .map(|(name, path)| format!("{name}.path = \"{}\"\n", repository.join(path).display()))
            .collect();
        std::fs::create_dir_all(root.join("work/.cargo")).unwrap();
        let patches = format!("[patch.crates-io]\n{patches}");
        std::fs::write(root.join("work/.cargo/config.toml"), patches).unwrap();
        for (name, bytes) in
            [("arith.wasm", plugin("arith").unwrap()), ("textkit.wasm", plugin("textkit").unwrap())]
        {
            std::fs::write(root.join("work").join(name), bytes).unwrap();
        }
        let at = root.join("work");
        Some(Reader { machine, folder, at, servers: Vec::new() })
    }

    /// A command in a shell on that machine.
    fn shell(&self, command: &str) -> tokio::process::Command {
        let root = self.folder.path();
        let own = std::env::current_exe().unwrap();
        let target = own.ancestors().nth(3).unwrap();
        let wharf = Process::program().unwrap();
        let mut shell = self.machine.command("bash");
        let path = [
            root.join("programs"),
            wharf.parent().unwrap().to_owned(),
            target.join("tools/python/bin"),
        ];
        let system = std::env::var_os("PATH").unwrap();
        let path = path.into_iter().chain(std::env::split_paths(&system));
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        let of_rust = |name: &str, usual: &str| {
            std::env::var_os(name).map_or_else(|| home.join(usual), PathBuf::from)
        };
        shell.env("PATH", std::env::join_paths(path).unwrap());
        shell.env("CARGO_HOME", of_rust("CARGO_HOME", ".cargo"));
        shell.env("RUSTUP_HOME", of_rust("RUSTUP_HOME", ".rustup"));
        shell.env("CARGO_TARGET_DIR", target.join("outsider")).env("CARGO_NET_OFFLINE", "true");
        shell.env("NODE_MODULES", target.join("tools/javascript/node_modules"));
        shell.env("HOME", root).env("GOCACHE", root.join("go-cache")).env_remove("XDG_CACHE_HOME");
        for name in ["WHARF_LOG", "WHARF_REGISTRY", "WHARF_TOKEN", "RUST_BACKTRACE", "CI"] {
            shell.env_remove(name);
        }
        let command = format!("{command}\ncode=$?; pwd > {}; exit $code", self.place().display());
        shell.args(["-c", &command]).current_dir(&self.at);
        shell.into()
    }

    /// Where a shell says in which folder it has ended.
    fn place(&self) -> PathBuf {
        self.folder.path().join("place")
    }

    async fn run(&mut self, command: &str) -> Finished {
        let together = format!("exec 2>&1\n{command}");
        let done = run_command(&mut self.shell(&together)).await.unwrap();
        let place = std::fs::read_to_string(self.place()).unwrap();
        self.at = PathBuf::from(place.trim());
        done
    }

    /// Starts a server, and waits until it says where it is.
    async fn start(&mut self, command: &str) {
        let mut shell = self.shell(&format!("exec env {command}"));
        shell.stdin(Stdio::null());
        let mut server = Process::run(shell).unwrap();
        let key = if command.contains("wharf registry") { "registry" } else { "host" };
        server.announced(key).await.unwrap_or_else(|error| panic!("{command}: {error:?}"));
        self.servers.push(server);
    }

    async fn follow(&mut self, line: &Line) {
        if let Some(server) = line.command.strip_suffix('&') {
            return self.start(server.trim()).await;
        }
        let start = Instant::now();
        loop {
            let done = self.run(&line.command).await;
            let printed: Vec<&str> = done.stdout.lines().collect();
            let is_right = done.code == Some(line.code)
                && (line.expected.is_empty() || is_shown(&printed, &line.expected));
            if is_right {
                return;
            }
            // A file that was dropped just now may not be loaded yet.
            let asks = ["wharf call", "wharf services", "wharf describe", "curl", "wharf health"];
            let may_become_true = asks.iter().any(|ask| line.command.starts_with(ask));
            assert!(
                may_become_true && start.elapsed() < PATIENCE,
                "$ {}\nended with {:?}, and printed\n{}\nThe book says\n{}",
                line.command,
                done.code,
                done.stdout,
                line.expected.join("\n")
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Does all that a chapter says.
async fn read(name: &str) {
    let Some(mut reader) = Reader::new() else { return };
    let mut commands = 0;
    for block in blocks(&chapter(name)) {
        if let Some(file) = &block.file {
            let path = reader.at.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &block.text).unwrap();
            continue;
        }
        match block.language.as_str() {
            "console" => {
                for line in lines(&block.text) {
                    reader.follow(&line).await;
                    commands += 1;
                }
            }
            "json" => drop(serde_json::from_str::<serde_json::Value>(&block.text).unwrap()),
            "mermaid" | "text" => {}
            other => panic!("{name}: who checks a block '{other}' without file=?"),
        }
    }
    assert!(commands > 0, "{name} has nothing to do");
    for server in reader.servers {
        server.terminate().await.unwrap();
    }
}

macro_rules! chapters {
    ($($test:ident: $file:literal;)*) => {
        $(
            #[tokio::test]
            async fn $test() {
                read($file).await;
            }
        )*

        /// The chapters that are run.
        const RUN: &[&str] = &[$($file),*];
    };
}

chapters! {
    what_the_first_service_in_rust_needs: "first-service/rust.md";
    what_the_first_service_in_python_needs: "first-service/python.md";
    what_the_first_service_in_javascript_needs: "first-service/javascript.md";
    what_the_first_service_in_c_needs: "first-service/c.md";
    how_to_call: "calling.md";
    how_values_look_in_json: "json.md";
    how_to_limit_and_grant: "limits-and-grants.md";
    how_versions_are_swapped: "swapping.md";
    how_to_secure: "security.md";
    how_to_operate: "operating.md";
    what_is_measured: "metrics.md";
}

/// Chapters without commands, and the one that another test runs.
const TOLD: &[&str] = &[
    "introduction.md",
    "secure-a-fleet.md",
    "state.md",
    "defended.md",
    "registry.md",
    "protocol.md",
    "splicing.md",
    "comparison.md",
    "faq.md",
    "glossary.md",
];

#[test]
fn each_chapter_is_in_the_table_of_contents_and_is_checked() {
    let summary = chapter("SUMMARY.md");
    let mut listed: Vec<&str> =
        summary.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    listed.sort_unstable();
    let mut checked: Vec<&str> = RUN.iter().chain(TOLD).copied().collect();
    checked.sort_unstable();
    assert_eq!(listed, checked);
    for name in TOLD.iter().filter(|name| **name != "secure-a-fleet.md") {
        for block in blocks(&chapter(name)) {
            let language = block.language;
            assert!(["text", "mermaid"].contains(&language.as_str()), "{name}: '{language}'");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for name in RUN.iter().chain(TOLD) {
        let text = chapter(name);
        for link in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
            if link.starts_with("http") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => docs.join(name),
                path => docs.join(name).parent().unwrap().join(path),
            };
            assert!(target.exists(), "{name}: {link}");
            // Beyond the book, its pages have no neighbours.
            let inside = target.canonicalize().unwrap().starts_with(docs.canonicalize().unwrap());
            assert!(inside, "{name}: {link} leaves the book");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let known: Vec<String> = headings.map(anchor_of).collect();
                assert!(known.iter().any(|known| known == anchor), "{name}: {link} of {known:?}");
            }
        }
    }
}

/// The anchor that a heading has.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || "- _".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn what_the_book_shows_is_compared_line_by_line() {
    let expected = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(is_shown(&["a", "b 7 c"], &expected("a\nb ... c")));
    assert!(is_shown(&["x", "y", "b"], &expected("...\nb")));
    assert!(is_shown(&["b", "x"], &expected("b\n...")));
    assert!(!is_shown(&["a", "b"], &expected("a")));
    assert!(!is_shown(&["a"], &expected("a\nb")));
    assert!(!is_shown(&["b 7 d"], &expected("b ... c")));
    assert!(is_shown(&["b 7 c 8"], &expected("b ... c ...")));
    assert!(!is_shown(&["b 7 d 8"], &expected("b ... c ...")));
}

/// The names of the metrics in a text: words that begin with `wharf_`.
fn metrics_in(text: &str) -> std::collections::BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !is_name(c)).filter(|word| word.starts_with("wharf_"));
    let plain = |word: &str| {
        let word = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| word.strip_suffix(end))
            .unwrap_or(word);
        word.to_owned()
    };
    words.map(plain).collect()
}

#[tokio::test]
async fn every_metric_is_in_the_book_and_dashboards_ask_for_no_other() {
    let rogue = guest("rogue").unwrap();
    let on = wharf_tests::Wharf::up(&[("rogue.wasm", &rogue)], &[]).await.unwrap();
    let client = on.client().await.unwrap();
    client.call::<_, ()>("rogue.panic", "on purpose").await.unwrap_err();
    let mut there = std::collections::BTreeSet::new();
    for url in [&on.http, &on.registry] {
        let text = eventually("metrics", async || {
            let (_, text) = wharf_tests::get(&format!("{url}/metrics")).await.ok()?;
            (url == &on.registry || text.contains("wharf_traps_total")).then_some(text)
        })
        .await
        .unwrap();
        let helped = text.lines().filter_map(|line| line.strip_prefix("# HELP "));
        there.extend(metrics_in(
            &helped.map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>().join(" "),
        ));
    }
    let book = metrics_in(&chapter("metrics.md"));
    assert_eq!(book, there, "the book's metrics are those that there are");
    for dashboard in ["host.json", "registry.json"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana").join(dashboard);
        let text = std::fs::read_to_string(path).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        let panels = parsed["panels"].as_array().unwrap();
        assert!(panels.len() >= 6, "{dashboard}");
        for panel in panels {
            for target in panel["targets"].as_array().unwrap() {
                let asked = metrics_in(target["expr"].as_str().unwrap());
                assert!(!asked.is_empty() && asked.is_subset(&there), "{dashboard}: {asked:?}");
            }
        }
    }
}
