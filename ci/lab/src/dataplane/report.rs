//! The figures as a table, each contender beside wireguard-go.

use comfy_table::{Table, presets};

use super::{Contender, Figures, Row};

/// The rows as a table for people.
pub fn table(rows: &[Row]) -> String {
    let figures_of = |wanted| {
        let mut found = rows.iter().filter(|row| row.contender == wanted);
        found.find_map(|row| row.figures.as_ref())
    };
    let reference = figures_of(Contender::WireguardGo);
    let bare = figures_of(Contender::Veth).map_or(0.0, |figures| figures.rtt_ms);
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
        "CPU s/GB",
        "RSS MB",
        "",
    ]);
    for row in rows {
        let name = row.contender.name().to_owned();
        match &row.figures {
            Some(figures) => table.add_row(cells(name, figures, reference, bare)),
            None => table.add_row([name, "failed".into()]),
        };
    }
    let failures = rows.iter().filter_map(|row| {
        let error = row.error.as_ref()?;
        Some(format!("\n{}: {error}", row.contender.name()))
    });
    format!("{table}{}", failures.collect::<String>())
}

fn cells(name: String, own: &Figures, reference: Option<&Figures>, bare: f64) -> [String; 10] {
    // Beside a figure its ratio to wireguard-go's, where that was measured.
    let beside = |text: String, of: fn(&Figures) -> f64| match reference {
        Some(reference) if of(reference) > 0.0 && of(own) > 0.0 => {
            format!("{text} ({:.2}x)", of(own) / of(reference))
        }
        _ => text,
    };
    let rate = |of: fn(&Figures) -> f64| beside(format!("{:.0}", of(own)), of);
    let retransmits = own.one.retransmits + own.four.retransmits + own.reverse.retransmits;
    let cpu = |figures: &Figures| figures.one.cpu_s_per_gb;
    [
        name,
        rate(|figures| figures.one.mbit_per_s),
        rate(|figures| figures.four.mbit_per_s),
        rate(|figures| figures.reverse.mbit_per_s),
        retransmits.to_string(),
        rate(|figures| figures.small_packets_per_s),
        format!("{:.3}", own.rtt_ms - bare),
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
        let row = |contender, rate, rtt_ms| {
            let flow = Flow {
                mbit_per_s: rate,
                retransmits: 1,
                cpu_s_per_gb: 2.0,
            };
            let figures = Figures {
                one: flow,
                four: flow,
                reverse: flow,
                small_packets_per_s: 1000.0,
                rtt_ms,
                rss_mb: 7.0,
                note: String::new(),
            };
            Row {
                contender,
                figures: Some(figures),
                error: None,
            }
        };
        let failed = Row {
            contender: Contender::Tinc,
            figures: None,
            error: Some("no such program".into()),
        };
        let rows = [
            row(Contender::Veth, 20000.0, 0.01),
            row(Contender::Wow, 7500.0, 0.11),
            row(Contender::WireguardGo, 3000.0, 0.31),
            failed,
        ];
        let text = table(&rows);
        for expected in ["7500 (2.50x)", "0.100", "3000 (1.00x)", "no such program"] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
    }
}
