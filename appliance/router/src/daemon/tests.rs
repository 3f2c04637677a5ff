//! Whole daemons in one process: memory underlays, memory guests, virtual time.

mod documents;

use std::net::SocketAddr;
use std::task::Poll;

use tokio::sync::oneshot;
use tokio::task::LocalSet;
use wow_control::{ControlConfig, Names};
use wow_guest::memory::{MemoryHost, pair};
use wow_overlay::membership::addresses::{control_v4, control_v6};
use wow_overlay::membership::{Addresses, PoolAuthority, PoolName, Roles};
use wow_overlay::node::Target;
use wow_overlay::time::UnixTime;
use wow_underlay::ReceiveError;
use wow_underlay::memory::Network;

use super::*;
use crate::api::{Peer, Resolved, Status};
use crate::timekeeping::{GiveTime, Keeping, Timekeeping};
use crate::{random, wall_clock};

/// Of virtual time.
const PATIENCE: Duration = Duration::from_secs(120);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Valid since long ago.
fn ticket() -> Ticket {
    let range = wow_overlay::membership::pool::DEFAULT_RANGE;
    let name = PoolName::new("lab").unwrap();
    let pool = PoolAuthority::create(name, range, vec![], &mut random::rng()).unwrap();
    let now = wall_clock::now();
    let (from, until) = (UnixTime(now.0 - 400 * DAY.as_secs()), now + DAY);
    pool.issue_ticket(Roles::ROUTER, from, until, None, &mut random::rng())
        .unwrap()
}

struct Running {
    addresses: Addresses,
    host: MemoryHost,
    commands: mpsc::Sender<Command>,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<Result<()>>,
}

fn underlay_address(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 4001))
}

/// Starts node `number`, with the first as everybody's seed.
fn start(network: &Network, ticket: &Ticket, number: u8) -> Running {
    start_certified(network, ticket, number, wall_clock::now())
}

/// Starts a node whose clock was at `then` when it made its certificate.
fn start_certified(network: &Network, ticket: &Ticket, number: u8, then: UnixTime) -> Running {
    let underlay = Box::new(network.attach(underlay_address(number)));
    start_on(underlay, Box::new(|| {}), ticket, number, then)
}

/// Starts a node on an underlay of any kind.
fn start_on(
    underlay: Box<dyn Underlay>,
    progress: Box<dyn FnMut()>,
    ticket: &Ticket,
    number: u8,
    then: UnixTime,
) -> Running {
    let state = State::in_memory();
    let identity = state.identity(ticket.facts()).unwrap();
    let name = NodeName::new(&format!("n{number}")).unwrap();
    let certificate = state
        .certificate(&identity, ticket, &name, ticket.roles(), None, then)
        .unwrap();
    let addresses = Addresses::new(ticket.facts(), &certificate);
    let (guest, host) = pair();
    let (command_sender, commands) = mpsc::channel(8);
    let seeds = Seeds {
        remotes: vec![Remote::udp(underlay_address(1))],
        ..Seeds::default()
    };
    let (_, seeds) = watch::channel(seeds);
    let facts = ticket.facts();
    let prefix = facts.summary().v6_prefix;
    let control = Control::new(
        ControlConfig {
            v4: control_v4(facts.range),
            v6: control_v6(facts.pool_id()),
            mtu_bytes: 1280,
            seed: 1,
            names: Names {
                suffix: facts.dns_suffix(),
                v4: (facts.range.addr(), facts.range.prefix_len()),
                v6: (prefix.addr(), prefix.prefix_len()),
                forwards: false,
            },
        },
        Duration::ZERO,
    );
    let daemon = Daemon::new(
        Settings {
            ticket: ticket.clone(),
            state,
            identity,
            certificate,
            name,
            role: None,
            address: None,
            tun: None,
            mtu: GuestMtu::default(),
            booted: false,
            clock: Timekeeping::new(Keeping::Host(GiveTime::Never)),
        },
        Parts {
            underlay,
            tcp: None,
            lan: None,
            mapper: None,
            guest: Box::new(guest),
            control: Some(control),
            services: Services::new(command_sender.clone(), &[]),
            guests: None,
            interfaces: None,
            alarm: Alarm::of_runtime(),
            progress,
            seeds,
            commands,
        },
    );
    let (stop, stopped) = oneshot::channel();
    let ended = tokio::task::spawn_local(daemon.run(async {
        let _ = stopped.await;
    }));
    Running {
        addresses,
        host,
        commands: command_sender,
        stop: Some(stop),
        ended,
    }
}

impl Running {
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> T {
        let (asker, answer) = oneshot::channel();
        assert!(self.commands.send(command(asker)).await.is_ok(), "running");
        tokio::time::timeout(PATIENCE, answer)
            .await
            .expect("an answer in time")
            .expect("an answer")
    }

