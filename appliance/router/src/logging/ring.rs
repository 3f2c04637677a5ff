//! The last lines of the log, kept in memory for whoever asks the node: what an operator wants to see,
//! whatever else goes to standard error.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// Lines kept, and the letters of one; the rest is cut off.
const LINES_MAX: usize = 512;
const LETTERS_MAX: usize = 400;

static RING: Mutex<Ring> = Mutex::new(Ring {
    lines: VecDeque::new(),
    next: 0,
});

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Counted from the daemon's start.
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub time_ms: u64,
    /// `error`, `warn` or `info`.
    pub level: &'static str,
    /// The message and its fields.
    pub text: String,
}

/// Some lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLines {
    /// In the order in which they were written.
    pub lines: Vec<LogLine>,
    /// The number of the next one to be written.
    pub next: u64,
}

struct Ring {
    lines: VecDeque<LogLine>,
    next: u64,
}

impl Ring {
    fn push(&mut self, level: &'static str, text: String) {
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let time_ms = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        self.lines.push_back(LogLine {
            number: self.next,
            time_ms,
            level,
            text,
        });
        self.next += 1;
    }

    fn from(&self, from: u64) -> LogLines {
        let wanted = self.lines.iter().filter(|line| line.number >= from);
        LogLines {
            lines: wanted.cloned().collect(),
            next: self.next,
        }
    }
}

/// The lines that are kept, from a number on.
pub fn lines(from: u64) -> LogLines {
    RING.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .from(from)
}

/// What keeps them.
pub fn layer<S>() -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    Keep.with_filter(LevelFilter::INFO)
}

struct Keep;

impl<S: Subscriber> Layer<S> for Keep {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut text = Text::default();
        event.record(&mut text);
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            _ => "info",
        };
        RING.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(level, text.line());
    }
}

/// A message and its fields, as far as they fit.
#[derive(Default)]
struct Text {
    message: Bounded,
    fields: Bounded,
}

impl Text {
    fn line(mut self) -> String {
        if !self.fields.0.is_empty() {
            // What does not fit is cut off.
            let _ = write!(self.message, " {}", self.fields.0.trim_start());
        }
        self.message.0
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = match field.name() {
            "message" => self.message.write_str(value),
            name => write!(self.fields, " {name}={value}"),
        };
    }
}

/// Text of so many letters at most, none of them a control character.
#[derive(Default)]
struct Bounded(String, usize);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            if self.1 == LETTERS_MAX {
                return Err(fmt::Error);
            }
            self.1 += 1;
            self.0.push(if letter.is_control() { ' ' } else { letter });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn the_last_lines_are_kept_with_their_numbers() {
        let mut ring = Ring {
            lines: VecDeque::new(),
            next: 0,
        };
        for number in 0..LINES_MAX + 7 {
            ring.push("info", number.to_string());
        }
        let told = ring.from(0);
        assert_eq!(
            (told.lines.len(), told.next),
            (LINES_MAX, LINES_MAX as u64 + 7)
        );
        assert_eq!((told.lines[0].number, &*told.lines[0].text), (7, "7"));
        let last = ring.from(told.next - 1);
        assert_eq!(last.lines.len(), 1);
        assert_eq!(ring.from(last.next).lines, []);
        assert_eq!(ring.from(u64::MAX).lines, []);
    }

    #[test]
    fn a_line_holds_its_message_and_fields_within_bounds() {
        let logged = tracing_subscriber::registry().with(layer());
        let begin = lines(0).next;
        tracing::subscriber::with_default(logged, || {
            tracing::debug!("not for an operator");
            tracing::info!(peers = 3, name = %"a\nb", "joined");
            tracing::error!("{}", "x".repeat(9 * LETTERS_MAX));
        });
        let told = lines(begin).lines;
        let told: Vec<_> = told.iter().map(|line| (line.level, &*line.text)).collect();
        let long = "x".repeat(LETTERS_MAX);
        assert_eq!(
            told,
            [("info", "joined peers=3 name=a b"), ("error", &*long)]
        );
    }
}
