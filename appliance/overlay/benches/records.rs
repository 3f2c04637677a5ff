//! `cargo bench -p wow-overlay`: what a packet costs on its way through a node, without any kernel: sealed and
//! opened in a session alone, then with all that the node does around it; and where a routed frame goes next.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use rand::{RngExt, SeedableRng};
use wow_overlay::Rng;
use wow_overlay::id::NodeId;
use wow_overlay::membership::{
    CertificateRequest, Identity, PoolAuthority, PoolName, Roles, Ticket,
};
use wow_overlay::node::{Config, GUEST_MTU_DEFAULT, GuestPackets, Node, Run, addresses_of, ring};
use wow_overlay::session::{
    Accepted, CipherPreference, Endpoint, Initiator, Responder, Session, StaticKey,
};
use wow_overlay::time::{Instant, UnixTime};
use wow_overlay::wire::Remote;
use wow_overlay::wire::outer::Outer;

const WALL: UnixTime = UnixTime(1_800_000_000);
const MONTH: std::time::Duration = std::time::Duration::from_secs(30 * 24 * 3600);
const PACKET_BYTES: usize = GUEST_MTU_DEFAULT;
/// As many as one batch holds.
const PACKETS: usize = 45;

fn main() {
    divan::main();
}

fn rng() -> Rng {
    Rng::seed_from_u64(1)
}

/// The two ends of a session.
fn session(ciphers: CipherPreference) -> (Session, Session) {
    let mut rng = rng();
    let mut endpoint = || {
        let identity = Identity::generate(&mut rng);
        let public = identity.static_public();
        let key = StaticKey::new(*identity.static_secret(), public);
        (Endpoint::new(key, &[7; 32], ciphers), public)
    };
    let ((near, _), (far, public)) = (endpoint(), endpoint());
    let mut initiator =
        Initiator::start(&mut rng, &near, Some(public), 1, &[]).expect("a handshake");
    let Ok(Outer::Init(init)) = Outer::parse(initiator.datagram()) else {
        panic!("an Init");
    };
    let accepted = Responder::accept(&mut rng, Instant::ZERO, &far, &init, 2, &[]);
    let Ok(Accepted::Finished { response, finished }) = accepted else {
        panic!("IK takes one round trip");
    };
    let Ok(Outer::Response(response)) = Outer::parse(&response) else {
        panic!("a Response");
    };
    let ours = initiator.on_response(Instant::ZERO, &response);
    (ours.expect("it is answered").session, finished.session)
}

fn ciphers(name: &str) -> CipherPreference {
    match name {
        "aes" => CipherPreference::aes_first(),
        _ => CipherPreference::chacha_first(),
    }
}

#[divan::bench(args = ["aes", "chacha"])]
fn seal(bencher: Bencher, name: &str) {
    let (near, _) = session(ciphers(name));
    let packet = [7; PACKET_BYTES];
    let mut out = Vec::with_capacity(2048);
    bencher
        .counter(BytesCount::new(PACKET_BYTES))
        .bench_local(|| {
            out.clear();
            near.sealer.seal(&[&[1], black_box(&packet)], &mut out)
        });
}

#[divan::bench(args = ["aes", "chacha"])]
fn open(bencher: Bencher, name: &str) {
    let (near, mut far) = session(ciphers(name));
    let sealed = || {
        let mut out = Vec::new();
        let packet = [7; PACKET_BYTES];
        near.sealer
            .seal(&[&[1], &packet], &mut out)
            .expect("it has numbers left");
        out
    };
    bencher
        .counter(BytesCount::new(PACKET_BYTES))
        .with_inputs(sealed)
        .bench_local_values(|mut datagram| {
            assert!(far.opener.open(&mut datagram).is_ok());
            datagram
        });
}

/// Two nodes that have met.
struct Pair {
    nodes: [Node; 2],
    now: Instant,
}

fn address(index: usize) -> Remote {
    Remote::udp(([192, 0, 2, index as u8 + 1], 4001).into())
}

impl Pair {
    fn new() -> Pair {
        let mut rng = rng();
        let range = "10.128.0.0/9".parse().expect("a range");
        let name = PoolName::new("bench").expect("a name");
        let authority = PoolAuthority::create(name, range, Vec::new(), &mut rng).expect("a pool");
        let ticket = authority
            .issue_ticket(Roles::ALL, WALL, WALL + MONTH, None, &mut rng)
            .expect("a ticket");
        let nodes = [0, 1].map(|index| node(&ticket, index, &mut rng));
        let mut pair = Pair {
            nodes,
            now: Instant::ZERO,
        };
        while !pair.nodes.iter().all(Node::is_joined) {
            pair.step();
        }
        // The path's MTU is found with the first long packets.
        for _ in 0..1000 {
            let packets = Packets::new(&pair);
            pair.nodes[0].handle_guest_packets(pair.now, &packets);
            pair.step();
        }
        pair
    }

