//! Time for members of the pool and for guests: SNTP on port 123 (RFC 4330, section 6), and this node's own
//! questions to members, which leave from there as well.
//!
//! [`TimeServer`] makes answers out of questions and is used by whoever has another socket, too. What the
//! clock says, and what that is worth, the router tells ([`TimeSource`]). Left out: broadcasts, authentication
//! (the overlay proves who sends).

mod client;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp::{Socket, UdpMetadata};
use smoltcp::time::Instant;

use crate::budget::Budget;
use crate::flag::Flag;
use crate::udp;

use client::Shared;
pub use client::TimeClient;

/// SNTP's port.
pub const TIME_PORT: u16 = 123;
/// A packet of either kind; what a question has beyond is not looked at.
pub const TIME_PACKET_BYTES: usize = 48;
/// Seconds from 1900, where NTP's time begins, to 1970.
pub const NTP_TO_UNIX: u64 = 2_208_988_800;

/// Answers to one address at once, as many as clients begin with, and the time in which one more is allowed again.
const SENDER_BUDGET: Budget = Budget::new(8, Duration::from_secs(1));
/// The same for all together: who speaks from many addresses costs no more than this.
const BUDGET: Budget = Budget::new(256, Duration::from_millis(4));
/// Addresses whose answers are counted; the one that was silent for the longest time is forgotten for another.
const SENDERS_MAX: usize = 64;

/// Packets that wait in the socket, each way.
const QUEUE_PACKETS: usize = 32;
const QUEUE_BYTES: usize = 8 * 1024;

/// What a clock's time is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// How many servers it is away from a clock that needs none; from 1 to 15.
    pub stratum: u8,
    /// Who it was set by: an IPv4 address.
    pub reference: [u8; 4],
    /// When it was last compared with that, since 1970.
    pub compared: Duration,
    /// By how much it may be wrong now.
    pub error: Duration,
}

/// What a clock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The time since 1970.
    pub time: Duration,
    /// What it is worth; `None` is nothing: nobody has set it.
    pub standing: Option<Standing>,
}

/// Reads the clock.
pub type TimeSource = Box<dyn Fn() -> Reading>;

/// Makes answers, no more than a server can be asked to without being used against others.
#[derive(Debug)]
pub struct TimeServer {
    budget: Budget,
    /// Who asked last is at the end.
    senders: VecDeque<(IpAddr, Budget)>,
    dropped: u64,
}

impl Default for TimeServer {
    fn default() -> Self {
        TimeServer {
            budget: BUDGET,
            senders: VecDeque::new(),
            dropped: 0,
        }
    }
}

impl TimeServer {
    /// The answer to a question that arrived just now, which is never longer than that; `None` to what is no
    /// question, and to those beyond what is answered. `now` is since any zero.
    pub fn answer(
        &mut self,
        now: Duration,
        from: IpAddr,
        question: &[u8],
        read: impl Fn() -> Reading,
    ) -> Option<[u8; TIME_PACKET_BYTES]> {
        let question = Question::parse(question);
        let Some(question) = question.filter(|_| self.may(now, from)) else {
            self.dropped += 1;
            return None;
        };
        Some(question.answer(&read()))
    }

    /// Whether somebody is answered once more.
    fn may(&mut self, now: Duration, from: IpAddr) -> bool {
        let known = self.senders.iter().position(|(sender, _)| *sender == from);
        let known = known.and_then(|index| self.senders.remove(index));
        let (_, mut budget) = known.unwrap_or((from, SENDER_BUDGET));
        let may = budget.take(now) && self.budget.take(now);
        if self.senders.len() == SENDERS_MAX {
            self.senders.pop_front();
        }
        self.senders.push_back((from, budget));
        may
    }

    /// Packets without an answer.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// What of a question the answer repeats.
struct Question {
    version: u8,
    poll: u8,
    /// The client's own time, or a number that proves the answer.
    sent: [u8; 8],
}

impl Question {
    fn parse(bytes: &[u8]) -> Option<Self> {
        const CLIENT: u8 = 3;
        let bytes = bytes.first_chunk::<TIME_PACKET_BYTES>()?;
        let version = bytes[0] >> 3 & 7;
        let is_question = bytes[0] & 7 == CLIENT && (1..=4).contains(&version);
        is_question.then(|| Question {
            version,
            poll: bytes[2],
            sent: field(bytes, 40),
        })
    }

