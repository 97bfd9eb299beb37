//! How close is a call to a bare socket, and how does it compare with its peers? All run side by
//! side in one run, and the results are ratios.
//!
//! Each peer has one runtime for its server and one for its callers, as in two processes, with the
//! same settings for all. Rounds alternate between peers, and the median counts, because machines
//! are noisy. net/rpc runs in two Go processes, if there is a Go toolchain.
//!
//! `--only NAME` measures one peer, `--load TEXT` the loads whose names contain the text.
//! `--rounds N` and `--milliseconds N` set the duration.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a bench fails by panicking")]

mod callers;
mod draw;
mod load;
#[allow(dead_code, reason = "the bench of the doors uses all of it")]
mod netrpc;
mod raw;
mod report;
mod tarpc;
mod tonic;
mod wharf;

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use self::load::{Load, Round};
use self::report::Report;

/// The allocator of the `wharf` binary. All peers in this process use it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The two sides of a peer: the threads of its server, and those of its callers.
struct Sides {
    server: Runtime,
    callers: Runtime,
}

/// A peer to measure.
enum Peer {
    Raw(raw::Peer),
    Wharf(wharf::Peer),
    Tarpc(tarpc::Peer),
    Tonic(tonic::Peer),
    NetRpc(netrpc::Peer),
}

impl Peer {
    /// All peers that this machine can run, or the one that is asked for.
    fn start(sides: &Sides, only: Option<&str>) -> Vec<(&'static str, Peer)> {
        let wanted = |name| only.is_none_or(|only| only == name);
        let mut peers = Vec::new();
        if wanted("raw") {
            peers.push(("raw", Peer::Raw(raw::Peer::start(sides))));
        }
        if wanted("wharf") {
            peers.push(("wharf", Peer::Wharf(wharf::Peer::start(sides))));
        }
        if wanted("tarpc") {
            peers.push(("tarpc", Peer::Tarpc(tarpc::Peer::start(sides))));
        }
        if wanted("tonic") {
            peers.push(("tonic", Peer::Tonic(tonic::Peer::start(sides))));
        }
        if wanted("net/rpc") {
            match netrpc::Built::build() {
                Some(built) => peers.push(("net/rpc", Peer::NetRpc(built.of_go()))),
                None => eprintln!(
                    "skipped: there is no Go toolchain (Debian: golang-go), so Go's net/rpc is not measured"
                ),
            }
        }
        peers
    }

    fn run(&mut self, sides: &Sides, load: &Load, length: Duration) -> Round {
        match self {
            Peer::Raw(peer) => sides.callers.block_on(peer.run(load, length)),
            Peer::Wharf(peer) => sides.callers.block_on(peer.run(load, length)),
            Peer::Tarpc(peer) => sides.callers.block_on(peer.run(load, length)),
            Peer::Tonic(peer) => sides.callers.block_on(peer.run(load, length)),
            Peer::NetRpc(peer) => peer.run(load, length),
        }
    }
}

/// What the command line says.
struct Settings {
    rounds: u64,
    length: Duration,
    only: Option<String>,
    load: String,
}

impl Settings {
    fn read() -> Self {
        let arguments: Vec<String> = std::env::args().collect();
        let after = |name: &str| {
            let at = arguments.iter().position(|argument| argument == name)?;
            arguments.get(at + 1).cloned()
        };
        // `cargo test --benches` only checks that it runs.
        let quick = arguments.iter().any(|argument| argument == "--test");
        let number = |name, usual| after(name).map_or(usual, |text| text.parse().unwrap());
        Settings {
            rounds: number("--rounds", if quick { 1 } else { 11 }),
            length: Duration::from_millis(number("--milliseconds", if quick { 20 } else { 600 })),
            only: after("--only"),
            load: after("--load").unwrap_or_default(),
        }
    }
}

fn main() {
    let settings = Settings::read();
    let runtime =
        |name: &str| Builder::new_multi_thread().thread_name(name).enable_all().build().unwrap();
    let sides = Sides { server: runtime("server"), callers: runtime("callers") };
    let mut peers = Peer::start(&sides, settings.only.as_deref());
    let mut report = Report::new(peers.iter().map(|(name, _)| *name).collect());
    for load in Load::all().filter(|load| load.name().contains(&settings.load)) {
        let mut rounds: Vec<Vec<Round>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..settings.rounds {
            for ((_, peer), rounds) in peers.iter_mut().zip(&mut rounds) {
                rounds.push(peer.run(&sides, &load, settings.length));
            }
        }
        report.add(&load, rounds);
    }
    if settings.only.is_none() && settings.load.is_empty() {
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        report.write(&folder.join("calls.json"));
        draw::draw(&report, &folder.join("calls.svg"));
        println!("written: calls.json and calls.svg in {}", folder.display());
    }
    for (_, peer) in peers {
        if let Peer::Wharf(peer) = peer {
            peer.end(&sides);
        }
    }
}
