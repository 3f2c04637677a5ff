//! Nodes on an in-memory network without loss: what each promise of the facade looks like from
//! outside. Loss, NATs and scale are the simulator's.

mod attacks;
mod batches;
mod enemy;
mod healing;
mod membership;
mod runs;
mod sizes;
mod table;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::SeedableRng;

use super::*;
use crate::membership::{CertificateRequest, PoolAuthority, PoolName, Roles, Ticket};
use crate::wire::outer::Outer;

const LATENCY: Duration = Duration::from_millis(10);
const WALL: UnixTime = UnixTime(1_800_000_000);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

struct Member {
    node: Node,
    address: Remote,
    identity: Identity,
    alive: bool,
    received: Vec<Vec<u8>>,
    events: Vec<Event>,
}

struct Net {
    now: Instant,
    authority: PoolAuthority,
    ticket: Ticket,
    rng: Rng,
    members: Vec<Member>,
    flying: BTreeMap<(Instant, u64), (Remote, Remote, Vec<u8>)>,
    sequence: u64,
    guest_mtu: usize,
    /// The longest datagram that arrives, and between some pairs.
    carries: usize,
    narrow: Vec<(usize, usize, usize)>,
    /// The most bytes of datagrams that leave together and arrive.
    together_bytes: usize,
    /// Pairs that cannot reach each other over UDP.
    cut: Vec<(usize, usize)>,
    /// The last messages of handshakes are lost.
    finals_are_lost: bool,
    /// A member that does as it likes.
    enemy: Option<enemy::Enemy>,
    /// Everything sent, while somebody listens: from, to, what.
    overheard: Option<Vec<(Remote, Remote, Vec<u8>)>>,
    /// The share of datagrams that is lost, and what draws which.
    loss: f64,
    dice: Rng,
    /// Draws what happens to datagrams on a network that delays, repeats and damages them.
    chaos: Option<Rng>,
}

impl Net {
    fn new(seed: u64) -> Net {
        Net::with_range(seed, "10.128.0.0/9")
    }

    fn with_range(seed: u64, range: &str) -> Net {
        let mut rng = Rng::seed_from_u64(seed);
        let name = PoolName::new("lab").unwrap();
        let range = range.parse().unwrap();
        let authority = PoolAuthority::create(name, range, Vec::new(), &mut rng).unwrap();
        let ticket = authority
            .issue_ticket(Roles::ALL, WALL, WALL + MONTH, None, &mut rng)
            .unwrap();
        Net {
            now: Instant::ZERO,
            authority,
            ticket,
            rng,
            members: Vec::new(),
            flying: BTreeMap::new(),
            sequence: 0,
            guest_mtu: GUEST_MTU_DEFAULT,
            carries: 65_507,
            narrow: Vec::new(),
            together_bytes: 65_507,
            cut: Vec::new(),
            finals_are_lost: false,
            enemy: None,
            overheard: None,
            loss: 0.0,
            dice: Rng::seed_from_u64(seed),
            chaos: None,
        }
    }

    /// A ticket beside the first one.
    fn issue(&mut self) -> Ticket {
        let issued =
            self.authority
                .issue_ticket(Roles::ALL, WALL, WALL + MONTH, None, &mut self.rng);
        issued.unwrap()
    }

    fn with_members(seed: u64, count: usize) -> Net {
        let mut net = Net::new(seed);
        for _ in 0..count {
            net.add(None);
        }
        net
    }

    fn add(&mut self, fixed_address: Option<Ipv4Addr>) -> usize {
        let name = format!("node-{}", self.members.len());
        self.add_named(&name, fixed_address)
    }

    fn add_named(&mut self, name: &str, fixed_address: Option<Ipv4Addr>) -> usize {
        let index = self.members.len();
        let identity = Identity::generate(&mut self.rng);
        let request = CertificateRequest {
            name: name.parse().unwrap(),
            roles: Roles::ROUTER,
            fixed_address,
            not_before: WALL,
            not_after: WALL + MONTH,
        };
        let certificate = self.ticket.certify(&identity, &request).unwrap();
        let address = Remote::udp(([192, 0, 2, index as u8 + 1], 4001).into());
        let seed = Remote::udp(([192, 0, 2, 1], 4001).into());
        let config = Config {
            identity: identity.clone(),
            certificate,
            pool: self.ticket.facts().clone(),
            seeds: if index == 0 { vec![] } else { vec![seed] },
            rng_seed: self.rng.random(),
            wall: WALL,
            ciphers: CipherPreference::aes_first(),
            guest_mtu: self.guest_mtu,
        };
        let mut node = Node::new(config, self.now);
        node.set_host_candidates(self.now, vec![address]);
        self.members.push(Member {
            node,
            address,
            identity,
            alive: true,
            received: Vec::new(),
            events: Vec::new(),
        });
        index
    }

