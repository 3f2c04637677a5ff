//! The ordered list of sources, and waiting for one of them to hold what is needed.

use std::sync::Arc;
use std::time::Duration;

use super::{Disks, FwCfg, GuestInfo, KernelCommandLine, Merged, Rank, Setting, Source, TableFile};
use crate::backoff::Backoff;
use crate::state;

/// Pauses between readings while something needed is missing.
const RETRY: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));

/// How often within a pause it is looked for a new disk.
const LOOK: Duration = Duration::from_millis(500);

/// Sources in the order of their ranks.
#[derive(Clone)]
pub struct Sources(Arc<[Box<dyn Source>]>);

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|source| source.rank()))
            .finish()
    }
}

impl Default for Sources {
    /// The appliance's: kernel command line, fw_cfg, guestinfo, disks, state partition, image.
    fn default() -> Self {
        Self::new(vec![
            Box::new(KernelCommandLine::default()),
            Box::new(FwCfg::default()),
            Box::new(GuestInfo),
            Box::new(Disks::default()),
            Box::new(TableFile::of_state(state::MOUNTED_ON.as_ref())),
            Box::new(TableFile::of_image()),
        ])
    }
}

/// A value that was found and does not count.
#[derive(Debug, Clone)]
pub struct Lost {
    setting: Setting,
    rank: Rank,
    disagrees: bool,
}

impl Lost {
    /// The value.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// Whether somebody may have meant it: it says something else than the value that counts, and is no
    /// default of the image.
    pub fn is_contradiction(&self) -> bool {
        self.disagrees && self.rank != Rank::Image
    }
}

impl Sources {
    /// These sources, put in order.
    pub fn new(mut sources: Vec<Box<dyn Source>>) -> Self {
        sources.sort_by_key(|source| source.rank());
        Self(sources.into())
    }

    /// Reads all of them now. A disk that does not answer may take some seconds.
    pub fn read(&self) -> Merged {
        let mut merged = Merged::default();
        for source in self.0.iter() {
            let reading = source.read();
            merged.problems.extend(reading.problems);
            for setting in reading.entries {
                match merged.settings.get(setting.key.name) {
                    None => {
                        merged.settings.insert(setting.key.name, setting);
                    }
                    Some(counts) => merged.lost.push(Lost {
                        disagrees: counts.value != setting.value,
                        rank: source.rank(),
                        setting,
                    }),
                }
            }
            let absent = reading
                .absent
                .map(|why| format!(" ({why})"))
                .unwrap_or_default();
            merged
                .looked_in
                .push(format!("{}{absent}", source.example("KEY")));
        }
        merged
    }

    /// The same on a thread of its own, for an event loop that has other things to do.
    pub async fn read_aside(&self) -> Merged {
        let sources = self.clone();
        match tokio::task::spawn_blocking(move || sources.read()).await {
            Ok(merged) => merged,
            // It does not panic, and the runtime that would cancel it is the one that waits here.
            Err(_) => self.read(),
        }
    }

    /// Another text when it may be worth while to read again: a disk has come or gone.
    pub fn changes(&self) -> Vec<String> {
        self.0.iter().map(|source| source.changes()).collect()
    }

    /// Reads the sources until `accept` takes what they hold: again when a disk appears, and with pauses of 2
    /// to 30 seconds. Each refusal is said on the console: in full when its words are new, else in short, so
    /// that whoever looks at the screen later still sees what the machine waits for. Safe to cancel.
    pub async fn until<T>(
        &self,
        need: &str,
        accept: impl FnMut(&Merged) -> Result<T, String>,
    ) -> T {
        self.until_paced(need, accept, RETRY).await
    }

