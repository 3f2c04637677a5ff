//! Echoes: asked of a node, which is reached for first if need be, and timed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::Control;
use crate::wire::record::Key;

use super::Node;
use super::api::{Event, PingId};
use super::lookup::Purpose;
use super::report::Table;

/// Echoes waited for at once.
const ECHOES_MAX: usize = 512;
/// How long an echo is waited for.
const ECHO_PATIENCE: Duration = Duration::from_secs(5);

struct Echo {
    target: NodeId,
    asked: Option<Instant>,
    due: Instant,
}

/// The echoes that are waited for.
#[derive(Default)]
pub(super) struct Echoes {
    waiting: BTreeMap<u64, Echo>,
}

impl Echoes {
    pub(super) fn table(&self) -> Table {
        Table {
            name: "echoes",
            entries: self.waiting.len(),
            limit: ECHOES_MAX,
        }
    }

    /// Gives an echo up. Returns whether it was waited for.
    pub(super) fn cancel(&mut self, ping: PingId) -> bool {
        self.waiting.remove(&ping.0).is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|echo| echo.due).min()
    }

    /// Ends an echo. Returns when it was asked, if it was and of this peer.
    pub(super) fn take(&mut self, token: u64, from: NodeId) -> Option<Instant> {
        let echo = self.waiting.get(&token)?;
        if echo.target != from {
            return None;
        }
        let asked = echo.asked;
        self.waiting.remove(&token);
        asked
    }
}

impl Node {
    /// Sends an echo request to a node, reaching for it first if need be; answered by
    /// [`Event::Pong`] or [`Event::PingTimeout`].
    pub fn ping(&mut self, now: Instant, target: NodeId) -> PingId {
        let token = self.token();
        if self.echoes.waiting.len() >= ECHOES_MAX || target == self.id {
            self.event(Event::PingTimeout {
                ping: PingId(token),
            });
            return PingId(token);
        }
        self.echoes.waiting.insert(
            token,
            Echo {
                target,
                asked: None,
                due: now + ECHO_PATIENCE,
            },
        );
        if self.peers.get(&target).is_some_and(|p| p.is_established()) {
            self.send_echoes(now, target);
        } else {
            let asked = self.token();
            self.ask_key(now, asked, Key::Id(target), Purpose::Ping(PingId(token)));
        }
        PingId(token)
    }

    /// Sends the echo requests that waited for a session with `target`.
    pub(super) fn send_echoes(&mut self, now: Instant, target: NodeId) {
        let waiting = self.echoes.waiting.iter_mut();
        let waiting = waiting.filter(|(_, echo)| echo.target == target && echo.asked.is_none());
        let mut tokens = Vec::new();
        for (token, echo) in waiting {
            echo.asked = Some(now);
            tokens.push(*token);
        }
        if !tokens.is_empty() {
            self.note_traffic(now, target);
        }
        for token in tokens {
            self.send_control(now, target, &Control::Echo { token });
        }
    }

    /// Tells of echoes that did not come in time.
    pub(super) fn maintain_echoes(&mut self, now: Instant) {
        let late = self.echoes.waiting.iter().filter(|(_, e)| e.due <= now);
        for token in late.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.echoes.waiting.remove(&token);
            self.event(Event::PingTimeout {
                ping: PingId(token),
            });
        }
    }
}