    /// A member's certificate anew, until `span` after the beginning.
    fn renewed(&self, index: usize, span: Duration) -> Certificate {
        let member = &self.members[index];
        let old = member.node.certificate();
        let request = CertificateRequest {
            name: old.name().clone(),
            roles: old.roles(),
            fixed_address: old.fixed_address(),
            not_before: WALL,
            not_after: WALL + span,
        };
        self.ticket.certify(&member.identity, &request).unwrap()
    }

    fn drain(&mut self) {
        let mut sent = Vec::new();
        for index in 0..self.members.len() {
            let member = &mut self.members[index];
            while let Some(transmit) = member.node.poll_transmit() {
                let to = transmit.to;
                let target = to
                    .ip()
                    .to_string()
                    .rsplit('.')
                    .next()
                    .unwrap()
                    .parse::<usize>();
                let target = target.unwrap() - 1;
                let cut = &self.cut;
                if cut.contains(&(index, target)) || cut.contains(&(target, index)) {
                    continue;
                }
                let held = transmit.datagram.len();
                if held > transmit.datagram_bytes && held > self.together_bytes {
                    continue;
                }
                let between = |pair: &&(usize, usize, usize)| {
                    [(index, target), (target, index)].contains(&(pair.0, pair.1))
                };
                let narrow = self.narrow.iter().find(between);
                let carries = narrow.map_or(self.carries, |pair| pair.2);
                for datagram in transmit.datagram.chunks(transmit.datagram_bytes) {
                    if datagram.len() > carries {
                        continue;
                    }
                    if self.finals_are_lost && matches!(Outer::parse(datagram), Ok(Outer::Final(_)))
                    {
                        continue;
                    }
                    sent.push((member.address, to, datagram.to_vec()));
                }
            }
            while let Some(packet) = member.node.poll_guest_packet() {
                member.received.push(packet.bytes);
            }
            while let Some(event) = member.node.poll_event() {
                member.events.push(event);
            }
        }
        for (from, to, datagram) in sent {
            self.fly(from, to, datagram);
        }
    }

    fn fly(&mut self, from: Remote, to: Remote, datagram: Vec<u8>) {
        if let Some(overheard) = &mut self.overheard {
            overheard.push((from, to, datagram.clone()));
        }
        if self.loss > 0.0 && self.dice.random_bool(self.loss) {
            return;
        }
        let mut arrivals = vec![(LATENCY, datagram)];
        if let Some(rng) = &mut self.chaos {
            let mut delay = || LATENCY.mul_f64(0.5 + 3.0 * rng.random::<f64>());
            let (first, second, third) = (delay(), delay(), delay());
            let (_, datagram) = arrivals.remove(0);
            if rng.random_bool(0.3) {
                arrivals.push((second, datagram.clone()));
            }
            if rng.random_bool(0.3) {
                let mut damaged = datagram.clone();
                let at = rng.random_range(0..damaged.len());
                damaged[at] ^= 1 << rng.random_range(0..8);
                arrivals.push((third, damaged));
            }
            arrivals.push((first, datagram));
        }
        for (delay, datagram) in arrivals {
            self.sequence += 1;
            let key = (self.now + delay, self.sequence);
            self.flying.insert(key, (from, to, datagram));
        }
    }

