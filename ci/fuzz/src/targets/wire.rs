//! Decoders of datagrams, frames and messages: whatever decodes encodes to something that decodes to
//! the same.

use std::hint::black_box;
use std::net::Ipv4Addr;

use wow_overlay::id::NodeId;
use wow_overlay::session::Initiator;
use wow_overlay::wire::Remote;
use wow_overlay::wire::frame::{Body, Delivery, Frame, RoutedHeader};
use wow_overlay::wire::message::{
    Answer, Contact, Control, Finding, HOP_PADDING, Hello, Link, LinkKind, Message, Query,
    Question, Vote,
};
use wow_overlay::wire::outer::{
    COOKIE_BYTES, HANDSHAKE_MAX_BYTES, Outer, RECORD_HEADER_BYTES, is_record, record_receiver,
};
use wow_overlay::wire::record::{Claim, Key, Record};

use super::member;
use crate::Target;

/// What an Ethernet frame carries at most.
const DATAGRAM_BYTES_MAX: usize = 1500;

pub(super) const OUTER: Target = Target {
    name: "outer",
    input_bytes_max: DATAGRAM_BYTES_MAX,
    run: outer,
    seeds: outers,
};

pub(super) const FRAME: Target = Target {
    name: "frame",
    input_bytes_max: DATAGRAM_BYTES_MAX,
    run: frame,
    seeds: frames,
};

pub(super) const CONTROL: Target = Target {
    name: "control",
    input_bytes_max: DATAGRAM_BYTES_MAX,
    run: message::<Control>,
    seeds: || encoded(&controls()),
};

pub(super) const QUERY: Target = Target {
    name: "query",
    input_bytes_max: DATAGRAM_BYTES_MAX,
    run: message::<Query>,
    seeds: || encoded(&queries()),
};

pub(super) const ANSWER: Target = Target {
    name: "answer",
    input_bytes_max: DATAGRAM_BYTES_MAX,
    run: message::<Answer>,
    seeds: || encoded(&answers(7)),
};

pub(super) const CLAIM: Target = Target {
    name: "claim",
    input_bytes_max: DATAGRAM_BYTES_MAX,
    run: message::<Claim>,
    seeds: || encoded(&[claim()]),
};

pub(super) const HELLO: Target = Target {
    name: "hello",
    input_bytes_max: DATAGRAM_BYTES_MAX,
    run: message::<Hello>,
    seeds: || encoded(&[hello()]),
};

fn outer(input: &[u8]) {
    let parsed = Outer::parse(input);
    let receiver = match &parsed {
        Ok(Outer::Record(record)) => {
            assert!(
                record.carries() || is_record(input),
                "a record may be carried"
            );
            let own = RECORD_HEADER_BYTES + record.sealed_bytes();
            assert_eq!(record.carries(), own < input.len());
            assert!(!record.carries() || is_record(&input[own..]));
            black_box(record.counter());
            Some(record.receiver_index())
        }
        _ => None,
    };
    assert_eq!(record_receiver(input), receiver, "the fast path agrees");
    match parsed {
        Ok(Outer::Init(init)) => {
            assert!(input.len() <= HANDSHAKE_MAX_BYTES && input.len() > COOKIE_BYTES);
            black_box((
                init.sender_index(),
                init.pattern(),
                init.mac1(),
                init.mac2(),
            ));
        }
        Ok(Outer::Response(response)) => {
            black_box((response.receiver_index(), response.mac1()));
        }
        Ok(Outer::Final(last)) => {
            black_box((last.receiver_index(), last.mac1()));
        }
        Ok(Outer::Cookie(cookie)) => {
            black_box(cookie.receiver_index());
        }
        Ok(Outer::Record(_)) | Err(_) => {}
    }
}

fn outers() -> Vec<Vec<u8>> {
    let mut rng = member::rng(1);
    let endpoint = member::pool().endpoint(0);
    let init = |rng: &mut _, remote| {
        let started = Initiator::start(rng, &endpoint, remote, 7, &[1; 300]);
        started.expect("the keys are good").datagram().to_vec()
    };
    let ik = init(&mut rng, Some(member::pool().static_key(1)));
    let xx = init(&mut rng, None);
    let reply = |kind: u8| [&[kind, 1, 0, 0, 0, 0, 0, 7][..], &[0x5a; 200]].concat();
    let mut cookie = reply(4);
    cookie.truncate(COOKIE_BYTES);
    let mut carrier = [&[6, 1, 0, 3, 0, 0, 0, 7][..], &[0x5a; 8 + 3 + 16]].concat();
    carrier.extend(reply(5));
    vec![ik, xx, reply(2), reply(3), cookie, reply(5), carrier]
}

fn frame(input: &[u8]) {
    if let Ok(Frame::Routed(header, body)) = Frame::parse(input) {
        let mut again = Vec::new();
        header.encode(&mut again);
        again.extend(body);
        assert_eq!(again, input, "a routed frame has one form");
    }
}

