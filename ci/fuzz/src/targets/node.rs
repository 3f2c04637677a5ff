//! A node among enemies: strangers' datagrams, and everything that a member with a good certificate
//! may say in a session.
//!
//! Whatever happens, no table outgrows its limit, one datagram sets off no storm, and the node's
//! deadlines move on.

use std::time::Duration;

use rand::RngExt;
use wow_overlay::Rng;
use wow_overlay::node::{Config, GUEST_MTU_DEFAULT, Node, Target as Wanted};
use wow_overlay::session::{CipherPreference, Initiator, Session};
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;
use wow_overlay::wire::frame::{self, Body, Delivery, Frame, RoutedHeader};
use wow_overlay::wire::message::{Answer, Control, Hello, Message, Query};
use wow_overlay::wire::outer::Outer;

use super::member::{self, WALL};
use super::wire;
use crate::Target;
use crate::script::{Script, Writer};

/// The member under test, the one that turned hostile, and one that never shows up.
const NODE: usize = 0;
const ENEMY: usize = 1;
const ABSENT: usize = 2;

const DATAGRAM_BYTES_MAX: usize = 1500;
/// Datagrams that one step may set off.
const STORM: usize = 400;
/// Times a node may find more to do at one moment.
const TURNS_MAX: usize = 8;

pub(super) const NODE_TARGET: Target = Target {
    name: "node",
    input_bytes_max: 4096,
    run: node,
    seeds,
};

struct Bench {
    node: Node,
    now: Instant,
    rng: Rng,
    enemy: Option<Session>,
    enemy_at: Remote,
    /// The last record that the enemy sent.
    last: Vec<u8>,
    /// The last token that the node asked the enemy with.
    token: u64,
}

fn node(input: &[u8]) {
    let mut script = Script::new(input);
    let mut bench = Bench::new();
    bench.drain();
    bench.meet(None);
    while !script.is_empty() {
        bench.step(&mut script);
        bench.drain();
        for table in bench.node.tables() {
            assert!(
                table.entries <= table.limit,
                "{} has {} entries of {}",
                table.name,
                table.entries,
                table.limit
            );
        }
    }
}

impl Bench {
    fn new() -> Self {
        let pool = member::pool();
        let (identity, certificate) = &pool.members[NODE];
        let now = Instant::ZERO;
        let config = Config {
            identity: identity.clone(),
            certificate: certificate.clone(),
            pool: pool.authority.facts().clone(),
            seeds: Vec::new(),
            rng_seed: [7; 32],
            wall: WALL,
            ciphers: CipherPreference::aes_first(),
            guest_mtu: GUEST_MTU_DEFAULT,
        };
        let mut node = Node::new(config, now);
        node.set_host_candidates(now, vec![address(1)]);
        Bench {
            node,
            now,
            rng: member::rng(3),
            enemy: None,
            enemy_at: address(2),
            last: Vec::new(),
            token: 0,
        }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        match script.byte() % 13 {
            0 => {
                let from = address(script.byte());
                let mut datagram = script.slice(DATAGRAM_BYTES_MAX).to_vec();
                self.node.handle_datagram(self.now, from, &mut datagram);
            }
            1 => {
                let frame = script.slice(DATAGRAM_BYTES_MAX);
                self.say(&[frame]);
            }
            2 => {
                let message = script.slice(DATAGRAM_BYTES_MAX);
                self.say(&[&[frame::CONTROL], message]);
            }
            3 => {
                let header = self.header(script);
                let mut head = Vec::new();
                header.encode(&mut head);
                let body = script.slice(DATAGRAM_BYTES_MAX);
                self.say(&[&head, body]);
            }
            4 => {
                let packet = script.slice(DATAGRAM_BYTES_MAX);
                self.say(&[&[frame::GUEST], packet]);
            }
            5 => self.pass(Duration::from_millis(20 * u64::from(script.byte()))),
            6 => self.pass(Duration::from_secs(u64::from(script.byte()))),
            7 => {
                let from = address(script.byte());
                let mut copy = self.last.clone();
                self.node.handle_datagram(self.now, from, &mut copy);
            }
            8 => {
                let hello = script.slice(DATAGRAM_BYTES_MAX);
                self.meet(Some(hello));
            }
            9 => self.answer(script),
            10 => {
                let packet = script.slice(DATAGRAM_BYTES_MAX);
                self.node.handle_guest_packet(self.now, packet);
            }
            11 => {
                self.node.resolve(self.now, Wanted::Name("absent".into()));
                self.node
                    .ping(self.now, member::pool().members[ABSENT].0.node_id());
                self.enemy_at = address(script.byte());
            }
            _ => self.carry(script),
        }
    }