    /// Lets time pass until `done`, or fails after a virtual deadline.
    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Net) -> bool) {
        let deadline = self.now + Duration::from_secs(120);
        loop {
            self.drain();
            for member in &mut self.members {
                member.node.check_order_of_peers();
            }
            if done(self) {
                return;
            }
            let alive = self.members.iter_mut().filter(|member| member.alive);
            let timers = alive.filter_map(|member| member.node.next_deadline());
            let timer = timers.map(|(due, _)| due).min();
            let arrival = self.flying.keys().next().map(|(at, _)| *at);
            let next = timer.into_iter().chain(arrival).min().unwrap();
            assert!(
                next < deadline,
                "not within two minutes: {what}\n{}",
                self.describe()
            );
            self.now = next.max(self.now);
            let now = self.now;
            while let Some(entry) = self.flying.first_entry() {
                if entry.key().0 > now {
                    break;
                }
                let (from, to, mut datagram) = entry.remove();
                let enemy = self.enemy.as_mut().filter(|enemy| enemy.address == to);
                if let Some(enemy) = enemy {
                    for (to, datagram) in enemy.hear(now, from, &mut datagram) {
                        self.fly(enemy::enemy_address(), to, datagram);
                    }
                    continue;
                }
                let mut members = self.members.iter_mut();
                if let Some(member) = members.find(|m| m.alive && m.address == to) {
                    member.node.handle_datagram(now, from, &mut datagram);
                }
            }
            for member in self.members.iter_mut().filter(|member| member.alive) {
                if member
                    .node
                    .next_deadline()
                    .is_some_and(|(due, _)| due <= now)
                {
                    // What is done may make something else due at once, but not for ever.
                    let done = (0..4).any(|_| {
                        member.node.handle_deadline(now);
                        member
                            .node
                            .next_deadline()
                            .is_none_or(|(next, _)| next > now)
                    });
                    assert!(done, "stays due: {:?}", member.node.next_deadline());
                }
            }
        }
    }

    /// Who is linked to whom, for the message of a failed wait.
    fn describe(&self) -> String {
        let line = |member: &Member| {
            let node = &member.node;
            let near = node.near_neighbours();
            format!(
                "{} alive {} joined {} left {:?} right {:?} {:?}\n",
                node.id().short(),
                member.alive,
                node.is_joined(),
                near.left,
                near.right,
                node.counters(),
            )
        };
        self.members.iter().map(line).collect()
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        self.run_until("time passes", |net| net.now >= end);
    }

    fn join_all(&mut self) {
        self.run_until("all join one ring", |net| net.is_one_ring());
    }

    fn is_one_ring(&self) -> bool {
        let alive: Vec<_> = self.members.iter().filter(|member| member.alive).collect();
        let ids = alive.iter().map(|member| (member.node.id(), ()));
        let ids: BTreeMap<_, _> = ids.collect();
        alive.iter().all(|member| {
            let expected = ring::nearest(member.node.id(), &ids, ring::NEAR_PER_SIDE, |_, ()| true);
            member.node.is_joined() && member.node.near_neighbours() == expected
        })
    }

    fn packet(&self, from: usize, to: usize, text: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&self.members[from].node.addresses().v4.octets());
        packet[16..20].copy_from_slice(&self.members[to].node.addresses().v4.octets());
        packet.extend(text);
        packet
    }

    fn send(&mut self, from: usize, to: usize, text: &[u8]) -> Vec<u8> {
        let packet = self.packet(from, to, text);
        let now = self.now;
        self.members[from].node.handle_guest_packet(now, &packet);
        packet
    }
}

#[test]
fn two_nodes_join_within_a_few_round_trips() {
    let mut net = Net::with_members(1, 2);
    net.join_all();
    assert!(net.now < Instant::ZERO + LATENCY * 20, "{}", net.now);
}

#[test]
fn a_node_without_seeds_is_a_pool_of_one() {
    let net = Net::with_members(17, 1);
    assert!(net.members[0].node.is_joined());
}

#[test]
fn a_node_whose_only_seed_is_itself_is_a_pool_of_one() {
    let mut net = Net::with_members(18, 1);
    let (now, itself) = (net.now, net.members[0].address);
    net.members[0]
        .node
        .set_seeds(now, vec!["192.0.2.9:1".parse().unwrap(), itself]);
    net.pass(Duration::from_secs(1));
    net.members[0].node.set_seeds(net.now, vec![itself]);
    net.run_until("it knows itself", |net| net.members[0].node.is_joined());
}

#[test]
fn twenty_nodes_form_one_ring() {
    let mut net = Net::with_members(2, 20);
    net.join_all();
    assert!(
        net.now < Instant::ZERO + Duration::from_secs(10),
        "{}",
        net.now
    );
}

#[test]
fn every_pair_exchanges_guest_packets() {
    let mut net = Net::with_members(3, 8);
    net.join_all();
    for from in 0..8 {
        for to in (0..8).filter(|to| *to != from) {
            let packet = net.send(from, to, b"hello");
            net.run_until("the packet arrives", |net| {
                net.members[to].received.contains(&packet)
            });
            net.members[to].received.clear();
        }
    }
}

