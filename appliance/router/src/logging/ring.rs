//! The last lines of the log, kept in memory for whoever asks the node, and told to whoever follows them: what
//! an operator wants to see, whatever else goes to standard error.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use wow_overlay::time::UnixTime;

/// Lines kept, and the letters of one; the rest is cut off.
const LINES_MAX: usize = 512;
const LETTERS_MAX: usize = 400;
/// Lines that a follower may be behind; it is told how many it has lost.
const BEHIND_MAX: usize = 256;

static RING: LazyLock<Mutex<Ring>> = LazyLock::new(|| Mutex::new(Ring::new()));

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLine {
    /// Counted from the daemon's start.
    pub number: u64,
    /// When it was written, in milliseconds since 1970.
    pub time_ms: u64,
    /// How grave it is: `error`, `warn` or `info`.
    #[serde(serialize_with = "in_small_letters")]
    pub level: Level,
    /// The message and its fields.
    pub text: String,
}

impl LogLine {
    /// When it was written.
    pub fn time(&self) -> UnixTime {
        UnixTime(self.time_ms / 1000)
    }
}

fn in_small_letters<S: Serializer>(level: &Level, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&level.as_str().to_ascii_lowercase())
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
    last_trouble: Option<LogLine>,
    followers: broadcast::Sender<LogLine>,
}

impl Ring {
    fn new() -> Self {
        Ring {
            lines: VecDeque::new(),
            next: 0,
            last_trouble: None,
            followers: broadcast::channel(BEHIND_MAX).0,
        }
    }

    fn push(&mut self, level: Level, text: String) {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let time_ms = since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        let line = LogLine {
            number: self.next,
            time_ms,
            level,
            text,
        };
        self.next += 1;
        if level <= Level::WARN {
            self.last_trouble = Some(line.clone());
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(line.clone());
        // Without followers it is told to nobody.
        let _ = self.followers.send(line);
    }

    fn from(&self, from: u64) -> LogLines {
        let wanted = self.lines.iter().filter(|line| line.number >= from);
        LogLines {
            lines: wanted.cloned().collect(),
            next: self.next,
        }
    }
}

fn ring() -> MutexGuard<'static, Ring> {
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lines that are kept, from a number on.
pub fn lines(from: u64) -> LogLines {
    ring().from(from)
}

/// The last `count` lines, in their order.
pub fn last(count: usize) -> Vec<LogLine> {
    let lines = &ring().lines;
    let skipped = lines.len().saturating_sub(count);
    lines.iter().skip(skipped).cloned().collect()
}

/// The last warning or error.
pub fn last_trouble() -> Option<LogLine> {
    ring().last_trouble.clone()
}

/// Every line from now on.
pub fn follow() -> broadcast::Receiver<LogLine> {
    ring().followers.subscribe()
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
        ring().push(*event.metadata().level(), text.line());
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
        let mut ring = Ring::new();
        for number in 0..LINES_MAX + 7 {
            ring.push(Level::INFO, number.to_string());
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
    fn the_last_trouble_stays_and_followers_hear_of_every_line() {
        let mut ring = Ring::new();
        let mut follower = ring.followers.subscribe();
        ring.push(Level::WARN, "stood still".into());
        for number in 0..LINES_MAX {
            ring.push(Level::INFO, number.to_string());
        }
        assert_eq!(ring.last_trouble.unwrap().text, "stood still");
        let behind = LINES_MAX + 1 - BEHIND_MAX;
        let lagged = broadcast::error::TryRecvError::Lagged(behind as u64);
        assert_eq!(follower.try_recv().unwrap_err(), lagged);
        assert_eq!(follower.try_recv().unwrap().number, behind as u64);
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
        let told = serde_json::to_value(lines(begin).lines).unwrap();
        let told: Vec<_> = told.as_array().unwrap().iter().collect();
        let told: Vec<_> = told
            .iter()
            .map(|line| (&line["level"], &line["text"]))
            .collect();
        let long = "x".repeat(LETTERS_MAX);
        assert_eq!(told[0], (&"info".into(), &"joined peers=3 name=a b".into()));
        assert_eq!(told[1], (&"error".into(), &long.into()));
        assert_eq!(told.len(), 2);
    }
}
