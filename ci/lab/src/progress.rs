//! What happens now, machine by machine: spinners on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// Shows several things that run at once.
#[derive(Debug, Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    /// On standard error: spinners when it is a terminal, else lines.
    pub fn to_stderr() -> Self {
        Self {
            bars: std::io::stderr().is_terminal().then(MultiProgress::new),
        }
    }

    /// Says something that stays.
    pub fn say(&self, text: &str) {
        match &self.bars {
            // It fails only with the terminal itself.
            Some(bars) => drop(bars.println(text)),
            None => eprintln!("{text}"),
        }
    }

    /// Begins a line for `what`.
    pub fn start(&self, what: &str) -> Task {
        let bar = match &self.bars {
            Some(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                if let Ok(style) =
                    ProgressStyle::with_template("{spinner} {prefix:<8} {elapsed:>4} {msg}")
                {
                    bar.set_style(style);
                }
                bar.set_prefix(what.to_owned());
                bar.enable_steady_tick(TICK);
                bar
            }
            None => ProgressBar::hidden(),
        };
        Task {
            what: what.to_owned(),
            plain: self.bars.is_none(),
            bar,
        }
    }
}

/// One thing that runs now; its line vanishes with it unless it was finished.
#[derive(Debug)]
pub struct Task {
    what: String,
    plain: bool,
    bar: ProgressBar,
}

impl Task {
    /// What it does now.
    pub fn now(&self, text: &str) {
        if self.plain {
            eprintln!("{}: {text}", self.what);
        } else {
            self.bar.set_message(text.to_owned());
        }
    }

    /// It is done; the line stays with this text.
    pub fn finish(self, text: &str) {
        if self.plain {
            eprintln!("{}: {text}", self.what);
        } else {
            self.bar.finish_with_message(text.to_owned());
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.bar.is_finished() {
            self.bar.finish_and_clear();
        }
    }
}