#[test]
fn packets_that_wait_for_a_session_keep_their_order() {
    let mut net = Net::with_members(4, 12);
    net.join_all();
    let from = 3;
    let strangers = (0..12).find(|to| {
        let id = net.members[*to].node.id();
        *to != from
            && !net.members[from]
                .node
                .peers()
                .iter()
                .any(|peer| peer.id == id)
    });
    let to = strangers.expect("twelve nodes are not all linked");
    let sent: Vec<_> = (0..10).map(|i| net.send(from, to, &[i])).collect();
    net.run_until("all arrive", |net| net.members[to].received.len() == 10);
    assert_eq!(net.members[to].received, sent);
}

#[test]
fn a_dead_neighbour_is_noticed_and_the_ring_closes() {
    let mut net = Net::with_members(5, 10);
    net.join_all();
    net.members[4].alive = false;
    let died = net.now;
    net.run_until("the ring closes", |net| net.is_one_ring());
    assert!(net.now < died + Duration::from_secs(20), "{}", net.now);
}

#[test]
fn a_leaving_node_is_missed_at_once() {
    let mut net = Net::with_members(6, 10);
    net.join_all();
    let now = net.now;
    net.members[4].node.leave(now);
    net.drain();
    net.members[4].alive = false;
    net.run_until("the ring closes", |net| net.is_one_ring());
    assert!(net.now < now + Duration::from_secs(2), "{}", net.now);
}

#[test]
fn peers_without_a_direct_path_talk_over_the_overlay() {
    let mut net = Net::with_members(7, 4);
    net.cut = vec![(1, 2)];
    net.join_all();
    let packet = net.send(1, 2, b"around");
    net.run_until("the packet arrives", |net| {
        net.members[2].received.contains(&packet)
    });
    let id = net.members[2].node.id();
    let peers = net.members[1].node.peers();
    let path = peers
        .iter()
        .find(|peer| peer.id == id)
        .map(|peer| peer.path);
    assert!(matches!(path, Some(PathInfo::Relay { .. })), "{path:?}");
}

#[test]
fn a_direct_path_that_is_cut_is_left_for_the_overlay() {
    let mut net = Net::with_members(8, 4);
    net.join_all();
    net.cut = vec![(1, 2)];
    let cut_at = net.now;
    net.run_until("a packet arrives again", |net| {
        let received = !net.members[2].received.is_empty();
        if !received {
            net.send(1, 2, b"still there");
        }
        received
    });
    assert!(net.now < cut_at + Duration::from_secs(1), "{}", net.now);
}

#[test]
fn a_moved_node_is_followed_at_its_first_word() {
    let mut net = Net::with_members(23, 6);
    net.join_all();
    net.pass(Duration::from_secs(5));
    let id = net.members[2].node.id();
    let peers = |net: &Net| {
        let others = net.members.iter().filter(|member| member.node.id() != id);
        let paths = others.flat_map(|member| member.node.peers());
        let direct = paths.filter(|peer| peer.id == id).map(|peer| peer.path);
        direct.collect::<Vec<_>>()
    };
    let before = peers(&net).len();
    let elsewhere = Remote::udp(([198, 51, 100, 3], 4001).into());
    let moved = net.now;
    net.members[2].address = elsewhere;
    net.members[2]
        .node
        .set_host_candidates(moved, vec![elsewhere]);
    net.run_until("all peers send to the new address", |net| {
        let there = PathInfo::Direct { remote: elsewhere };
        let paths = peers(net);
        paths.len() == before && paths.iter().all(|path| *path == there)
    });
    // Far below what a path takes to die.
    assert!(net.now - moved <= LATENCY * 4, "{:?}", net.now - moved);
}

#[test]
fn a_move_is_told_to_each_peer_once() {
    let mut net = Net::with_members(24, 6);
    net.join_all();
    net.pass(Duration::from_secs(5));
    let elsewhere = Remote::udp(([198, 51, 100, 3], 4001).into());
    let (now, node) = (net.now, &mut net.members[2].node);
    let before = node.counters().datagrams_out;
    assert!(node.set_host_candidates(now, vec![elsewhere]));
    let told = node.counters().datagrams_out - before;
    assert_eq!(told, node.peers().len() as u64);
    assert!(!node.set_host_candidates(now, vec![elsewhere]));
    assert_eq!(node.counters().datagrams_out, before + told);
}

