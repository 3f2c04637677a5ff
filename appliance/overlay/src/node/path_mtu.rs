//! How long a datagram may be on one path: found by probes of that length (RFC 8899), never believed of
//! ICMP.
//!
//! Pure arithmetic on lengths and points in time; the caller sends the probes and draws the tokens.
//! Nothing is probed before something is to be sent that is longer than every path carries, so an idle
//! path costs nothing. Lengths are those of UDP's payload.

use std::time::Duration;

use crate::time::Instant;
use crate::wire::Remote;

/// What every path carries: IPv6's minimum, which is asked of IPv4 too.
const BASE_IP_BYTES: usize = 1280;
/// An Ethernet frame's content: where it lies within the bounds it is the likeliest answer.
const ETHERNET_IP_BYTES: usize = 1500;
/// The search ends when the answer is known to so many bytes.
const STEP_BYTES: usize = 8;
/// Probes of one length that are lost before it counts as too long. Of 10% lost, 19% of all exchanges,
/// a length that passes is given up once in 150 times, and only until the next search.
const TRIES_MAX: u8 = 3;
/// A path that long datagrams go by is asked so often whether they arrive. So one that has become narrower
/// swallows the datagrams of two seconds.
const CONFIRM_EVERY: Duration = Duration::from_secs(1);
/// How long the result of a search stands before a longer datagram is tried again (RFC 8899, 5.1.1).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// The pause after a probe that may be lost because the path is down.
const DOWN_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer is waited for at first, at least; twice as long each further time. Queues that a
/// transfer has just filled delay what comes after.
const TIMEOUT_MIN: Duration = Duration::from_millis(150);

/// What one path carries.
#[derive(Clone, Debug)]
pub(super) struct PathMtu {
    /// IP and UDP.
    header_bytes: usize,
    /// Known to arrive.
    passes: usize,
    /// No longer one is ever needed.
    wanted: usize,
    stage: Stage,
    /// The probe that is out, or the next one.
    probe: Option<Probe>,
    /// The one before, whose answer may only be late: its token and its length.
    given_up: Option<(u64, usize)>,
    /// Before this nothing longer is tried again.
    again: Instant,
    /// When a long datagram last was known to arrive, and whether others went since.
    confirmed: Instant,
    is_used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// What is known is used.
    Settled,
    /// Something between what passes and this, which does not.
    Searching { fails: usize },
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    length: usize,
    tries: u8,
    out: Option<Out>,
}

#[derive(Clone, Copy, Debug)]
struct Out {
    token: u64,
    sent: Instant,
    due: Instant,
}

/// What came of time that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing is to be done.
    Wait,
    /// A probe of this length is to be sent.
    Probe(usize),
    /// The same; and the path has swallowed what it carried before.
    BlackHole(usize),
}

impl PathMtu {
    /// Of a path to `remote` on which datagrams of up to `wanted` bytes would be of use.
    pub(super) fn new(remote: Remote, wanted: usize, now: Instant) -> Self {
        let header_bytes = header_bytes(remote);
        let base = BASE_IP_BYTES - header_bytes;
        PathMtu {
            header_bytes,
            passes: base,
            wanted: wanted.max(base),
            stage: Stage::Settled,
            probe: None,
            given_up: None,
            again: now,
            confirmed: now,
            is_used: false,
        }
    }

    /// The longest datagram that is known to arrive.
    pub(super) fn passes(&self) -> usize {
        self.passes
    }

    /// Whether nothing longer is being tried.
    pub(super) fn is_settled(&self) -> bool {
        self.stage == Stage::Settled
    }

    /// A datagram of this length is to be sent: looks for what passes, if that may be more than is known.
    pub(super) fn want(&mut self, length: usize, now: Instant) {
        if length > self.passes
            && self.passes < self.wanted
            && self.is_settled()
            && self.again <= now
        {
            self.search(self.wanted + 1);
        }
    }

    /// A datagram of this length went out.
    pub(super) fn on_sent(&mut self, length: usize) {
        self.is_used |= length > self.base();
    }

    /// The path may lead somewhere else: what is known of it is asked anew.
    pub(super) fn question(&mut self, now: Instant) {
        self.again = now;
        if self.passes > self.base() && self.is_settled() && self.probe.is_none() {
            self.probe = Some(Probe::new(self.passes));
        }
    }

    /// The machine itself cannot send a datagram of this length.
    pub(super) fn on_refused(&mut self, length: usize, now: Instant) {
        let is_probe = self.probe.is_some_and(|probe| probe.length == length);
        if length <= self.base() || length > self.passes && !is_probe {
            return;
        }
        if length <= self.passes {
            self.passes = self.base();
        }
        let fails = match self.stage {
            Stage::Searching { fails } => fails.min(length),
            Stage::Settled => length,
        };
        self.search(fails);
        if self.is_settled() {
            self.again = now + RAISE_AFTER;
        }
    }

