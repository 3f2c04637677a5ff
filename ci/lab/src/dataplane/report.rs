//! The figures as a table, each contender beside wireguard-go.

use comfy_table::{Table, presets};

use super::bed::{LOSS_PERCENT, ROUND_TRIP_MS};
use super::{Contender, Figures, Goal, Lossy, Outcome, Row, goals};

/// Of the table.
const COLUMNS: usize = 11;

/// The rows as a table for people, and what they are to reach as another.
pub fn table(rows: &[Row]) -> String {
    let figures_of = |wanted| {
        let mut found = rows.iter().filter(|row| row.contender == wanted);
        found.find_map(Row::figures)
    };
    let reference = figures_of(Contender::WireguardGo);
    let bare = figures_of(Contender::Veth);
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header([
        "",
        "1 flow Mbit/s",
        "4 flows",
        "reverse",
        "sent again",
        "64 B packets/s",
        "added RTT ms",
        "10 ms apart",
        "CPU s/GB",
        "RSS MB",
        "",
    ]);
    for row in rows {
        let name = row.contender.name().to_owned();
        match &row.outcome {
            Outcome::Measured(figures) => table.add_row(cells(name, figures, reference, bare)),
            Outcome::Lossy(lossy) => table.add_row(lossy_cells(name, lossy)),
            Outcome::Failed(_) => table.add_row([name, "failed".into()]),
        };
    }
    let failures = rows.iter().filter_map(|row| match &row.outcome {
        Outcome::Failed(error) => Some(format!("\n{}: {error}", row.contender.name())),
        _ => None,
    });
    let goals = goals(rows);
    let goals = match goals.is_empty() {
        true => String::new(),
        false => format!("\n{}", goals_table(&goals)),
    };
    format!("{table}{}{goals}", failures.collect::<String>())
}

fn goals_table(goals: &[Goal]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["goal", "", "measured", ""]);
    for goal in goals {
        let verdict = if goal.is_met() { "met" } else { "missed" };
        let measured = format!("{:.3}", goal.measured);
        table.add_row([goal.what, &goal.bound.to_string(), &measured, verdict]);
    }
    table
}

fn lossy_cells(name: String, lossy: &Lossy) -> Vec<String> {
    let (one, bare) = (lossy.one.mbit_per_s, lossy.bare.mbit_per_s);
    let mut cells = vec![String::new(); COLUMNS];
    cells[0] = name;
    cells[1] = format!("{one:.1}");
    cells[COLUMNS - 1] = format!(
        "{:.2}x of {bare:.1} without tunnel ({LOSS_PERCENT}% lost, {ROUND_TRIP_MS} ms)",
        one / bare
    );
    cells
}

fn cells(
    name: String,
    own: &Figures,
    reference: Option<&Figures>,
    bare: Option<&Figures>,
) -> [String; COLUMNS] {
    // Beside a figure its ratio to wireguard-go's, where that was measured.
    let beside = |text: String, of: fn(&Figures) -> f64| match reference {
        Some(reference) if of(reference) > 0.0 && of(own) > 0.0 => {
            format!("{text} ({:.2}x)", of(own) / of(reference))
        }
        _ => text,
    };
    let rate = |of: fn(&Figures) -> f64| beside(format!("{:.0}", of(own)), of);
    let added = |of: fn(&Figures) -> f64| format!("{:.3}", of(own) - bare.map_or(0.0, of));
    let cpu = |figures: &Figures| figures.one.cpu_s_per_gb;
    [
        name,
        rate(|figures| figures.one.mbit_per_s),
        rate(|figures| figures.four.mbit_per_s),
        rate(|figures| figures.reverse.mbit_per_s),
        own.retransmits().to_string(),
        rate(|figures| figures.small_packets_per_s),
        added(|figures| figures.rtt_ms),
        added(|figures| figures.lone_rtt_ms),
        beside(format!("{:.2}", cpu(own)), cpu),
        format!("{:.1}", own.rss_mb),
        own.note.clone(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataplane::Flow;

    #[test]
    fn figures_stand_beside_wireguards_and_failures_say_why() {
        let flow = |mbit_per_s| Flow {
            mbit_per_s,
            retransmits: 1,
            cpu_s_per_gb: 2.0,
        };
        let row = |contender, rate, rtt_ms| {
            let flow = flow(rate);
            let figures = Figures {
                one: flow,
                four: flow,
                reverse: flow,
                small_packets_per_s: 1000.0,
                rtt_ms,
                lone_rtt_ms: 2.0 * rtt_ms,
                rss_mb: 7.0,
                note: String::new(),
            };
            Row {
                contender,
                outcome: Outcome::Measured(figures),
            }
        };
        let failed = Row {
            contender: Contender::Tinc,
            outcome: Outcome::Failed("no such program".into()),
        };
        let lossy = Row {
            contender: Contender::WowLossy,
            outcome: Outcome::Lossy(Lossy {
                one: flow(17.0),
                bare: flow(20.0),
            }),
        };
        let rows = [
            row(Contender::Veth, 20000.0, 0.01),
            row(Contender::Wow, 7500.0, 0.11),
            row(Contender::WireguardGo, 3000.0, 0.31),
            lossy,
            failed,
        ];
        let text = table(&rows);
        for expected in [
            "7500 (2.50x)",
            "0.100",
            "0.200",
            "3000 (1.00x)",
            "no such program",
            "0.85x of 20.0",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        let verdict = |what: &str| {
            let line = text.lines().find(|line| line.contains(what));
            line.map(|line| line.contains(" met "))
        };
        assert_eq!(verdict("1 TCP flow, of wireguard-go's"), Some(true));
        assert_eq!(verdict("1% loss"), Some(false));
        assert_eq!(verdict("relay"), None, "nobody measured it");
    }
}