#[test]
fn sessions_are_rekeyed_without_losing_the_peer() {
    let mut net = Net::with_members(9, 3);
    net.join_all();
    for _ in 0..5 {
        net.pass(Duration::from_secs(100));
        assert!(net.is_one_ring());
    }
    assert!(net.members.iter().all(|m| m.node.counters().rekeys > 0));
    let lost = net.members.iter().map(|m| m.node.counters().peers_lost);
    assert_eq!(lost.sum::<u64>(), 0);
}

#[test]
fn names_fixed_addresses_and_ids_resolve() {
    let mut net = Net::with_members(10, 12);
    let fixed = Ipv4Addr::new(10, 200, 0, 7);
    let holder = net.add(Some(fixed));
    net.join_all();
    net.pass(Duration::from_secs(1));
    let id = net.members[holder].node.id();
    let targets = [
        Target::Id(id),
        Target::Name(format!("node-{holder}")),
        Target::V4(fixed),
        Target::V6(net.members[holder].node.addresses().v6),
    ];
    for asker in 0..holder {
        for target in &targets {
            let now = net.now;
            let asked = net.members[asker].node.resolve(now, target.clone());
            net.run_until("the answer comes", |net| {
                net.members[asker].events.iter().any(|event| {
                    matches!(event, Event::Resolved { query, result: Ok(found) }
                        if *query == asked && found.certificate.node_id() == id)
                })
            });
        }
    }
}

#[test]
fn an_address_that_nobody_has_is_unknown() {
    let mut net = Net::with_members(11, 5);
    net.join_all();
    let now = net.now;
    let nobody = Target::V4(Ipv4Addr::new(10, 129, 1, 1));
    let asked = net.members[2].node.resolve(now, nobody);
    net.run_until("the answer comes", |net| {
        net.members[2].events.iter().any(|event| {
            matches!(event, Event::Resolved { query, result: Err(ResolveError::Unknown) }
                if *query == asked)
        })
    });
}

#[test]
fn a_ping_to_a_stranger_is_answered() {
    let mut net = Net::with_members(12, 12);
    net.join_all();
    let now = net.now;
    let target = net.members[9].node.id();
    let asked = net.members[2].node.ping(now, target);
    net.run_until("the answer comes", |net| {
        net.members[2]
            .events
            .iter()
            .any(|event| matches!(event, Event::Pong { ping, .. } if *ping == asked))
    });
}

#[test]
fn a_trace_names_every_node_on_the_way() {
    let mut net = Net::with_members(21, 40);
    net.join_all();
    net.pass(Duration::from_secs(30));
    let name = |net: &Net, id| {
        let member = net.members.iter().find(|m| m.node.id() == id);
        member.unwrap().node.certificate().name().to_string()
    };
    let mut longest = 0;
    for to in 0..39 {
        let (now, target) = (net.now, net.members[to].node.id());
        let asked = net.members[39].node.trace(now, target);
        let mut route = None;
        net.run_until("the way is known", |net| {
            let mut events = net.members[39].events.iter();
            route = events.find_map(|event| match event {
                Event::Traced { trace, route } if *trace == asked => Some(route.clone()),
                _ => None,
            });
            route.is_some()
        });
        let route = route.unwrap();
        let hops: Vec<_> = route.hops.iter().map(|hop| hop.as_ref().unwrap()).collect();
        assert!(
            route.reached && hops.last().unwrap().id == target,
            "{route:?}"
        );
        for (behind, hop) in hops.iter().enumerate() {
            assert_eq!(hop.name, name(&net, hop.id));
            // Answers find their own way back, which may be shorter.
            assert!(hop.rtt >= LATENCY * (behind as u32 + 2), "{route:?}");
        }
        longest = longest.max(hops.len());
    }
    assert!(longest > 1, "forty nodes are not all linked");
}

#[test]
fn a_trace_that_nobody_answers_ends() {
    let mut net = Net::with_members(22, 5);
    net.join_all();
    let now = net.now;
    let asked = net.members[0].node.trace(now, NodeId([0x55; 20]));
    net.run_until("it ends", |net| {
        net.members[0].events.iter().any(|event| {
            matches!(event, Event::Traced { trace, route } if *trace == asked && !route.reached)
        })
    });
}

