//! A small smoltcp stack beside the router: it answers for the pool's control address toward the node's
//! own guests, and, where the machine itself is none, for the node's own address toward the pool.
//!
//! It answers ICMP echo, serves HTTP and DNS with questions for the router to answer, gives time, and carries TCP
//! connections of this machine's programs. Sans-IO: packets and the time go in, packets, questions and
//! a deadline come out. [`lan`] has the services of a LAN of
//! Ethernet guests.
#![forbid(unsafe_code)]

mod budget;
mod device;
mod dns;
mod flag;
mod http;
pub mod lan;
mod port;
mod question;
mod slots;
mod streams;
mod tcp;
mod time;
mod udp;

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpCidr};

use device::Queues;
use http::Questions;

pub use dns::Names;
pub use flag::Flag;
pub use http::OPENAPI;
pub use port::PacketPort;
pub use question::{Answer, Document, Found, Lookup, Question};
pub use streams::{Listener, STREAMS_MAX, Stream, Streams};
pub use time::{
    NTP_TO_UNIX, Reading, Standing, TIME_PACKET_BYTES, TIME_PORT, TimeClient, TimeServer,
    TimeSource,
};

/// Turns of "packets in, connections on, packets out" in one call, before the rest waits for the
/// next one. A request takes four.
const TURNS_MAX: usize = 16;

/// Where the stack stands.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Its IPv4 address: the pool's control address, or the node's own.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Largest packet, in bytes.
    pub mtu_bytes: u16,
    /// For initial sequence numbers; must be unpredictable.
    pub seed: u64,
    /// The pool's names, and its networks.
    pub names: Names,
}

/// The stack.
///
/// After every [`Self::handle_packet`], [`Self::handle_deadline`] and whenever [`Self::poll_woken`] is
/// ready, drain [`Self::poll_question`] and [`Self::poll_packet`], then arm a timer for
/// [`Self::next_deadline`]. All times are since one arbitrary zero.
pub struct Control {
    v4: Ipv4Addr,
    v6: Ipv6Addr,
    /// The node's own addresses, where they live here beside the control address.
    own: Option<(Ipv4Addr, Ipv6Addr)>,
    prefix_lengths: (u8, u8),
    interface: Interface,
    queues: Rc<RefCell<Queues>>,
    /// Packets leave by a [`PacketPort`], and an address that it was given.
    port: Option<Rc<std::cell::Cell<Option<Ipv4Addr>>>>,
    sockets: Rc<RefCell<SocketSet<'static>>>,
    questions: Questions,
    http: http::Server,
    dns: dns::Server,
    streams: Streams,
    time: Option<time::Service>,
    flag: Arc<Flag>,
    due: Option<Instant>,
}

impl Control {
    /// A stack that serves HTTP on port 80 and DNS on port 53.
    pub fn new(config: ControlConfig, now: Duration) -> Self {
        let mut queues = Queues::new(config.mtu_bytes);
        let mut wanted = Config::new(HardwareAddress::Ip);
        wanted.random_seed = config.seed;
        let interface = Interface::new(wanted, &mut queues, instant(now));
        let sockets = Rc::new(RefCell::new(SocketSet::new(Vec::new())));
        let flag = Arc::<Flag>::default();
        let questions = Questions::default();
        let (v4, v6) = (config.v4, config.v6);
        let prefix_lengths = (config.names.v4.1, config.names.v6.1);
        let suffix = config.names.suffix.clone();
        let http = http::Server::new(&sockets, &flag, &questions, &suffix);
        let mut control = Control {
            v4,
            v6,
            own: None,
            prefix_lengths,
            interface,
            queues: Rc::new(RefCell::new(queues)),
            port: None,
            http,
            dns: dns::Server::new(&sockets, &flag, &questions, config.names),
            streams: Streams::new(&sockets, &flag, config.seed),
            time: None,
            sockets,
            questions,
            flag,
            due: None,
        };
        control.take_addresses();
        control
    }

    /// Gives the interface its addresses and routes.
    fn take_addresses(&mut self) {
        let (v4, v6) = (self.v4, self.v6);
        let prefix_lengths = self.prefix_lengths;
        let both = [Some((v4, v6)), self.own];
        let all = both.into_iter().flatten().flat_map(|(v4, v6)| {
            [
                IpCidr::new(v4.into(), prefix_lengths.0),
                IpCidr::new(v6.into(), prefix_lengths.1),
            ]
        });
        self.interface.update_ip_addrs(|addresses| {
            addresses.clear();
            for address in all {
                addresses
                    .push(address)
                    .expect("the table has room for two addresses of each kind");
            }
        });
        // Guests that forward for others ask from outside the pool's range; everything goes back
        // the same way.
        let routes = self.interface.routes_mut();
        routes
            .add_default_ipv4_route(v4)
            .and_then(|_| routes.add_default_ipv6_route(v6))
            .expect("the table has room for a route of each kind");
    }

    /// The node's own addresses live here too from now on, for guests and for the pool: where the machine itself
    /// is no guest. What leaves from them is the pool's to carry, unless one of the guests is its destination.
    pub fn set_own(&mut self, v4: Ipv4Addr, v6: Ipv6Addr) {
        self.own = Some((v4, v6));
        self.take_addresses();
    }

