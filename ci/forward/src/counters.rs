//! What happened to frames.

use serde::Serialize;
use wow_guest::WriteError;

/// Since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Frames that came.
    pub received: u64,
    /// Frames that were handed to the other card.
    pub sent: u64,
    /// Frames for which its queue had no room.
    pub full: u64,
    /// Frames that it did not take.
    pub refused: u64,
    /// Frames that it took and could not send.
    pub lost: u64,
    /// Frames whose description made no sense.
    pub malformed: u64,
    #[serde(skip)]
    told: String,
}

impl Counters {
    /// Counts a frame that was not taken.
    pub fn not_sent(&mut self, error: &WriteError) {
        match error {
            WriteError::Full => self.full += 1,
            _ => self.refused += 1,
        }
    }

    /// The counters as JSON, if they have changed since they were told last.
    pub fn changed(&mut self) -> Option<String> {
        let line = serde_json::to_string(self).expect("numbers are JSON");
        if line == self.told {
            return None;
        }
        self.told.clone_from(&line);
        Some(line)
    }
}