    /// Until the next deadline; datagrams arrive at once.
    fn step(&mut self) {
        loop {
            let mut sent = Vec::new();
            for (index, node) in self.nodes.iter_mut().enumerate() {
                while let Some(transmit) = node.poll_transmit() {
                    let datagrams = transmit.datagram.chunks(transmit.datagram_bytes);
                    sent.extend(datagrams.map(|datagram| (index, datagram.to_vec())));
                }
                while node.poll_guest_packet().is_some() {}
                while node.poll_event().is_some() {}
            }
            if sent.is_empty() {
                break;
            }
            for (from, mut datagram) in sent {
                self.nodes[1 - from].handle_datagram(self.now, address(from), &mut datagram);
            }
        }
        let due = self.nodes.iter_mut().filter_map(Node::next_deadline);
        let due = due.map(|(due, _)| due).min().expect("nodes keep house");
        self.now = due.max(self.now);
        for node in &mut self.nodes {
            if node.next_deadline().is_some_and(|(due, _)| due <= self.now) {
                node.handle_deadline(self.now);
            }
        }
    }

    /// What the first node makes of a superpacket.
    fn sealed(&mut self, packets: &Packets) -> Vec<Vec<u8>> {
        let node = &mut self.nodes[0];
        node.handle_guest_packets(self.now, packets);
        let mut sealed = Vec::new();
        while let Some(transmit) = node.poll_transmit() {
            let datagrams = transmit.datagram.chunks(transmit.datagram_bytes);
            sealed.extend(datagrams.map(<[u8]>::to_vec));
            node.recycle(transmit.datagram);
        }
        sealed
    }
}

fn node(ticket: &Ticket, index: usize, rng: &mut Rng) -> Node {
    let identity = Identity::generate(rng);
    let request = CertificateRequest {
        name: format!("n{index}").parse().expect("a name"),
        roles: Roles::ROUTER,
        fixed_address: None,
        not_before: WALL,
        not_after: WALL + MONTH,
    };
    let certificate = ticket.certify(&identity, &request).expect("it may");
    let config = Config {
        identity,
        certificate,
        pool: ticket.facts().clone(),
        seeds: if index == 0 { vec![] } else { vec![address(0)] },
        rng_seed: rng.random(),
        wall: WALL,
        ciphers: CipherPreference::aes_first(),
        guest_mtu: GUEST_MTU_DEFAULT,
    };
    let mut node = Node::new(config, Instant::ZERO);
    node.set_host_candidates(Instant::ZERO, vec![address(index)]);
    node
}

/// Equal packets from the first node's guest to the second's.
struct Packets(Vec<u8>);

impl Packets {
    fn new(pair: &Pair) -> Packets {
        let mut packet = vec![7; PACKET_BYTES];
        packet[0] = 0x45;
        let [from, to] = &pair.nodes;
        packet[12..16].copy_from_slice(&from.addresses().v4.octets());
        packet[16..20].copy_from_slice(&to.addresses().v4.octets());
        Packets(packet)
    }
}

impl GuestPackets for Packets {
    fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        addresses_of(&self.0)
    }

    fn count(&self) -> usize {
        PACKETS
    }

    fn length(&self, _: usize) -> usize {
        self.0.len()
    }

    fn lacks_checksum(&self) -> bool {
        true
    }

    fn write(&self, _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
}

#[divan::bench]
fn node_seals_a_batch(bencher: Bencher) {
    let mut pair = Pair::new();
    let packets = Packets::new(&pair);
    bencher.counter(ItemsCount::new(PACKETS)).bench_local(|| {
        let node = &mut pair.nodes[0];
        node.handle_guest_packets(pair.now, &packets);
        while let Some(transmit) = node.poll_transmit() {
            node.recycle(transmit.datagram);
        }
    });
}

/// What was received together is opened as one run, or each datagram by itself.
#[divan::bench(args = [true, false])]
fn node_opens_a_batch(bencher: Bencher, as_run: bool) {
    let pair = RefCell::new(Pair::new());
    let packets = Packets::new(&pair.borrow());
    bencher
        .counter(ItemsCount::new(PACKETS))
        .with_inputs(|| pair.borrow_mut().sealed(&packets))
        .bench_local_values(|mut datagrams| {
            let pair = &mut *pair.borrow_mut();
            let mut run = Run::default();
            for datagram in &mut datagrams {
                if !as_run {
                    run = Run::default();
                }
                black_box(pair.nodes[1].open_next(&mut run, pair.now, address(0), datagram));
            }
            datagrams
        });
}

#[divan::bench(args = [16, 64, 512])]
fn routing_decision(bencher: Bencher, links: usize) {
    let mut rng = rng();
    let mut id = || NodeId(rng.random());
    let own = id();
    let ring: BTreeMap<_, _> = (0..links).map(|_| (id(), ())).collect();
    let goals: Vec<_> = (0..1024).map(|_| id()).collect();
    let mut goals = goals.iter().cycle();
    bencher.bench_local(|| {
        let goal = *goals.next().expect("they never end");
        ring::closer_than(Some(own.distance(goal)), goal, &ring, |_, ()| Some(()))
    });
}
