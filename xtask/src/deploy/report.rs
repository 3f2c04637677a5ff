//! What became of all hosts, as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;
use wow_builder::deploy::{Ended, Outcome};

/// All hosts.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// How many are as they were wished to be.
    good: usize,
    /// How many are not.
    bad: usize,
    took_ms: u64,
    hosts: Vec<Outcome>,
}

impl Summary {
    /// Counts them.
    pub fn new(hosts: Vec<Outcome>, removing: bool, took: Duration) -> Self {
        let good = hosts.iter().filter(|host| host.is_good(removing)).count();
        Self {
            good,
            bad: hosts.len() - good,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            hosts,
        }
    }

    /// Whether there is nothing left to do.
    pub fn all_good(&self) -> bool {
        self.bad == 0
    }

    /// A row a host, then what failed and what to do about it, then the sum.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header([
            "HOST", "RESULT", "VERSION", "BEFORE", "NODE", "ADDRESS", "BY", "AT BOOT", "SECONDS",
        ]);
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        for host in &self.hosts {
            table.add_row([
                host.host.clone(),
                host.ended.to_string(),
                text(&host.version),
                text(&host.previous),
                text(&host.name),
                host.address
                    .map(|address| address.to_string())
                    .unwrap_or_default(),
                text(&host.manager),
                match host.boot.as_deref() {
                    Some("none") => "no: it has no cron".to_owned(),
                    other => other.unwrap_or_default().to_owned(),
                },
                format!("{:.1}", host.took_ms as f64 / 1000.0),
            ]);
        }
        let mut all = format!("{table}\n");
        for host in &self.hosts {
            let log = host
                .log
                .as_ref()
                .map(|log| format!("its log ends with: {log}"));
            let notes = [host.error.clone(), log];
            for note in notes.into_iter().flatten() {
                // Writing to a String cannot fail.
                let _ = write!(all, "\n{}: {note}", host.host);
                if let Some(remedy) = &host.remedy {
                    let _ = write!(all, "\n    {remedy}");
                }
            }
        }
        let seconds = self.took_ms as f64 / 1000.0;
        let _ = write!(
            all,
            "\n{} of {} hosts in {seconds:.1} s",
            self.good,
            self.hosts.len()
        );
        if self.hosts.iter().any(|host| host.ended == Ended::Failed) {
            all += "; run it again for the rest";
        }
        all
    }
}
