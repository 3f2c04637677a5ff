//! Configuration: where values come from, which source wins, and what was wrong with them. What a
//! value means is its consumer's business.
//!
//! Sources are asked in the order of their [`Rank`]; for each key the first that has it wins. Reading
//! never fails as a whole: what is wrong with one value is a [`Problem`] and the rest counts.

mod cmdline;
pub(crate) mod disk;
mod file;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod fw_cfg;
mod fw_cfg_ports;
mod guest_info;
mod key;
mod problem;
mod sources;

pub use cmdline::KernelCommandLine;
pub(crate) use cmdline::cmdline_value;
pub use disk::Disks;
pub use file::TableFile;
pub use fw_cfg::FwCfg;
pub use guest_info::GuestInfo;
pub use key::{KEYS, Key};
pub use problem::{Origin, Problem};
pub use sources::{Lost, Sources};

use std::collections::BTreeMap;
use std::fmt;

/// Longest value of any source; a ticket is below 2 KiB.
pub const MAX_VALUE_BYTES: usize = 16 * 1024;

/// The order of the sources, first found wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// `wow.KEY=VALUE` on the kernel command line.
    KernelCommandLine,
    /// QEMU's `-fw_cfg name=opt/wow/KEY,…`.
    FwCfg,
    /// VMware's guestinfo.
    GuestInfo,
    /// A disk or floppy labelled `WOW` or `cidata`.
    Disk,
    /// The state partition.
    StatePartition,
    /// A file in the image.
    Image,
}

/// A place that may hold configuration.
pub trait Source: Send + Sync {
    /// Where it stands in the order.
    fn rank(&self) -> Rank;

    /// Reads everything anew.
    fn read(&self) -> Reading;

    /// How a person would give `key` through this source, for messages.
    fn example(&self, key: &str) -> String;

    /// A text that is another one when the source may hold something else, and costs little to ask for. Empty
    /// where that cannot be known.
    fn changes(&self) -> String {
        String::new()
    }
}

/// What one source holds now.
#[derive(Debug, Default)]
pub struct Reading {
    /// Well-formed entries.
    pub entries: Vec<Setting>,
    /// What was wrong with the others.
    pub problems: Vec<Problem>,
    /// Why there is nothing at all, where that is so ("no such file").
    pub absent: Option<String>,
}

impl Reading {
    fn push(&mut self, found: Result<Setting, Problem>) {
        match found {
            Ok(setting) => self.entries.push(setting),
            Err(problem) => self.problems.push(problem),
        }
    }
}

/// One value and where it comes from.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    key: &'static Key,
    value: String,
    origin: Origin,
}

impl Setting {
    /// Checks a key and value as a source found them: the key known, the value neither empty nor
    /// longer than [`MAX_VALUE_BYTES`], on one line and without control characters.
    pub fn new(key: &str, value: &str, origin: Origin) -> Result<Self, Problem> {
        let Some(key) = KEYS.iter().find(|known| known.name == key) else {
            return Err(Problem::UnknownKey {
                origin,
                key: printable(key),
            });
        };
        let value = value.trim();
        let complaint = if value.is_empty() {
            "is empty"
        } else if value.len() > MAX_VALUE_BYTES {
            "is longer than 16 KiB"
        } else if value.chars().any(char::is_control) {
            "holds control characters or several lines"
        } else {
            return Ok(Self {
                key,
                value: value.to_owned(),
                origin,
            });
        };
        Err(Problem::Value {
            origin,
            key,
            complaint: complaint.to_owned(),
        })
    }

    /// The key.
    pub fn key(&self) -> &'static Key {
        self.key
    }

    /// The value, trimmed. A secret one must go nowhere but to its consumer.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// Where it was found.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.key.secret {
            "(secret)"
        } else {
            &self.value
        };
        write!(f, "{} = {:?} from {}", self.key.name, value, self.origin)
    }
}

/// All sources' values, merged.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    settings: BTreeMap<&'static str, Setting>,
    lost: Vec<Lost>,
    problems: Vec<Problem>,
    looked_in: Vec<String>,
}