    /// Sends a carrier with what is a record by its first bytes, behind the head of a routed frame or anything else.
    fn carry(&mut self, script: &mut Script<'_>) {
        let mut head = Vec::new();
        match script.byte() & 1 {
            0 => self.header(script).encode(&mut head),
            _ => head.extend_from_slice(script.slice(DATAGRAM_BYTES_MAX)),
        }
        let record = script.slice(DATAGRAM_BYTES_MAX);
        let Some(session) = &self.enemy else {
            return;
        };
        let mut datagram = Vec::new();
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(&[5, 1, 0, 0]);
            out.extend_from_slice(record);
        };
        let sealed = session.sealer.seal_carrier(&head, &mut datagram, write);
        if sealed.is_ok() {
            self.send(datagram);
        }
    }

    /// A header between members, present and absent, as a byte each.
    fn header(&mut self, script: &mut Script<'_>) -> RoutedHeader {
        let mut id = || {
            let members = &member::pool().members;
            let (identity, _) = &members[usize::from(script.byte()) % members.len()];
            identity.node_id()
        };
        let (destination, source, agent, source_agent) = (id(), id(), id(), id());
        let kind = script.byte();
        RoutedHeader {
            delivery: match kind & 1 {
                0 => Delivery::Exact,
                _ => Delivery::Closest,
            },
            body: [Body::Datagram, Body::Query, Body::Answer][usize::from(kind >> 4) % 3],
            hops: script.byte(),
            destination,
            source,
            agent: (kind & 2 != 0).then_some(agent),
            source_agent: (kind & 4 != 0).then_some(source_agent),
        }
    }

    /// Answers the node's last question.
    fn answer(&mut self, script: &mut Script<'_>) {
        let header = RoutedHeader {
            delivery: Delivery::Exact,
            body: Body::Answer,
            hops: 0,
            destination: self.node.id(),
            source: member::pool().members[ENEMY].0.node_id(),
            agent: None,
            source_agent: None,
        };
        let body = script.slice(DATAGRAM_BYTES_MAX);
        let mut message = Vec::new();
        header.encode(&mut message);
        let start = message.len();
        if let Ok(mut answer) = Answer::decode(body) {
            answer.token = self.token;
            answer.encode(&mut message);
        } else {
            message.truncate(start);
            message.extend(body);
        }
        self.say(&[&message]);
    }

    /// Says something in the session, if there is one.
    fn say(&mut self, parts: &[&[u8]]) {
        let Some(session) = &self.enemy else {
            return;
        };
        let mut datagram = Vec::new();
        if session.sealer.seal(parts, &mut datagram).is_ok() {
            self.send(datagram);
        }
    }

    fn send(&mut self, mut datagram: Vec<u8>) {
        self.last.clone_from(&datagram);
        self.node
            .handle_datagram(self.now, self.enemy_at, &mut datagram);
    }

    /// Makes a session: the enemy's certificate is good, what else it says may be anything.
    fn meet(&mut self, hello: Option<&[u8]>) {
        let pool = member::pool();
        let honest = || {
            let mut bytes = Vec::new();
            let hello = Hello {
                certificate: pool.members[ENEMY].1.bytes().to_vec(),
                candidates: vec![self.enemy_at],
                observed: None,
            };
            hello.encode(&mut bytes);
            bytes
        };
        let payload = hello.map_or_else(honest, <[u8]>::to_vec);
        let index = self.rng.random();
        let endpoint = pool.endpoint(ENEMY);
        let remote = Some(pool.static_key(NODE));
        let started = Initiator::start(&mut self.rng, &endpoint, remote, index, &payload);
        let Ok(mut initiator) = started else {
            return;
        };
        let mut init = initiator.datagram().to_vec();
        self.node
            .handle_datagram(self.now, self.enemy_at, &mut init);
        while let Some(transmit) = self.node.poll_transmit() {
            if let Ok(Outer::Response(response)) = Outer::parse(&transmit.datagram)
                && let Ok(finished) = initiator.on_response(self.now, &response)
            {
                self.enemy = Some(finished.session);
            }
            self.node.recycle(transmit.datagram);
        }
        let mut probe = vec![frame::CONTROL];
        Control::Probe { token: 1 }.encode(&mut probe);
        self.say(&[&probe]);
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some((due, _)) = self.node.next_deadline().filter(|(due, _)| *due <= until) {
            self.now = self.now.max(due);
            let done = (0..TURNS_MAX).any(|_| {
                self.node.handle_deadline(self.now);
                self.node
                    .next_deadline()
                    .is_none_or(|(next, _)| next > self.now)
            });
            assert!(done, "stays due: {:?}", self.node.next_deadline());
            self.drain();
        }
        self.now = until;
    }

    fn drain(&mut self) {
        let mut sent = 0;
        while let Some(mut transmit) = self.node.poll_transmit() {
            sent += 1;
            self.overhear(&mut transmit.datagram);
            self.node.recycle(transmit.datagram);
        }
        assert!(sent <= STORM, "{sent} datagrams at once");
        while let Some(packet) = self.node.poll_guest_packet() {
            self.node.recycle(packet.bytes);
        }
        while self.node.poll_event().is_some() {}
    }

    /// The enemy reads what is for it, and keeps the tokens that it may answer with.
    fn overhear(&mut self, datagram: &mut [u8]) {
        let Some(session) = &mut self.enemy else {
            return;
        };
        let Ok(plaintext) = session.opener.open(datagram) else {
            return;
        };
        match Frame::parse(plaintext) {
            Ok(Frame::Routed(header, body)) if header.body == Body::Query => {
                if let Ok(query) = Query::decode(body) {
                    self.token = query.token;
                }
            }
            Ok(Frame::Control(bytes)) => {
                if let Ok(Control::Probe { token } | Control::Echo { token }) =
                    Control::decode(bytes)
                {
                    self.token = token;
                }
            }
            _ => {}
        }
    }
}

