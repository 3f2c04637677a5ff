//! The figures as a table, and what they are to be.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{BackEnd, Flow, Row};

/// A goal, and whether it is reached.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// What it is of.
    pub what: &'static str,
    /// What it is to be: so much or more, or with `at_most` so much or less.
    pub bound: f64,
    /// See `bound`.
    pub at_most: bool,
    /// What it is.
    pub measured: f64,
}

impl Verdict {
    /// Whether it is reached.
    pub fn is_met(&self) -> bool {
        match self.at_most {
            true => self.measured <= self.bound,
            false => self.measured >= self.bound,
        }
    }
}

/// How virtio does beside packet, if both were measured.
pub fn verdicts(rows: &[Row]) -> Vec<Verdict> {
    let of = |back_end| rows.iter().find(|row| row.back_end == back_end);
    let (Some(packet), Some(virtio)) = (of(BackEnd::Packet), of(BackEnd::Virtio)) else {
        return Vec::new();
    };
    let ratio = |what, bound, at_most, figure: fn(&Row) -> f64| Verdict {
        what,
        bound,
        at_most,
        measured: figure(virtio) / figure(packet),
    };
    vec![
        ratio("TCP throughput, of packet's", 3.0, false, |row| {
            row.stream.mbit_per_s
        }),
        ratio("processor time for a GB, of packet's", 0.5, true, |row| {
            row.stream.cpu_s_per_gb
        }),
    ]
}

/// Everything for people.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "",
        "TCP Mbit/s",
        "CPU s/GB",
        "64 B packets/s",
        "CPU s/million",
        "1400 B packets/s",
        "CPU s/million",
        "lost",
    ]);
    let packets = |flow: &Flow| {
        [
            format!("{:.0}", flow.packets_per_s),
            format!("{:.2}", flow.cpu_s_per_million),
        ]
    };
    for row in rows {
        let [small, small_cpu] = packets(&row.small);
        let [large, large_cpu] = packets(&row.large);
        table.add_row([
            row.back_end.to_string(),
            format!("{:.0}", row.stream.mbit_per_s),
            format!("{:.2}", row.stream.cpu_s_per_gb),
            small,
            small_cpu,
            large,
            large_cpu,
            row.missing.to_string(),
        ]);
    }
    let verdicts = verdicts(rows);
    let lines: String = verdicts
        .iter()
        .map(|verdict| {
            let sign = if verdict.at_most {
                '\u{2264}'
            } else {
                '\u{2265}'
            };
            let word = if verdict.is_met() { "met" } else { "missed" };
            format!(
                "\n{}: {:.2} (goal {sign} {}, {word})",
                verdict.what, verdict.measured, verdict.bound
            )
        })
        .collect();
    format!("{table}{lines}")
}