    async fn joined(&self) -> Status {
        *self.ask(Command::Joined).await
    }

    async fn status(&self) -> Status {
        *self.ask(Command::Status).await
    }

    /// Waits until it tells of a trouble with all these words.
    async fn tells_of(&self, words: &[&str]) {
        let told = async {
            loop {
                let trouble = self.status().await.trouble;
                if trouble
                    .iter()
                    .any(|told| words.iter().all(|word| told.contains(word)))
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, told).await.is_err() {
            panic!("no trouble {words:?} in {:?}", self.status().await.trouble);
        }
    }

    async fn peers(&self) -> Vec<Peer> {
        self.ask(Command::Peers).await
    }

    async fn resolve(&self, name: &str) -> Resolved {
        self.ask(|asker| Command::Resolve(Target::Name(name.into()), asker))
            .await
            .expect("found")
    }

    async fn stop(mut self) {
        drop(self.stop.take());
        tokio::time::timeout(PATIENCE, self.ended)
            .await
            .expect("ends in time")
            .expect("no panic")
            .expect("no error");
    }
}

/// An IPv4 packet with a payload of protocol 253, which RFC 3692 sets aside for experiments.
fn packet(from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    let words = packet.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    packet
}

/// A network card that takes a number of datagrams and then none.
struct Stuck {
    takes: usize,
    address: SocketAddr,
}

impl Underlay for Stuck {
    fn poll_receive(
        &mut self,
        _: &mut std::task::Context<'_>,
        _: &mut ReceiveBatch,
    ) -> Poll<Result<(), ReceiveError>> {
        Poll::Pending
    }

    fn send(&mut self, batch: &[wow_underlay::Outgoing]) -> wow_underlay::Sent {
        let taken = self.takes.min(batch.len());
        self.takes -= taken;
        wow_underlay::Sent {
            taken,
            failures: Vec::new(),
        }
    }