fn address(host: u8) -> Remote {
    Remote::udp(([192, 0, 2, host], 4001).into())
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let controls = wire::encoded(&wire::controls());
    let each = |w: Writer, message: &Vec<u8>| w.byte(2).slice(message);
    seeds.push(controls.iter().fold(Writer::default(), each).0);
    let routed =
        |w: Writer, kind: u8, body: &[u8]| w.byte(3).raw(&[0, 1, 2, 0, kind, 0]).slice(body);
    let queries = wire::encoded(&wire::queries());
    let each = |w: Writer, query: &Vec<u8>| routed(w, 0x11, query).byte(5).byte(10);
    seeds.push(queries.iter().fold(Writer::default(), each).0);
    let answers = wire::encoded(&wire::answers(7));
    let each = |w: Writer, answer: &Vec<u8>| w.byte(11).byte(2).byte(9).slice(answer);
    seeds.push(answers.iter().fold(Writer::default(), each).0);
    let mut packet = vec![0; 28];
    packet[0] = 0x45;
    let quiet = Writer::default().byte(6).byte(130).byte(5).byte(50);
    seeds.push(quiet.byte(4).slice(&packet).byte(10).slice(&packet).0);
    let hello = Hello {
        certificate: member::pool().members[ENEMY].1.bytes().to_vec(),
        candidates: vec![address(9)],
        observed: Some(address(8)),
    };
    let again = Writer::default().byte(8).slice(&wire::encoded(&[hello])[0]);
    seeds.push(
        again
            .byte(7)
            .byte(3)
            .byte(0)
            .byte(4)
            .slice(b"\x05\x01\0\0")
            .0,
    );
    let carried = Writer::default().byte(12).byte(0).raw(&[0, 1, 2, 0, 0, 0]);
    let carried = carried
        .slice(&[0x5a; 60])
        .byte(12)
        .byte(1)
        .slice(&[1, 0x45]);
    seeds.push(carried.slice(&[0x5a; 60]).byte(7).byte(2).0);
    seeds
}