    /// When [`PathMtu::step`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.probe {
            Some(probe) => Some(probe.out.map_or(Instant::ZERO, |out| out.due)),
            None => self.is_used.then_some(self.confirmed + CONFIRM_EVERY),
        }
    }

    /// What is to be done at `now`; by this path something last was heard at `heard`.
    pub(super) fn step(&mut self, now: Instant, heard: Instant) -> Step {
        if self.deadline().is_none_or(|due| due > now) {
            return Step::Wait;
        }
        let Some(probe) = &mut self.probe else {
            self.probe = Some(Probe::new(self.passes));
            return Step::Probe(self.passes);
        };
        // Where nothing is heard at all, the length is not to blame.
        if probe.out.is_some_and(|out| heard > out.sent) {
            probe.tries += 1;
        }
        if probe.tries < TRIES_MAX {
            return Step::Probe(probe.length);
        }
        let length = probe.length;
        self.given_up = probe.out.map(|out| (out.token, length));
        let is_black_hole = length <= self.passes;
        if is_black_hole {
            self.passes = self.base();
        }
        self.search(length);
        match (self.probe, is_black_hole) {
            (Some(next), true) => Step::BlackHole(next.length),
            (Some(next), false) => Step::Probe(next.length),
            (None, _) => {
                self.again = now + RAISE_AFTER;
                Step::Wait
            }
        }
    }

    /// The probe asked for goes out; an answer takes `timeout` mostly. Returns the token to send it with,
    /// a fresh one where it is the first of its length: the answer to any of them counts.
    pub(super) fn on_probe_sent(
        &mut self,
        fresh: u64,
        now: Instant,
        heard: Instant,
        timeout: Duration,
    ) -> u64 {
        let Some(probe) = &mut self.probe else {
            return fresh;
        };
        let is_down = probe.out.is_some_and(|out| heard <= out.sent);
        let pause = match is_down {
            true => DOWN_PAUSE,
            false => timeout.max(TIMEOUT_MIN) * 2u32.pow(probe.tries.into()),
        };
        let token = probe.out.map_or(fresh, |out| out.token);
        probe.out = Some(Out {
            token,
            sent: now,
            due: now + pause,
        });
        token
    }

    /// A probe's answer came. Returns whether the probe was this path's.
    pub(super) fn on_ack(&mut self, token: u64, now: Instant) -> bool {
        let out = self
            .probe
            .filter(|probe| probe.out.is_some_and(|out| out.token == token));
        let late = self.given_up.filter(|(given_up, _)| *given_up == token);
        let length = match (out, late) {
            (Some(probe), _) => probe.length,
            (None, Some((_, length))) => length,
            (None, None) => return false,
        };
        self.confirmed = now;
        self.is_used = false;
        self.passes = self.passes.max(length);
        self.given_up = None;
        match self.stage {
            Stage::Searching { fails } if fails > length => self.search(fails),
            // It passes after all: the search was led astray.
            Stage::Searching { .. } => self.search(self.wanted + 1),
            Stage::Settled => {
                self.probe = None;
                return true;
            }
        }
        if self.is_settled() {
            self.again = now + RAISE_AFTER;
        }
        true
    }

    /// Goes on between what passes and `fails`, or is done.
    fn search(&mut self, fails: usize) {
        let next = self.between(fails);
        self.probe = next.map(Probe::new);
        self.stage = match next {
            Some(_) => Stage::Searching { fails },
            None => Stage::Settled,
        };
    }

    /// The length to try next.
    fn between(&self, fails: usize) -> Option<usize> {
        let inside = self.passes + 1..fails;
        let ethernet = ETHERNET_IP_BYTES - self.header_bytes;
        if inside.contains(&self.wanted) {
            return Some(self.wanted);
        }
        if inside.contains(&ethernet) {
            return Some(ethernet);
        }
        if self.passes == ethernet && inside.contains(&(ethernet + STEP_BYTES)) {
            // Mostly that is all.
            return Some(ethernet + STEP_BYTES);
        }
        (fails - self.passes > STEP_BYTES).then(|| self.passes.midpoint(fails))
    }

    fn base(&self) -> usize {
        BASE_IP_BYTES - self.header_bytes
    }
}

impl Probe {
    fn new(length: usize) -> Self {
        Probe {
            length,
            tries: 0,
            out: None,
        }
    }
}

/// What every path to such an address carries.
pub(super) fn base_bytes(remote: Remote) -> usize {
    BASE_IP_BYTES - header_bytes(remote)
}

fn header_bytes(remote: Remote) -> usize {
    match remote.ip().is_ipv4() {
        true => 20 + 8,
        false => 40 + 8,
    }
}

#[cfg(test)]
mod tests;