    fn poll_sendable(&mut self, _: &mut std::task::Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    fn bound(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    fn oversized(&self) -> u64 {
        0
    }
}

/// A network that has another datagram whenever it is asked, and gives up when nobody else gets a turn.
struct Flood {
    received: usize,
}

impl Flood {
    const MAX: usize = 100_000;
}

impl Underlay for Flood {
    fn poll_receive(
        &mut self,
        _: &mut std::task::Context<'_>,
        batch: &mut ReceiveBatch,
    ) -> Poll<Result<(), ReceiveError>> {
        self.received += 1;
        assert!(self.received < Self::MAX, "nothing else had its turn");
        batch.clear();
        assert!(batch.push(underlay_address(9), b"no datagram of ours"));
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, batch: &[wow_underlay::Outgoing]) -> wow_underlay::Sent {
        wow_underlay::Sent {
            taken: batch.len(),
            failures: Vec::new(),
        }
    }

    fn poll_sendable(&mut self, _: &mut std::task::Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn bound(&self) -> Vec<SocketAddr> {
        vec![underlay_address(1)]
    }

    fn oversized(&self) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_datagrams_keeps_nobody_else_waiting() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let flood = Box::new(Flood { received: 0 });
            let node = start_on(flood, Box::new(|| {}), &ticket(), 1, wall_clock::now());
            for number in 1..=3 {
                assert!(node.host.send(vec![0]));
                let lost = |status: Status| status.counters.get("drop_guest_invalid").copied();
                while lost(node.status().await).unwrap_or(0) < number {}
            }
            node.stop().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_loop_whose_datagrams_do_not_leave_makes_no_progress() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let ticket = ticket();
            let progress_with = async |takes| {
                let count = std::rc::Rc::new(std::cell::Cell::new(0));
                let counted = std::rc::Rc::clone(&count);
                let address = underlay_address(2);
                let node = start_on(
                    Box::new(Stuck { takes, address }),
                    Box::new(move || counted.set(counted.get() + 1)),
                    &ticket,
                    2,
                    wall_clock::now(),
                );
                tokio::time::sleep(Duration::from_secs(60)).await;
                drop(node);
                count.get()
            };
            let (stuck, sound) = (progress_with(1).await, progress_with(usize::MAX).await);
            assert!(stuck <= 2, "{stuck}");
            assert!(sound >= 30, "{sound}");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn three_nodes_join_carry_packets_and_part() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (network, ticket) = (Network::new(), ticket());
            let mut nodes: Vec<_> = (1..=3).map(|n| start(&network, &ticket, n)).collect();
            for node in &nodes[1..] {
                let status = node.joined().await;
                assert!(status.joined);
                assert!(status.joined_after_ms.is_some());
            }
            for from in 0..3 {
                for to in (0..3).filter(|&to| to != from) {
                    let (source, target) = (nodes[from].addresses.v4, nodes[to].addresses.v4);
                    let sent = packet(source, target, format!("{from} to {to}").as_bytes());
                    assert!(nodes[from].host.send(sent.clone()));
                    let received = tokio::time::timeout(PATIENCE, nodes[to].host.receive()).await;
                    assert_eq!(received.expect("arrives in time"), Some(sent));
                }
            }
            let found = nodes[1].resolve("n3").await;
            assert_eq!(found.v4, nodes[2].addresses.v4);
            let pong = nodes[1]
                .ask(|asker| Command::Echo(found.id.parse().unwrap(), asker))
                .await;
            assert!(pong.is_some());
            let peers = nodes[0].peers().await;
            assert_eq!(peers.len(), 2);
            assert!(
                peers.iter().all(|peer| peer.path.kind == "udp"),
                "{peers:?}"
            );

            // A goodbye is noticed at once, long before any probe fails.
            let gone = nodes.pop().unwrap();
            gone.stop().await;
            let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
            loop {
                let peers = nodes[0].peers().await;
                if !peers.iter().any(|peer| peer.name == "n3") {
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "{peers:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for node in nodes {
                node.stop().await;
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn the_control_address_answers_its_own_guest_alone() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (network, ticket) = (Network::new(), ticket());
            let mut node = start(&network, &ticket, 1);
            let control = control_v4(ticket.facts().range);
            // An echo request: protocol 1 in place of 253, checksum computed by hand.
            let mut request = packet(
                node.addresses.v4,
                control,
                &[8, 0, 0xe5, 0xca, 0x12, 0x34, 0, 1],
            );
            request[9] = 1;
            let sum = u16::from_be_bytes([request[10], request[11]]);
            let (fixed, carry) = sum.overflowing_add(253 - 1);
            request[10..12].copy_from_slice(&(fixed + u16::from(carry)).to_be_bytes());
            assert!(node.host.send(request));
            let reply = tokio::time::timeout(PATIENCE, node.host.receive()).await;
            let reply = reply.expect("in time").expect("running");
            assert_eq!(reply[12..16], control.octets());
            assert_eq!(reply[16..20], node.addresses.v4.octets());
            assert_eq!(reply[20], 0, "an echo reply");
            let status = node.status().await;
            assert_eq!(status.counters["guest_out"], 0, "it never left the machine");
            node.stop().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn losses_are_counted_by_reason() {
    let local = LocalSet::new();
    local
        .run_until(async {
            let (network, ticket) = (Network::new(), ticket());
            let node = start(&network, &ticket, 1);
            let mut stranger = network.attach(underlay_address(9));
            let garbage = b"no datagram of ours".to_vec();
            let garbage = wow_underlay::Outgoing::one(underlay_address(1), garbage);
            stranger.send(&[garbage]);
            assert!(node.host.send(vec![0xff; 40]));
            let deadline = tokio::time::Instant::now() + PATIENCE;
            loop {
                let counters = node.status().await.counters;
                if counters["drop_malformed"] == 1 && counters["drop_guest_invalid"] == 1 {
                    break;
                }
                assert!(tokio::time::Instant::now() < deadline, "{counters:?}");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            node.stop().await;
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_says_why_it_has_not_joined() {
    let network = Network::new();
    let ticket = ticket();
    LocalSet::new()
        .run_until(async {
            // Nobody is there.
            let late = start(&network, &ticket, 2);
            late.tells_of(&["192.0.2.1:4001", "not answer", "firewalls"])
                .await;
            // A seed whose clock was wrong by a year: one of the two is, as far as the other knows.
            let lost = UnixTime(wall_clock::now().0 - 365 * DAY.as_secs());
            let seed = start_certified(&network, &ticket, 1, lost);
            late.tells_of(&["192.0.2.1:4001", "expired", "clock"]).await;
            // It has a new certificate within a minute, and then all is well.
            late.joined().await;
            assert_eq!(late.status().await.trouble, [""; 0]);
            // A newcomer with such a clock is not heard of again.
            let odd = start_certified(&network, &ticket, 3, lost);
            odd.tells_of(&["accepts no session", "clock", "revoked"])
                .await;
            for running in [odd, late, seed] {
                running.stop().await;
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_cut_off_does_not_blame_its_last_peer() {
    let network = Network::new();
    let ticket = ticket();
    LocalSet::new()
        .run_until(async {
            let seed = start(&network, &ticket, 1);
            let node = start(&network, &ticket, 2);
            node.joined().await;
            // Without a goodbye, as when the cable is pulled.
            seed.ended.abort();
            node.tells_of(&["192.0.2.1:4001", "not answer"]).await;
            node.stop().await;
        })
        .await;
}
