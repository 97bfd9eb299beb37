//! The figures of a run: as a table, and as JSON.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::load::{Load, Round};

/// The medians of all rounds.
#[derive(Serialize)]
pub(crate) struct Report {
    #[serde(skip)]
    names: Vec<&'static str>,
    pub(crate) loads: Vec<Measured>,
}

#[derive(Serialize)]
pub(crate) struct Measured {
    pub(crate) load: String,
    pub(crate) peers: Vec<Figures>,
}

#[derive(Serialize)]
pub(crate) struct Figures {
    pub(crate) peer: &'static str,
    pub(crate) calls_per_second: f64,
    /// The median latency of a call; `None` if calls are not timed one by one.
    pub(crate) p50_nanoseconds: Option<u64>,
    /// How much faster Wharf is: the ratio of calls per second.
    pub(crate) wharf_ratio: Option<f64>,
}

impl Report {
    /// A report on these peers.
    pub(crate) fn new(names: Vec<&'static str>) -> Self {
        println!("{:<34} {:>8} {:>12} {:>10} {:>12}", "", "", "calls/s", "p50, us", "wharf / it");
        Report { names, loads: Vec::new() }
    }

    /// Adds the results of all peers for a load, and prints them.
    pub(crate) fn add(&mut self, load: &Load, rounds: Vec<Vec<Round>>) {
        let mut peers: Vec<Figures> = Vec::new();
        for (peer, rounds) in self.names.iter().zip(rounds) {
            let calls_per_second = median(rounds.iter().map(Round::calls_per_second).collect());
            let medians: Option<Vec<Duration>> = rounds.iter().map(|round| round.p50).collect();
            let p50_nanoseconds = medians.map(|mut medians| {
                medians.sort();
                crate::callers::nanoseconds(medians[medians.len() / 2])
            });
            peers.push(Figures { peer, calls_per_second, p50_nanoseconds, wharf_ratio: None });
        }
        let ours = peers.iter().find(|figures| figures.peer == "wharf");
        if let Some(ours) = ours.map(|figures| figures.calls_per_second) {
            for figures in &mut peers {
                figures.wharf_ratio = Some(ours / figures.calls_per_second);
            }
        }
        let mut name = load.name();
        for figures in &peers {
            let p50 = figures.p50_nanoseconds.map_or(String::new(), |nanoseconds| {
                format!("{:.1}", Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6)
            });
            let ratio = figures.wharf_ratio.map_or(String::new(), |ratio| format!("{ratio:.2}"));
            println!(
                "{:<34} {:>8} {:>12.0} {p50:>10} {ratio:>12}",
                std::mem::take(&mut name),
                figures.peer,
                figures.calls_per_second
            );
        }
        self.loads.push(Measured { load: load.name(), peers });
    }

    pub(crate) fn write(&self, file: &Path) {
        std::fs::write(file, serde_json::to_string_pretty(self).unwrap()).unwrap();
    }
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