    /// Where packets come and go from now on, instead of [`Self::handle_packet`] and
    /// [`Self::poll_packet`]: for a stack in the place of a guest.
    pub fn packet_port(&mut self) -> PacketPort {
        let address = self.port.get_or_insert_default();
        PacketPort::new(&self.queues, &self.flag, address)
    }

    /// Gives this clock's time at port 123 from now on; what is returned asks others for theirs.
    pub fn serve_time(&mut self, source: TimeSource) -> TimeClient {
        let service = time::Service::new(&self.sockets, &self.flag, source);
        self.time.insert(service).client()
    }

    /// TCP connections through this stack.
    pub fn streams(&self) -> Streams {
        self.streams.clone()
    }

    /// Whether a packet is for this stack.
    pub fn wants(&self, packet: &[u8]) -> bool {
        let to = ends(packet).map(|[_, to]| to);
        to.is_some_and(|to| self.addresses().contains(&to) || self.is_own(to))
    }

    /// Whether a packet is for the node's own address, and that is here: see [`Self::set_own`].
    pub fn is_for_own(&self, packet: &[u8]) -> bool {
        ends(packet).is_some_and(|[_, to]| self.is_own(to))
    }

    /// Whether a packet comes from the node's own address, and that is here.
    pub fn is_from_own(&self, packet: &[u8]) -> bool {
        ends(packet).is_some_and(|[from, _]| self.is_own(from))
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own
            .is_some_and(|(v4, v6)| address == v4 || address == v6)
    }

    /// Takes a packet that [`Self::wants`] accepted.
    pub fn handle_packet(&mut self, now: Duration, packet: &[u8]) {
        self.queues.borrow_mut().push(packet);
        self.drive(now);
    }

    /// Does what is due, and what it was woken for.
    pub fn handle_deadline(&mut self, now: Duration) {
        self.drive(now);
    }

    /// Ready when there is something to do before the deadline: an answer came, or a packet by the
    /// [`PacketPort`], or a [`Stream`] was written to.
    pub fn poll_woken(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.flag.poll(cx)
    }

    /// The next packet for the guest.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        match self.port {
            None => self.queues.borrow_mut().pop(),
            Some(_) => None,
        }
    }

    /// The next question for the router.
    pub fn poll_question(&mut self) -> Option<Question> {
        self.questions.borrow_mut().pop_front()
    }

    /// When [`Self::handle_deadline`] is due.
    pub fn next_deadline(&self) -> Option<(Duration, &'static str)> {
        let due = self.due?;
        let micros = u64::try_from(due.total_micros()).unwrap_or(0);
        Some((Duration::from_micros(micros), "control stack"))
    }

    /// What was lost, by reason.
    pub fn losses(&self) -> [(&'static str, u64); 5] {
        [
            ("drop_control_full", self.queues.borrow().dropped()),
            ("drop_control_http", self.http.refused()),
            ("drop_control_dns", self.dns.dropped()),
            ("drop_control_streams", self.streams.refused()),
            (
                "drop_control_time",
                self.time.as_ref().map_or(0, time::Service::dropped),
            ),
        ]
    }

    fn drive(&mut self, now: Duration) {
        let now = instant(now);
        if let Some(v4) = self.port.as_ref().and_then(|port| port.take()) {
            self.v4 = v4;
            self.take_addresses();
        }
        let mut busy = true;
        for _ in 0..TURNS_MAX {
            // What is raised from here on is seen below, or by whoever polls.
            self.flag.lower();
            let changed = self.interface.poll(
                now,
                &mut *self.queues.borrow_mut(),
                &mut self.sockets.borrow_mut(),
            );
            let mut served = self.http.serve(now);
            served |= self.dns.serve(now);
            served |= self.streams.serve(now, &mut self.interface);
            if let Some(time) = &mut self.time {
                // The pool knows the node by this one.
                let own = self.own.map_or(self.v6, |(_, v6)| v6);
                served |= time.serve(now, own);
            }
            busy = changed == PollResult::SocketStateChanged || served;
            if !busy {
                break;
            }
        }
        let stack = self.interface.poll_at(now, &self.sockets.borrow());
        let due = [
            stack,
            self.http.next_deadline(),
            self.dns.next_deadline(),
            self.streams.next_deadline(),
            busy.then_some(now),
        ];
        self.due = due.into_iter().flatten().min();
    }

    /// The stack's addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.v4.into(), self.v6.into()]
    }
}

/// Source and destination of a packet.
fn ends(packet: &[u8]) -> Option<[IpAddr; 2]> {
    let v4 = |at: usize| {
        let octets = packet.get(at..at + 4)?;
        Some(IpAddr::from(*octets.first_chunk::<4>()?))
    };
    let v6 = |at: usize| {
        let octets = packet.get(at..at + 16)?;
        Some(IpAddr::from(*octets.first_chunk::<16>()?))
    };
    match packet.first()? >> 4 {
        4 => Some([v4(12)?, v4(16)?]),
        6 => Some([v6(8)?, v6(24)?]),
        _ => None,
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
