//! The clock by the pool's members: those that this node has sessions with are asked together, and what they say is
//! made one correction ([`Judge`]).
//!
//! Only members whose time comes from outside the pool count. Each is asked at the address that follows from its id,
//! where nobody else answers, so each counts once.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use wow_control::{TIME_PACKET_BYTES, TIME_PORT, TimeClient};

use super::choice::{Judge, Verdict};
use super::question::{Offset, Question, Refusal};
use super::serve::open;
use super::{INTERVAL, Keeping, POOL_STRATUM, RETRY, Timekeeping, Told, now, rest};
use crate::api::Peer;
use crate::daemon::command::Command;
use crate::random;

/// Members asked at once.
const ASKED_MAX: usize = 16;
/// For their answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// How questions reach members.
pub enum Way {
    /// By the kernel, through this device.
    Device(String),
    /// By the stack where the node's own address lives.
    Stack(TimeClient),
}

/// A member's answer.
struct Said {
    who: Ipv6Addr,
    name: String,
    offset: Offset,
    round_trip: Duration,
}

/// Keeps the clock by the pool while that is who keeps it, for ever.
pub async fn follow(clock: Timekeeping, way: Option<Way>, commands: mpsc::Sender<Command>) {
    let Some(way) = way else {
        return std::future::pending().await;
    };
    let mut judge = Judge::default();
    let mut sources = Vec::new();
    let mut retry = RETRY;
    while clock.keeping() == Keeping::Pool {
        let pauses = wow_init::clock::pauses();
        let said = match peers(&commands).await {
            Some(peers) => ask(&way, chosen(peers, &sources)).await,
            None => Vec::new(),
        };
        // A member that was silent once is another's turn.
        sources = said.iter().map(|said| said.who).collect();
        let pause = if conclude(&clock, &mut judge, &said) {
            retry.reset();
            INTERVAL
        } else {
            retry.pause()
        };
        rest(pause, pauses).await;
    }
    std::future::pending().await
}

/// The node's sessions, once it has joined.
async fn peers(commands: &mpsc::Sender<Command>) -> Option<Vec<Peer>> {
    let (asker, joined) = oneshot::channel();
    commands.send(Command::Joined(asker)).await.ok()?;
    joined.await.ok()?;
    let (asker, peers) = oneshot::channel();
    commands.send(Command::Peers(asker)).await.ok()?;
    peers.await.ok()
}

/// Those to ask: who had the time before, and others by chance.
fn chosen(mut peers: Vec<Peer>, sources: &[Ipv6Addr]) -> Vec<Peer> {
    peers.sort_by_cached_key(|peer| (!sources.contains(&peer.v6), random::number()));
    peers.truncate(ASKED_MAX);
    peers
}

/// The answers of those that have their time from outside the pool.
async fn ask(way: &Way, peers: Vec<Peer>) -> Vec<Said> {
    let socket = match Socket::open(way) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::warn!(%error, "cannot ask members for the time");
            return Vec::new();
        }
    };
    let (asked, begun) = (now(), Instant::now());
    let mut waiting = Vec::new();
    for peer in peers {
        let question = Question::new();
        match socket.send(peer.v6, question.packet()).await {
            Ok(()) => waiting.push((peer, question)),
            Err(error) => tracing::debug!(member = peer.name, %error, "not asked for the time"),
        }
    }
    let mut said = Vec::new();
    while !waiting.is_empty() {
        let Ok(received) = timeout_at(begun + PATIENCE, socket.receive()).await else {
            break;
        };
        let Ok((from, packet)) = received else {
            continue;
        };
        let round_trip = begun.elapsed();
        let middle = asked + round_trip / 2;
        let index = waiting.iter().position(|(peer, _)| peer.v6 == from);
        let Some(index) = index else { continue };
        let answer = waiting[index].1.read(&packet, middle);
        if let Err(Refusal::Foreign) = answer {
            continue;
        }
        let (peer, _) = waiting.swap_remove(index);
        match answer {
            Ok(answer) if answer.stratum < POOL_STRATUM => said.push(Said {
                who: peer.v6,
                name: peer.name,
                offset: Offset::of(middle, answer.time),
                round_trip,
            }),
            _ => tracing::debug!(member = peer.name, "has no time from outside the pool"),
        }
    }
    said
}