#[test]
fn links_are_told_to_whoever_asks_but_not_without_end() {
    let mut net = Net::with_members(23, 12);
    net.join_all();
    // Until no link is made or dropped any more.
    net.pass(Duration::from_secs(60));
    let ask = |net: &mut Net, from: usize, to: usize| {
        let (now, target) = (net.now, net.members[to].node.id());
        let asked = net.members[from].node.ask_links(now, target, None);
        let mut told = None;
        net.run_until("an answer", |net| {
            let mut events = net.members[from].events.iter();
            told = events.find_map(|event| match event {
                Event::Links { query, result } if *query == asked => Some(result.clone()),
                _ => None,
            });
            told.is_some()
        });
        told.unwrap()
    };
    for to in 0..12 {
        let (name, links) = ask(&mut net, 0, to).expect("everybody answers");
        assert_eq!(name, format!("node-{to}"));
        let node = &net.members[to].node;
        let near = |id: &NodeId| node.near_neighbours().contains(*id);
        for link in &links {
            assert_eq!(link.kind == LinkKind::Near, near(&link.id));
        }
        assert_eq!(links.len(), node.peers().len());
    }
    let target = net.members[5].node.id();
    let asked_before = net.members[5].node.counters().drop_budget;
    for _ in 0..4 {
        for from in (0..12).filter(|from| *from != 5) {
            let now = net.now;
            net.members[from].node.ask_links(now, target, None);
        }
    }
    net.pass(Duration::from_millis(500));
    assert!(net.members[5].node.counters().drop_budget > asked_before);
}

#[test]
fn a_session_that_the_peer_may_not_have_is_not_used() {
    let mut net = Net::with_members(13, 2);
    net.join_all();
    net.finals_are_lost = true;
    let (now, seed) = (net.now, net.members[0].address);
    let handshakes = net.members[1].node.counters().handshakes;
    net.members[1]
        .node
        .begin_handshake(now, attempts::Goal::Seed(seed));
    net.run_until("the second handshake is answered", |net| {
        net.members[1].node.counters().handshakes > handshakes
    });
    let packet = net.send(1, 0, b"after the loss");
    net.pass(LATENCY * 3);
    assert_eq!(net.members[0].received, [packet]);
}

#[test]
fn a_newcomer_whose_last_messages_reach_nobody_begins_again() {
    let mut net = Net::with_members(19, 3);
    net.join_all();
    net.finals_are_lost = true;
    let began = net.now;
    let newcomer = net.add(None);
    net.run_until("it joins", |net| net.members[newcomer].node.is_joined());
    assert!(net.now < began + Duration::from_secs(1), "{}", net.now);
}

#[test]
fn a_seed_has_room_for_all_that_join_within_a_round_trip() {
    const CROWD: usize = 200;
    let mut net = Net::with_members(20, 1 + CROWD);
    let seed = net.members[0].node.id();
    net.run_until("the seed has answered all", |net| {
        let crowd = &net.members[1..];
        crowd.iter().all(|member| member.node.is_linked(seed))
    });
    net.pass(LATENCY * 2);
    let granted = |member: &Member| net.members[0].node.is_linked(member.node.id());
    assert_eq!(
        net.members[1..].iter().filter(|m| granted(m)).count(),
        CROWD
    );
}

#[test]
fn forged_source_addresses_of_a_guest_are_dropped() {
    let mut net = Net::with_members(13, 2);
    net.join_all();
    let mut packet = net.packet(0, 1, b"forged");
    packet[15] ^= 1;
    let now = net.now;
    net.members[0].node.handle_guest_packet(now, &packet);
    assert_eq!(net.members[0].node.counters().drop_guest_invalid, 1);
}

#[test]
fn a_node_of_another_pool_is_met_with_silence() {
    let mut net = Net::with_members(14, 1);
    let mut other = Net::with_members(15, 2);
    other.members[1].node.handle_deadline(Instant::ZERO);
    other.drain();
    let (_, (from, _, mut datagram)) = other.flying.pop_first().unwrap();
    let now = net.now;
    net.members[0]
        .node
        .handle_datagram(now, from, &mut datagram);
    assert!(net.members[0].node.poll_transmit().is_none());
    assert_eq!(net.members[0].node.counters().drop_gate, 1);
}

#[test]
fn arbitrary_datagrams_are_counted_drops() {
    let mut net = Net::with_members(16, 1);
    let from = Remote::udp(([198, 51, 100, 1], 9).into());
    for length in 0..64 {
        let mut datagram: Vec<u8> = (0..length).map(|_| net.rng.random()).collect();
        let now = net.now;
        net.members[0]
            .node
            .handle_datagram(now, from, &mut datagram);
    }
    let counters = net.members[0].node.counters();
    assert_eq!(counters.drop_malformed + counters.drop_unknown_session, 64);
}
