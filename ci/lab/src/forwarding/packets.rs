//! Numbered UDP packets through the machine, no more under way than its queues hold: whatever does not
//! arrive was lost by the machine, and whatever comes late was overtaken in it.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use serde::Serialize;

use super::machine::{ADDRESSES, Counters, Machine};
use crate::{inside, interrupt};

/// The port of both ends.
const PORT: u16 = 7008;

/// Packets under way in one direction: as many as a queue's descriptors, which is half of what the
/// machine and the TAP devices hold.
const WINDOW: u64 = 256;

/// Packets are sent when so many may be: side by side, as a fast sender does.
const BURST: u64 = 64;

/// After so many waits of this length without any packet the traffic has stalled. Several, because a wait
/// also ends when everything stood still meanwhile.
const STALL: (u32, Duration) = (3, Duration::from_secs(4));

/// A packet begins with its number.
const NUMBER_BYTES: usize = 8;

/// Lengths of [`Sizes::Many`] go through this prime's multiples.
const SIZES: u64 = 1451;

/// When to end.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// After so long.
    Time(Duration),
    /// After so many packets, both directions together.
    Packets(u64),
}

/// How long packets are.
#[derive(Debug, Clone, Copy)]
pub enum Sizes {
    /// All of this many bytes, in one direction.
    Fixed(usize),
    /// Of many lengths up to what Ethernet carries, in both directions.
    Many,
}

impl Sizes {
    fn of(self, number: u64) -> usize {
        match self {
            Sizes::Fixed(bytes) => bytes,
            // Short ones are the more frequent.
            Sizes::Many if number.is_multiple_of(4) => {
                16 + (number.wrapping_mul(7919) % SIZES) as usize
            }
            Sizes::Many => 16 + (number % 100) as usize,
        }
    }
}

/// What happened to packets.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Soak {
    /// Packets that arrived.
    pub arrived: u64,
    /// Packets that did not.
    pub missing: u64,
    /// Packets that arrived after later ones, or twice.
    pub overtaken: u64,
    /// The longest time without a packet, in milliseconds.
    pub longest_gap_ms: f64,
    /// How long it took.
    pub seconds: f64,
    /// What the machine counted.
    pub counters: Counters,
}

impl Soak {
    fn add(&mut self, other: &Soak) {
        self.arrived += other.arrived;
        self.missing += other.missing;
        self.overtaken += other.overtaken;
        self.longest_gap_ms = self.longest_gap_ms.max(other.longest_gap_ms);
        self.seconds = self.seconds.max(other.seconds);
    }

    /// An error when a packet was overtaken, or lost without being counted.
    pub fn check(&self) -> Result<()> {
        ensure!(
            self.overtaken == 0,
            "{} packets were overtaken",
            self.overtaken
        );
        let counted = self.counters.dropped();
        ensure!(
            self.missing <= counted,
            "{} packets are missing, and the machine counted {counted}",
            self.missing
        );
        Ok(())
    }
}

/// Sends until the limit; `progress` hears now and then how many have arrived.
pub fn run(
    machine: &Machine,
    limit: Limit,
    sizes: Sizes,
    progress: &mut dyn FnMut(u64),
) -> Result<Soak> {
    let directions = match sizes {
        Sizes::Fixed(_) => 1,
        Sizes::Many => 2,
    };
    let sockets = [socket(machine, 0)?, socket(machine, 1)?];
    let limit = match limit {
        Limit::Packets(packets) => Limit::Packets(packets.div_ceil(directions)),
        time @ Limit::Time(_) => time,
    };
    let arrived = Arc::new(AtomicU64::new(0));
    let mut threads = Vec::new();
    for from in 0..directions as usize {
        let (sender, receiver) = (sockets[from].try_clone()?, sockets[1 - from].try_clone()?);
        let arrived = arrived.clone();
        threads.push(std::thread::spawn(move || {
            one_way(&sender, &receiver, limit, sizes, &arrived)
        }));
    }
    while threads.iter().any(|thread| !thread.is_finished()) {
        std::thread::sleep(Duration::from_millis(100));
        progress(arrived.load(Ordering::Relaxed));
    }
    let mut soak = Soak::default();
    for thread in threads {
        soak.add(&thread.join().expect("a direction does not panic")?);
    }
    Ok(soak)
}