fn frames() -> Vec<Vec<u8>> {
    let header = |body, delivery, agent| RoutedHeader {
        delivery,
        body,
        hops: 3,
        destination: NodeId([1; 20]),
        source: NodeId([2; 20]),
        agent,
        source_agent: Some(NodeId([3; 20])),
    };
    let routed = [
        header(Body::Query, Delivery::Closest, None),
        header(Body::Answer, Delivery::Exact, Some(NodeId([4; 20]))),
        header(Body::Datagram, Delivery::Exact, None),
    ];
    let mut seeds = vec![vec![1, 0x45, 0, 0, 20], vec![3, 0, 7]];
    for header in routed {
        let mut frame = Vec::new();
        header.encode(&mut frame);
        frame.extend(b"body");
        seeds.push(frame);
    }
    seeds
}

fn message<M: Message + PartialEq + std::fmt::Debug>(input: &[u8]) {
    let Ok(message) = M::decode(input) else {
        return;
    };
    assert!(message.is_bounded());
    let mut again = Vec::new();
    message.encode(&mut again);
    assert_eq!(M::decode(&again), Ok(message));
}

/// Encodes messages, each by itself.
pub(super) fn encoded<M: Message>(messages: &[M]) -> Vec<Vec<u8>> {
    let encode = |message: &M| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        bytes
    };
    messages.iter().map(encode).collect()
}

fn candidates() -> Vec<Remote> {
    let texts = ["192.0.2.1:4001", "tcp:[2001:db8::1]:443", "10.0.0.7:65535"];
    texts.map(|text| text.parse().expect("an address")).to_vec()
}

fn contact(id: u8) -> Contact {
    Contact {
        id: NodeId([id; 20]),
        static_key: [id; 32],
        candidates: candidates(),
    }
}

fn claim() -> Claim {
    Claim {
        key: Key::Name("node-1".into()),
        sequence: 7,
        lifetime_s: 60,
        candidates: candidates(),
        value: vec![10, 128, 0, 9],
    }
}

fn record() -> Record {
    let mut claimed = Vec::new();
    claim().encode(&mut claimed);
    Record {
        certificate: member::pool().members[1].1.bytes().to_vec(),
        claim: claimed,
        signature: vec![3; 64],
    }
}

/// One control message of every kind.
pub(super) fn controls() -> Vec<Control> {
    let observed = candidates().pop();
    vec![
        Control::Probe { token: 7 },
        Control::ProbeAck { token: 7, observed },
        Control::Neighbours {
            left: vec![contact(1), contact(2)],
            right: vec![contact(3)],
            relays: vec![contact(4)],
            revocations: 7,
            wanted: true,
            reply: true,
        },
        Control::Candidates {
            candidates: candidates(),
            reply: true,
        },
        Control::Echo { token: 7 },
        Control::EchoReply { token: 7, hops: 1 },
        Control::Addresses(vec![Ipv4Addr::new(10, 128, 0, 9)]),
        Control::Store {
            token: 7,
            record: record(),
            remaining_s: 60,
        },
        Control::Stored { token: 7 },
        Control::Vote {
            token: 7,
            record: record(),
        },
        Control::Voted {
            token: 7,
            vote: Vote::Held(record()),
        },
        Control::Certificate(member::pool().members[1].1.bytes().to_vec()),
        Control::Revocations {
            revocations: vec![vec![1; 100]],
            reply: true,
        },
        Control::Bye { leaving: false },
    ]
}

/// One question of every kind.
pub(super) fn queries() -> Vec<Query> {
    let questions = [
        Question::Neighbourhood,
        Question::Resolve(Key::V4(Ipv4Addr::new(10, 128, 0, 9))),
        Question::Resolve(Key::Name("node-1".into())),
        Question::Claim(record()),
        Question::Hop {
            padding: [[0; 32]; HOP_PADDING],
        },
        Question::Links,
    ];
    let query = |question| Query { token: 7, question };
    questions.into_iter().map(query).collect()
}

/// One answer of every kind to the question with this token.
pub(super) fn answers(token: u64) -> Vec<Answer> {
    let findings = [
        Finding::Neighbourhood {
            closest: contact(1),
            left: vec![contact(2)],
            right: vec![contact(3)],
        },
        Finding::Holder {
            certificate: vec![1; 300],
            candidates: candidates(),
            v4: Ipv4Addr::new(10, 128, 0, 9),
        },
        Finding::Record(record()),
        Finding::Granted,
        Finding::Undecided,
        Finding::Nobody,
        Finding::Hop {
            name: "node-1".into(),
            address: candidates().pop(),
        },
        Finding::Links {
            name: "node-1".into(),
            links: vec![Link {
                id: NodeId([1; 20]),
                kind: LinkKind::Far,
                direct: true,
                rtt_micros: Some(1234),
            }],
        },
    ];
    findings
        .into_iter()
        .map(|finding| Answer { token, finding })
        .collect()
}

fn hello() -> Hello {
    Hello {
        certificate: vec![1; 300],
        candidates: candidates(),
        observed: candidates().pop(),
    }
}
