//! What is wrong, told where users look: the journal, the console, `wow status`.

use std::fs::OpenOptions;
use std::io::Write;

use crate::daemon::Daemon;

/// Where a person may sit.
const CONSOLE: &str = "/dev/console";

/// Sentences that are told at once.
const SENTENCES_MAX: usize = 8;

/// See the module.
#[derive(Default)]
pub struct Trouble {
    now: Vec<String>,
    told: Vec<String>,
}

impl Trouble {
    /// Something is wrong: what, and what to do about it.
    pub fn add(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        if self.now.len() < SENTENCES_MAX && !self.now.contains(&sentence) {
            self.now.push(sentence);
        }
    }

    /// Notes what failed; whether nothing did.
    pub fn check(&mut self, result: anyhow::Result<()>) -> bool {
        match result {
            Ok(()) => true,
            Err(error) => {
                self.add(format!("{error:#}"));
                false
            }
        }
    }

    /// Whether nothing was added since the last time.
    pub fn is_none(&self) -> bool {
        self.now.is_empty()
    }

    /// Tells what was added since the last time, and that what was told before is over.
    pub fn tell(&mut self, daemon: &Daemon) {
        for news in self.now.iter().filter(|text| !self.told.contains(text)) {
            tracing::warn!("{news}");
            say_on_console(news);
        }
        if self.now.is_empty() && !self.told.is_empty() {
            tracing::info!("all is well again");
            say_on_console("all is well again");
        }
        // Told again each time: the daemon forgets it with a restart.
        if let Err(error) = daemon.trouble(&self.now) {
            tracing::debug!("{error:#}");
        }
        self.told = std::mem::take(&mut self.now);
    }
}

fn say_on_console(text: &str) {
    // A machine without one has the journal.
    if let Ok(mut console) = OpenOptions::new().write(true).open(CONSOLE) {
        let _ = write!(console, "\r\nwow-workstation: {text}\r\n");
    }
}
