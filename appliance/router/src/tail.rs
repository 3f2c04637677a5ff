//! The last log messages, kept in memory for the status screen, and told to whoever follows them.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, OnceLock, PoisonError};

use tokio::sync::broadcast;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use wow_overlay::time::UnixTime;

use crate::wall_clock;

/// Messages kept; a screen shows two dozen.
const KEPT_MAX: usize = 200;
/// Bytes of one message; the rest is cut off.
const TEXT_BYTES_MAX: usize = 1024;
/// Messages that a follower may be behind; it is told how many it has lost.
const BEHIND_MAX: usize = 256;

/// A log message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub time: UnixTime,
    /// How grave.
    pub level: Level,
    /// The words and their fields, on one line.
    pub text: String,
}

struct Kept {
    lines: VecDeque<Line>,
    last_trouble: Option<Line>,
    followers: broadcast::Sender<Line>,
}

static KEPT: OnceLock<Mutex<Kept>> = OnceLock::new();

fn with<T>(look: impl FnOnce(&mut Kept) -> T) -> T {
    let kept = KEPT.get_or_init(|| {
        Mutex::new(Kept {
            lines: VecDeque::new(),
            last_trouble: None,
            followers: broadcast::channel(BEHIND_MAX).0,
        })
    });
    look(&mut kept.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The last `count` messages, in their order.
pub fn last(count: usize) -> Vec<Line> {
    with(|kept| {
        let skipped = kept.lines.len().saturating_sub(count);
        kept.lines.iter().skip(skipped).cloned().collect()
    })
}

/// The last warning or error.
pub fn last_trouble() -> Option<Line> {
    with(|kept| kept.last_trouble.clone())
}

/// Every message from now on.
pub fn follow() -> broadcast::Receiver<Line> {
    with(|kept| kept.followers.subscribe())
}

fn keep(line: Line) {
    with(|kept| {
        if line.level <= Level::WARN {
            kept.last_trouble = Some(line.clone());
        }
        if kept.lines.len() == KEPT_MAX {
            kept.lines.pop_front();
        }
        kept.lines.push_back(line.clone());
        // Without followers it is told to nobody.
        let _ = kept.followers.send(line);
    });
}

/// What a subscriber of `tracing` gives its events to.
pub struct TailLayer;

impl<S: Subscriber> Layer<S> for TailLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        keep(Line {
            time: wall_clock::now(),
            level: *event.metadata().level(),
            text: words.line(),
        });
    }
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Words {
    fn line(self) -> String {
        let text = self.message + &self.fields;
        let mut line: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        line.truncate(line.floor_char_boundary(TEXT_BYTES_MAX));
        line
    }
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn messages_are_kept_on_one_line_with_their_fields_and_the_last_trouble_stays() {
        let mut follower = follow();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(TailLayer), || {
            tracing::warn!(seconds = 3, "stood\nstill");
            for number in 0..KEPT_MAX {
                tracing::info!(number, "on and on");
            }
            tracing::info!("{}", "é".repeat(TEXT_BYTES_MAX));
        });
        assert_eq!(last_trouble().unwrap().text, "stood still seconds=3");
        assert_eq!(follower.try_recv().unwrap().text, "stood still seconds=3");
        let all = last(usize::MAX);
        assert_eq!(all.len(), KEPT_MAX);
        assert_eq!(all[0].text, "on and on number=1");
        assert_eq!(last(1)[0].text.len(), TEXT_BYTES_MAX);
    }
}