    fn answer(&self, reading: &Reading) -> [u8; TIME_PACKET_BYTES] {
        const SERVER: u8 = 4;
        const ALARM: u8 = 3;
        /// A microsecond as a power of two, in seconds.
        const PRECISION: i8 = -20;
        let mut bytes = [0; TIME_PACKET_BYTES];
        let time = ntp(reading.time).to_be_bytes();
        bytes[0] = self.version << 3 | SERVER;
        bytes[2] = self.poll;
        bytes[3] = PRECISION.to_be_bytes()[0];
        match reading.standing {
            Some(standing) => {
                bytes[1] = standing.stratum.clamp(1, 15);
                bytes[8..12].copy_from_slice(&short(standing.error).to_be_bytes());
                bytes[12..16].copy_from_slice(&standing.reference);
                bytes[16..24].copy_from_slice(&ntp(standing.compared).to_be_bytes());
            }
            // Stratum 0 with this word: not yet set by anybody (RFC 4330, section 8).
            None => {
                bytes[0] |= ALARM << 6;
                bytes[12..16].copy_from_slice(b"INIT");
            }
        }
        bytes[24..32].copy_from_slice(&self.sent);
        bytes[32..40].copy_from_slice(&time);
        bytes[40..48].copy_from_slice(&time);
        bytes
    }
}

fn field(bytes: &[u8; TIME_PACKET_BYTES], at: usize) -> [u8; 8] {
    *bytes[at..].first_chunk().expect("within the packet")
}

/// NTP's time: seconds since 1900, which begin anew every 136 years, and their fraction.
fn ntp(time: Duration) -> u64 {
    let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
    time.as_secs().wrapping_add(NTP_TO_UNIX) << 32 | fraction
}

/// NTP's short span: 16 bits of seconds, and their fraction.
fn short(span: Duration) -> u32 {
    u32::try_from((span.as_nanos() << 16) / 1_000_000_000).unwrap_or(u32::MAX)
}

/// The socket on the stack.
pub(crate) struct Service {
    sockets: Rc<RefCell<SocketSet<'static>>>,
    udp: SocketHandle,
    server: TimeServer,
    source: TimeSource,
    client: Rc<Shared>,
    lost: u64,
}

impl Service {
    /// Listens on port 123.
    pub(crate) fn new(
        sockets: &Rc<RefCell<SocketSet<'static>>>,
        flag: &Arc<Flag>,
        source: TimeSource,
    ) -> Self {
        let socket = udp::listen(TIME_PORT, QUEUE_PACKETS, QUEUE_BYTES);
        Service {
            sockets: Rc::clone(sockets),
            udp: sockets.borrow_mut().add(socket),
            server: TimeServer::default(),
            source,
            client: Rc::new(Shared::new(flag)),
            lost: 0,
        }
    }

    pub(crate) fn client(&self) -> TimeClient {
        TimeClient::new(&self.client)
    }

    /// Packets without an answer, or without room.
    pub(crate) fn dropped(&self) -> u64 {
        self.server.dropped() + self.lost
    }

    /// Takes and sends packets, questions from this address; whether sockets have changed.
    pub(crate) fn serve(&mut self, now: Instant, own: Ipv6Addr) -> bool {
        let mut progress = false;
        let mut sockets = self.sockets.borrow_mut();
        let socket = sockets.get_mut::<Socket<'_>>(self.udp);
        let micros = u64::try_from(now.total_micros()).unwrap_or(0);
        let now = Duration::from_micros(micros);
        while let Ok((packet, from)) = socket.recv() {
            progress = true;
            let remote = (IpAddr::from(from.endpoint.addr), from.endpoint.port);
            if self.client.take(remote, packet) {
                continue;
            }
            let answer = self.server.answer(now, remote.0, packet, &self.source);
            if let Some(answer) = answer
                && socket.send_slice(&answer, from).is_err()
            {
                self.lost += 1;
            }
        }
        while let Some((to, question)) = self.client.next() {
            progress = true;
            let mut to = UdpMetadata::from((IpAddr::from(to), TIME_PORT));
            to.local_address = Some(IpAddr::from(own).into());
            if socket.send_slice(&question, to).is_err() {
                self.lost += 1;
            }
        }
        progress
    }
}

#[cfg(test)]
mod tests;
