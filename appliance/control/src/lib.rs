//! The pool's control address: a small smoltcp stack that answers the node's own guest.
//!
//! It answers ICMP echo and serves HTTP with questions for the router to answer; its packets never
//! leave the machine. Sans-IO: packets and the time go in, packets, questions and a deadline come
//! out. Left out for now: DNS, and stacks toward Ethernet guests.
#![forbid(unsafe_code)]

mod device;
mod http;
mod tcp;

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};

use device::Queues;
use http::Server;

pub use http::{Answer, Question};

/// Turns of "packets in, connections on, packets out" in one call, before the rest waits for the
/// next one. A request takes four.
const TURNS_MAX: usize = 16;

/// Where the stack stands.
#[derive(Debug, Clone, Copy)]
pub struct ControlConfig {
    /// The pool's control address.
    pub address: Ipv4Addr,
    /// The length of the pool's prefix.
    pub prefix_length: u8,
    /// Largest packet, in bytes.
    pub mtu_bytes: u16,
    /// For initial sequence numbers; must be unpredictable.
    pub seed: u64,
}

/// The stack.
///
/// After every [`Self::handle_packet`], [`Self::handle_deadline`] and answered question drain
/// [`Self::poll_question`] and [`Self::poll_packet`], then arm a timer for
/// [`Self::next_deadline`]. An answer needs a [`Self::handle_deadline`] to go out. All times are
/// since one arbitrary zero.
pub struct Control {
    address: Ipv4Addr,
    interface: Interface,
    queues: Queues,
    sockets: Rc<RefCell<SocketSet<'static>>>,
    server: Server,
    due: Option<Instant>,
}

impl Control {
    /// A stack that serves HTTP on port 80.
    pub fn new(config: ControlConfig, now: Duration) -> Self {
        let mut queues = Queues::new(config.mtu_bytes);
        let mut wanted = Config::new(HardwareAddress::Ip);
        wanted.random_seed = config.seed;
        let mut interface = Interface::new(wanted, &mut queues, instant(now));
        interface.update_ip_addrs(|addresses| {
            addresses
                .push(IpCidr::new(
                    IpAddress::Ipv4(config.address),
                    config.prefix_length,
                ))
                .expect("the table has room for one address");
        });
        // Guests that forward for others ask from outside the pool's range; everything goes back
        // the same way.
        interface
            .routes_mut()
            .add_default_ipv4_route(config.address)
            .expect("the table has room for one route");
        let sockets = Rc::new(RefCell::new(SocketSet::new(Vec::new())));
        let server = Server::new(&sockets);
        Control {
            address: config.address,
            interface,
            queues,
            sockets,
            server,
            due: None,
        }
    }

    /// Whether a packet from the guest is for this stack.
    pub fn wants(&self, packet: &[u8]) -> bool {
        packet.len() >= 20 && packet[0] >> 4 == 4 && packet[16..20] == self.address.octets()
    }

    /// Takes a packet that [`Self::wants`] accepted.
    pub fn handle_packet(&mut self, now: Duration, packet: &[u8]) {
        self.queues.push(packet);
        self.drive(now);
    }

    /// Does what is due.
    pub fn handle_deadline(&mut self, now: Duration) {
        self.drive(now);
    }

    /// The next packet for the guest.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.queues.pop()
    }

    /// The next question for the router.
    pub fn poll_question(&mut self) -> Option<Question> {
        self.server.poll_question()
    }

    /// When [`Self::handle_deadline`] is due.
    pub fn next_deadline(&self) -> Option<(Duration, &'static str)> {
        let due = self.due?;
        let micros = u64::try_from(due.total_micros()).unwrap_or(0);
        Some((Duration::from_micros(micros), "control stack"))
    }

    /// Packets lost because a queue was full.
    pub fn dropped(&self) -> u64 {
        self.queues.dropped()
    }

    fn drive(&mut self, now: Duration) {
        let now = instant(now);
        let mut busy = true;
        for _ in 0..TURNS_MAX {
            let changed =
                self.interface
                    .poll(now, &mut self.queues, &mut self.sockets.borrow_mut());
            let served = self.server.serve(now);
            busy = changed == PollResult::SocketStateChanged || served;
            if !busy {
                break;
            }
        }
        let stack = self.interface.poll_at(now, &self.sockets.borrow());
        let server = self.server.next_deadline();
        let unfinished = busy.then_some(now);
        self.due = [stack, server, unfinished].into_iter().flatten().min();
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests;
