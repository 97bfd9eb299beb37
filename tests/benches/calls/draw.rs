//! The figures of a run, as a bar chart.

use std::fmt::Write;
use std::path::Path;

use crate::report::{Figures, Measured, Report};

const WIDTH: f64 = 760.0;
const NAMES: f64 = 80.0;
const BARS: f64 = 430.0;
const ROW: f64 = 22.0;
const TITLE: f64 = 34.0;

/// Readable on a light and on a dark page.
const STYLE: &str = "text{font:13px system-ui,sans-serif;fill:#57606a}\
    .title{font-weight:600}.raw{fill:#afb8c1}.ours{fill:#0969da}.peer{fill:#8c959f}\
    @media(prefers-color-scheme:dark){text{fill:#b1bac4}.raw{fill:#484f58}.ours{fill:#388bfd}.peer{fill:#6e7681}}";

/// Writes one group of bars for each load. The length of a bar is its calls per second, relative to
/// the fastest peer other than the bare socket. A longer bar of the bare socket is cut, and marked
/// so.
pub(crate) fn draw(report: &Report, file: &Path) {
    let mut body = String::new();
    let mut y = 0.0;
    for measured in &report.loads {
        group(&mut body, measured, &mut y);
    }
    let height = y + 10.0;
    let svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\">\n\
         <title>Calls a second of Wharf and its peers</title>\n<style>{STYLE}</style>\n{body}</svg>\n"
    );
    std::fs::write(file, svg).unwrap();
}

fn group(body: &mut String, measured: &Measured, y: &mut f64) {
    let quickest = |figures: &&Figures| figures.peer != "raw";
    let calls = measured.peers.iter().filter(quickest).map(|figures| figures.calls_per_second);
    let longest = calls.fold(1.0, f64::max) * 1.15;
    let middle = *y + TITLE - 10.0;
    writeln!(body, "<text class=\"title\" x=\"0\" y=\"{middle}\">{}</text>", measured.load)
        .unwrap();
    *y += TITLE;
    for figures in &measured.peers {
        let class = match figures.peer {
            "raw" => "raw",
            "wharf" => "ours",
            _ => "peer",
        };
        let share = figures.calls_per_second / longest;
        let (width, cut) = (share.min(1.0) * BARS, if share > 1.0 { " (cut)" } else { "" });
        let text = *y + 14.0;
        writeln!(body, "<text x=\"0\" y=\"{text}\">{}</text>", figures.peer).unwrap();
        writeln!(
            body,
            "<rect class=\"{class}\" x=\"{NAMES}\" y=\"{}\" width=\"{width:.1}\" height=\"16\" rx=\"2\"/>",
            *y + 2.0
        )
        .unwrap();
        let p50 = figures.p50_nanoseconds.map(|nanoseconds| nanoseconds / 100);
        let p50 =
            p50.map_or(String::new(), |tenths| format!(", p50 {}.{} us", tenths / 10, tenths % 10));
        writeln!(
            body,
            "<text x=\"{:.1}\" y=\"{text}\">{} calls/s{p50}{cut}</text>",
            NAMES + width + 8.0,
            thousands(figures.calls_per_second)
        )
        .unwrap();
        *y += ROW;
    }
}

/// `1,234,567`
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let groups: Vec<&[u8]> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<_> = groups.iter().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}