/// Sets the clock by what was said; whether that need not be asked again soon.
fn conclude(clock: &Timekeeping, judge: &mut Judge, said: &[Said]) -> bool {
    let offsets: Vec<_> = said.iter().map(|said| said.offset).collect();
    let (offset, members) = match judge.decide(&offsets) {
        Verdict::Agreed { offset, members } => (offset, members),
        Verdict::Silence => {
            tracing::debug!("no member that answers has the time");
            clock.set_trouble(None);
            return false;
        }
        Verdict::Disagreed => {
            let names: Vec<_> = said.iter().map(|said| &*said.name).collect();
            clock.set_trouble(Some(format!(
                "members of the pool disagree about the time, so this machine's clock is left as it is: {}; set the \
                 clock of whichever is wrong, or give this machine time servers by the key `time`",
                names.join(", ")
            )));
            return false;
        }
        Verdict::TooFar(offset) => {
            clock.set_trouble(Some(format!(
                "by the clock of {}, the only member that has the time, this machine's clock is {offset}, which one \
                 member alone is not believed: set whichever clock is wrong, or give this machine time servers by \
                 the key `time`",
                said[0].name
            )));
            return false;
        }
    };
    clock.set_trouble(None);
    let decisive = said.iter().find(|said| said.offset == offset);
    let decisive = decisive.expect("what was decided is what one of them said");
    clock.correct(Told {
        with: match members {
            1 => format!("the member {}", decisive.name),
            _ => format!("{members} members of the pool"),
        },
        offset,
        stratum: POOL_STRATUM,
        reference: super::reference(decisive.who.into()),
        error: decisive.round_trip / 2,
    });
    members > 1
}

/// A way that is open.
enum Socket<'a> {
    Kernel(UdpSocket),
    Stack(&'a TimeClient),
}

impl<'a> Socket<'a> {
    fn open(way: &'a Way) -> io::Result<Self> {
        match way {
            Way::Device(device) => {
                let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
                Ok(Socket::Kernel(open(any, device)?))
            }
            Way::Stack(client) => Ok(Socket::Stack(client)),
        }
    }

    async fn send(&self, to: Ipv6Addr, question: [u8; TIME_PACKET_BYTES]) -> io::Result<()> {
        match self {
            Socket::Kernel(socket) => {
                let sent = socket.send_to(&question, (to, TIME_PORT)).await;
                sent.map(drop)
            }
            Socket::Stack(client) => {
                client.send(to, question);
                Ok(())
            }
        }
    }

    async fn receive(&self) -> io::Result<(IpAddr, [u8; TIME_PACKET_BYTES])> {
        match self {
            Socket::Kernel(socket) => {
                let mut packet = [0; TIME_PACKET_BYTES];
                loop {
                    match socket.recv_from(&mut packet).await {
                        Ok((TIME_PACKET_BYTES, from)) if from.port() == TIME_PORT => {
                            return Ok((from.ip(), packet));
                        }
                        Ok(_) => {}
                        // Of somebody who does not listen there; the others' answers may still come.
                        Err(error) => tracing::debug!(%error, "asking members for the time"),
                    }
                }
            }
            Socket::Stack(client) => Ok(client.receive().await),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timekeeping::TOLERANCE;

    fn said(milliseconds: &[i64]) -> Vec<Said> {
        let each = milliseconds.iter().zip(1..);
        each.map(|(milliseconds, number)| Said {
            who: Ipv6Addr::from_bits(number),
            name: format!("n{number}"),
            offset: Offset::from_milliseconds(*milliseconds),
            round_trip: Duration::from_millis(6),
        })
        .collect()
    }

    #[test]
    fn what_members_say_is_served_as_the_pools_and_what_is_wrong_is_told_until_it_is_over() {
        let clock = Timekeeping::new(Keeping::Pool);
        let mut judge = Judge::default();
        let day = 86_400_000;
        // So little that no clock is touched.
        assert!(TOLERANCE > Duration::from_millis(9));
        assert!(conclude(&clock, &mut judge, &said(&[3, 5, 9])));
        let standing = clock.reading().standing.unwrap();
        assert_eq!((standing.stratum, standing.reference), (8, [0, 0, 0, 2]));
        assert_eq!(clock.report().from, "3 members of the pool");

        assert!(!conclude(&clock, &mut judge, &said(&[3, day])));
        let trouble = clock.trouble().unwrap();
        assert!(trouble.contains("disagree") && trouble.contains("n1, n2"));
        // What was known before still holds.
        assert!(clock.reading().standing.is_some());
        assert!(!conclude(&clock, &mut judge, &said(&[-3 * day])));
        let trouble = clock.trouble().unwrap();
        assert!(
            trouble.contains("n1") && trouble.contains("259200s ahead"),
            "{trouble}"
        );
        assert!(!conclude(&clock, &mut judge, &[]));
        assert_eq!(clock.trouble(), None);
        assert!(!conclude(&clock, &mut judge, &said(&[4])));
        assert_eq!(clock.report().from, "the member n1");
    }
}