impl Merged {
    /// The winning value of a key.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        let known = KEYS.iter().any(|known| known.name == key);
        debug_assert!(known, "no source may hold {key}");
        self.settings.get(key)
    }

    /// The winning value of a key; without one, a message that says where it was looked for.
    pub fn require(&self, key: &str) -> Result<&Setting, String> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    /// A message for a person who has not given `key` anywhere.
    pub fn missing(&self, key: &str) -> String {
        let help = KEYS
            .iter()
            .find(|known| known.name == key)
            .map_or("", |known| known.help);
        let mut text = format!("no {key} found ({help}); looked in, and give it in one of:");
        for line in &self.looked_in {
            text.push_str("\n  ");
            text.push_str(&line.replace("KEY", key));
        }
        text
    }

    /// All winning values, by key.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.settings.values()
    }

    /// Values that were found and do not count, since an earlier source has the key; in the sources' order.
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// What a person is told of two sources that disagree.
    pub fn contradiction(&self, lost: &Lost) -> String {
        let key = lost.setting().key().name;
        let counts = self.get(key).map(|setting| setting.origin().to_string());
        format!(
            "{key} from {} does not count: it comes otherwise from {}, which is asked before; remove one of them",
            lost.setting().origin(),
            counts.unwrap_or_default(),
        )
    }

    /// Every place that was looked in, as one would give the key `KEY` there, and why there was nothing.
    pub fn looked_in(&self) -> &[String] {
        &self.looked_in
    }

    /// What was wrong with values that were found.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// Outside text made fit for a message: bounded, and without what could play with a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .take(64)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
pub(crate) mod testing {
    //! A source in memory, the twin of the real ones.

    use super::*;
    use std::sync::{Arc, Mutex};

    /// A source whose entries a test changes while it is in use.
    #[derive(Debug, Clone)]
    pub(crate) struct Memory {
        pub(crate) rank: Rank,
        pub(crate) pairs: Arc<Mutex<Vec<(String, String)>>>,
    }

    impl Memory {
        pub(crate) fn new(rank: Rank, pairs: &[(&str, &str)]) -> Self {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            Self {
                rank,
                pairs: Arc::new(Mutex::new(pairs)),
            }
        }
    }

    impl Source for Memory {
        fn rank(&self) -> Rank {
            self.rank
        }

        fn read(&self) -> Reading {
            let mut reading = Reading::default();
            for (key, value) in self.pairs.lock().unwrap().iter() {
                let origin = Origin::new("memory", format!("rank {:?}", self.rank));
                match Setting::new(key, value, origin) {
                    Ok(setting) => reading.entries.push(setting),
                    Err(problem) => reading.problems.push(problem),
                }
            }
            reading
        }

        fn example(&self, key: &str) -> String {
            format!("memory: {key}")
        }

        fn changes(&self) -> String {
            format!("{:?}", self.pairs.lock().unwrap())
        }
    }

    pub(crate) fn merged(pairs: &[(&str, &str)]) -> Merged {
        Sources::new(vec![Box::new(Memory::new(Rank::Image, pairs))]).read()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin::new("test", "here")
    }

    #[test]
    fn a_secret_is_shown_neither_by_debug_nor_by_a_problem() {
        let setting = Setting::new("ticket", "wow-ticket-1.SECRET", origin()).unwrap();
        assert_eq!(setting.value(), "wow-ticket-1.SECRET");
        assert!(!format!("{setting:?}").contains("SECRET"));
        let problem = Setting::new("ticket", "SECRET\nSECRET", origin()).unwrap_err();
        assert!(!format!("{problem} {problem:?}").contains("SECRET"));
    }

    #[test]
    fn an_unknown_key_names_source_key_and_the_known_ones() {
        let problem = Setting::new("tikcet", "x", origin())
            .unwrap_err()
            .to_string();
        for part in ["test", "here", "tikcet", "ticket", "seeds"] {
            assert!(problem.contains(part), "{part} in {problem}");
        }
    }

    #[test]
    fn values_are_trimmed_and_unusable_ones_refused() {
        assert_eq!(
            Setting::new("name", " a \n", origin()).unwrap().value(),
            "a"
        );
        for bad in ["", "  ", "a\nb", "a\0b", &"x".repeat(MAX_VALUE_BYTES + 1)] {
            assert!(Setting::new("name", bad, origin()).is_err(), "{bad:.10?}");
        }
    }
}