    async fn until_paced<T>(
        &self,
        need: &str,
        mut accept: impl FnMut(&Merged) -> Result<T, String>,
        mut pace: Backoff,
    ) -> T {
        let mut said = String::new();
        loop {
            let changes = self.changes();
            let merged = self.read_aside().await;
            let refusal = match accept(&merged) {
                Ok(value) => return value,
                Err(refusal) => refusal,
            };
            let pause = pace.pause();
            let retry_s = pause.as_secs();
            if refusal == said {
                tracing::warn!(retry_s, "still no usable {need}");
            } else {
                for problem in merged.problems() {
                    tracing::error!("configuration: {problem}");
                }
                tracing::error!(retry_s, "{refusal}");
                said = refusal;
            }
            let changed = async {
                while self.changes() == changes {
                    tokio::time::sleep(LOOK).await;
                }
                tracing::info!("disks have changed: reading the configuration again");
            };
            // Without a change the pause is over at its end.
            let _ = tokio::time::timeout(pause, changed).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Rank;
    use crate::config::testing::Memory;

    #[test]
    fn the_first_source_in_rank_wins_whatever_the_order_given() {
        let sources = Sources::new(vec![
            Box::new(Memory::new(
                Rank::Image,
                &[("name", "image"), ("log", "image")],
            )),
            Box::new(Memory::new(
                Rank::KernelCommandLine,
                &[("name", "cmdline"), ("nmae", "x")],
            )),
            Box::new(Memory::new(Rank::FwCfg, &[("name", "fw"), ("guest", "fw")])),
        ]);
        let merged = sources.read();
        let value = |key| merged.get(key).map(|setting| setting.value());
        assert_eq!(value("name"), Some("cmdline"));
        assert_eq!(value("guest"), Some("fw"));
        assert_eq!(value("log"), Some("image"));
        assert_eq!(value("ticket"), None);
        assert_eq!(merged.problems().len(), 1);
        assert!(
            merged
                .get("name")
                .unwrap()
                .origin()
                .to_string()
                .contains("KernelCommandLine")
        );
    }

    #[test]
    fn an_unusable_value_leaves_the_key_to_the_next_source() {
        let sources = Sources::new(vec![
            Box::new(Memory::new(Rank::KernelCommandLine, &[("name", "")])),
            Box::new(Memory::new(Rank::FwCfg, &[("name", "fw")])),
        ]);
        let merged = sources.read();
        assert_eq!(
            merged.get("name").map(|setting| setting.value()),
            Some("fw")
        );
        assert_eq!(merged.problems().len(), 1);
    }

    #[test]
    fn what_lost_against_an_earlier_source_is_kept_and_a_contradiction_told() {
        let sources = Sources::new(vec![
            Box::new(Memory::new(Rank::FwCfg, &[("name", "a"), ("log", "info")])),
            Box::new(Memory::new(
                Rank::Disk,
                &[("name", "b"), ("log", "info"), ("mtu", "1400")],
            )),
            Box::new(Memory::new(Rank::Image, &[("name", "c"), ("mtu", "1500")])),
        ]);
        let merged = sources.read();
        let lost: Vec<_> = merged
            .lost()
            .iter()
            .map(|lost| {
                (
                    lost.setting().key().name,
                    lost.setting().value(),
                    lost.is_contradiction(),
                )
            })
            .collect();
        let expected = [
            ("name", "b", true),
            ("log", "info", false),
            ("name", "c", false),
            ("mtu", "1500", false),
        ];
        assert_eq!(lost, expected);
    }

    #[test]
    fn what_is_missing_is_said_with_every_place_that_was_looked_in() {
        let missing = Sources::default().read().require("ticket").unwrap_err();
        for part in [
            "wow.ticket=",
            "opt/wow/ticket",
            "labelled WOW with the file wow.toml: ticket",
            "/etc/wow.toml",
            "wow pool ticket",
        ] {
            assert!(missing.contains(part), "{part} in {missing}");
        }
    }

    #[test]
    fn a_change_of_a_source_ends_the_pause() {
        let memory = Memory::new(Rank::Disk, &[]);
        let sources = Sources::new(vec![Box::new(memory.clone())]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let for_ever = Backoff::new(Duration::from_secs(86_400), Duration::from_secs(86_400));
        let mut refusals = 0;
        let accepted = runtime.block_on(sources.until_paced(
            "ticket",
            |merged| {
                let found = merged
                    .require("ticket")
                    .map(|setting| setting.value().to_owned());
                if found.is_err() {
                    refusals += 1;
                    *memory.pairs.lock().unwrap() = vec![("ticket".into(), "good".into())];
                }
                found
            },
            for_ever,
        ));
        assert_eq!((accepted.as_str(), refusals), ("good", 1));
    }

    #[test]
    fn waiting_ends_when_a_source_holds_what_is_needed() {
        let memory = Memory::new(Rank::FwCfg, &[("ticket", "expired")]);
        let sources = Sources::new(vec![Box::new(memory.clone())]);
        let mut refusals = 0;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let soon = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        let accepted = runtime.block_on(sources.until_paced(
            "ticket",
            |merged| {
                let setting = merged.require("ticket")?;
                if setting.value() == "good" {
                    return Ok(setting.value().to_owned());
                }
                refusals += 1;
                if refusals == 3 {
                    *memory.pairs.lock().unwrap() = vec![("ticket".into(), "good".into())];
                }
                Err("expired".to_owned())
            },
            soon,
        ));
        assert_eq!((accepted.as_str(), refusals), ("good", 3));
    }
}