/// A socket in a peer's namespace; it stays there wherever it is used.
fn socket(machine: &Machine, number: usize) -> Result<UdpSocket> {
    let made = inside::spawn(machine.space(number), move || {
        let socket = UdpSocket::bind((ADDRESSES[number], PORT))?;
        socket.connect((ADDRESSES[1 - number], PORT))?;
        // A whole window of the longest packets, with what the kernel keeps beside each: what is lost here
        // would be taken for the machine's loss.
        set_socket_recv_buffer_size_force(&socket, WINDOW as usize * 16 * 1024)?;
        Ok(socket)
    })?;
    made.join().expect("making a socket does not panic")
}

fn one_way(
    sender: &UdpSocket,
    receiver: &UdpSocket,
    limit: Limit,
    sizes: Sizes,
    arrived: &AtomicU64,
) -> Result<Soak> {
    let started = Instant::now();
    let (mut soak, mut sent, mut next) = (Soak::default(), 0_u64, 0_u64);
    let mut last = started;
    let mut buffer = [0; 2048];
    let content = [0x5a; 2048];
    receiver.set_read_timeout(Some(STALL.1))?;
    let mut silent = 0;
    loop {
        let ended = match limit {
            Limit::Time(span) => started.elapsed() >= span,
            Limit::Packets(packets) => sent >= packets,
        } || interrupt::requested();
        // `next` counts what has arrived or is known to be lost.
        if !ended && WINDOW - (sent - next) >= BURST {
            for _ in 0..BURST {
                let mut packet = content;
                packet[..NUMBER_BYTES].copy_from_slice(&sent.to_be_bytes());
                sender
                    .send(&packet[..sizes.of(sent)])
                    .context("cannot send")?;
                sent += 1;
            }
        }
        if sent == next {
            break;
        }
        let length = match receiver.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                silent += 1;
                if silent < STALL.0 {
                    continue;
                }
                if ended && sent - next < WINDOW {
                    // The last ones can only be missed.
                    soak.missing += sent - next;
                    break;
                }
                bail!(
                    "traffic has stalled after {} packets, with {} under way",
                    soak.arrived,
                    sent - next
                );
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("cannot receive"),
        };
        let Some(number) = buffer[..length].first_chunk().copied() else {
            bail!("a packet of {length} bytes arrived");
        };
        let number = u64::from_be_bytes(number);
        let intact = number < sent
            && length == sizes.of(number)
            && buffer[NUMBER_BYTES..length] == content[NUMBER_BYTES..length];
        ensure!(intact, "packet {number} arrived changed");
        silent = 0;
        let now = Instant::now();
        soak.longest_gap_ms = soak.longest_gap_ms.max((now - last).as_secs_f64() * 1e3);
        last = now;
        soak.arrived += 1;
        if number < next {
            soak.overtaken += 1;
            continue;
        }
        soak.missing += number - next;
        next = number + 1;
        if soak.arrived.is_multiple_of(4096) {
            arrived.fetch_add(4096, Ordering::Relaxed);
        }
    }
    soak.seconds = started.elapsed().as_secs_f64();
    interrupt::check()?;
    Ok(soak)
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::set_socket_recv_buffer_size;

    use super::*;

    fn between(sizes: Sizes, packets: u64) -> Soak {
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let two = UdpSocket::bind("127.0.0.1:0").unwrap();
        one.connect(two.local_addr().unwrap()).unwrap();
        // As much as everybody may have: a window fits.
        set_socket_recv_buffer_size(&two, 208 << 10).unwrap();
        let limit = Limit::Packets(packets);
        one_way(&one, &two, limit, sizes, &AtomicU64::new(0)).unwrap()
    }

    #[test]
    fn packets_that_pass_are_counted_and_ones_that_are_missing_must_have_been_too() {
        let soak = between(Sizes::Many, 2000);
        assert!(soak.arrived >= 2000, "whole bursts are sent");
        assert_eq!((soak.missing, soak.overtaken), (0, 0));
        soak.check().unwrap();
        let mut lossy = Soak {
            missing: 3,
            ..Soak::default()
        };
        assert!(lossy.check().is_err());
        lossy.counters.full = 3;
        lossy.check().unwrap();
        lossy.overtaken = 1;
        assert!(lossy.check().is_err());
    }

    #[test]
    fn lengths_fit_ethernet_and_differ() {
        let lengths: std::collections::BTreeSet<usize> =
            (0..10_000).map(|number| Sizes::Many.of(number)).collect();
        assert!(lengths.len() > 1000);
        assert!(*lengths.first().unwrap() >= NUMBER_BYTES && *lengths.last().unwrap() <= 1472);
    }
}
