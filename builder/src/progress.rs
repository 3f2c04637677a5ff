//! Tells the person who builds what runs now and for how long: a spinner for each on a terminal,
//! plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a plain log says that something still runs.
const STILL_EVERY: Duration = Duration::from_secs(30);
/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Terminal,
    Plain,
    Hidden,
}

/// Shows the work of one build.
#[derive(Debug, Clone)]
pub struct Progress {
    style: Style,
    bars: MultiProgress,
}

impl Progress {
    /// Spinners if stderr is a terminal, else plain lines on it.
    pub fn to_stderr() -> Self {
        Self::new(match std::io::stderr().is_terminal() {
            true => Style::Terminal,
            false => Style::Plain,
        })
    }

    /// Shows nothing.
    pub fn hidden() -> Self {
        Self::new(Style::Hidden)
    }

    fn new(style: Style) -> Self {
        Self {
            style,
            bars: MultiProgress::new(),
        }
    }

    /// Says something that must stay visible.
    pub fn say(&self, text: &str) {
        match self.style {
            Style::Terminal => self.bars.suspend(|| eprintln!("{text}")),
            Style::Plain => eprintln!("{text}"),
            Style::Hidden => {}
        }
    }

    /// Shows that `what` runs, until the result is dropped or finished.
    pub fn start(&self, what: &str) -> Running {
        let bar = match self.style {
            Style::Terminal => spinner(&self.bars, what),
            Style::Plain | Style::Hidden => ProgressBar::hidden(),
        };
        if self.style == Style::Plain {
            eprintln!("{what} ...");
        }
        let started = Instant::now();
        Running {
            progress: self.clone(),
            what: what.to_owned(),
            started,
            said: Mutex::new(started),
            bar,
        }
    }
}

/// Something that runs now.
#[derive(Debug)]
pub struct Running {
    progress: Progress,
    what: String,
    started: Instant,
    said: Mutex<Instant>,
    bar: ProgressBar,
}

impl Running {
    /// Shows a line of the running program's output.
    pub fn detail(&self, line: &str) {
        match self.progress.style {
            Style::Terminal => self.bar.set_message(line.trim().to_owned()),
            Style::Plain => {
                let now = Instant::now();
                let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                if now.duration_since(*said) >= STILL_EVERY {
                    *said = now;
                    let elapsed = seconds(now.duration_since(self.started));
                    eprintln!(
                        "{}: still at it after {elapsed}: {}",
                        self.what,
                        line.trim()
                    );
                }
            }
            Style::Hidden => {}
        }
    }

    /// Ends the display with a line that stays.
    pub fn finish(self, outcome: &str) {
        let elapsed = self.started.elapsed();
        self.bar.finish_and_clear();
        let text = format!("{}: {outcome} ({})", self.what, seconds(elapsed));
        self.progress.say(&text);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn spinner(bars: &MultiProgress, what: &str) -> ProgressBar {
    let bar = bars.add(ProgressBar::new_spinner());
    // The template is a constant; were it wrong, the default would do.
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}")
    {
        bar.set_style(style);
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

/// A duration for people: `0.4 s`, `12.0 s`, `4 min 50 s`.
pub fn seconds(duration: Duration) -> String {
    let whole = duration.as_secs();
    if whole < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(290)), "4 min 50 s");
    }
}
