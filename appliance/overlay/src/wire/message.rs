//! Messages: what nodes say to each other beside guest traffic, in postcard.
//!
//! Lists are bounded here, on decoding, so that nothing behind this edge sees a longer one.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use super::record::{Key, NAME_MAX, Record};
use crate::id::NodeId;
use crate::membership::revocation::REVOCATION_BYTES_MAX;

use super::Remote;

/// Addresses a node offers to be reached at.
pub const CANDIDATES_MAX: usize = 8;
/// Contacts on one side of a neighbour list.
pub const SIDE_MAX: usize = 4;
/// Relays that a node offers to be reached by.
pub const RELAYS_MAX: usize = 3;
/// Virtual addresses that a node tells that it holds.
pub const ADDRESSES_MAX: usize = 32;
/// Revocations in one message.
pub const REVOCATIONS_PER_MESSAGE_MAX: usize = 8;
/// Links in one list.
pub const LINKS_MAX: usize = 32;
/// Words of 32 bytes that make a [`Question::Hop`] at least as long as its answer.
pub const HOP_PADDING: usize = 3;
/// Longest certificate in a message, in bytes.
pub const CERTIFICATE_MAX: usize = 640;

/// What a handshake carries for the peer, encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The sender's certificate, to be verified before anything else is believed.
    pub certificate: Vec<u8>,
    /// Addresses the sender may be reached at.
    pub candidates: Vec<Remote>,
    /// The address the other side's handshake came from, in an answer by a direct path.
    pub observed: Option<Remote>,
}

/// What is needed to begin a session with a node. Proven by the handshake, not by this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// The node.
    pub id: NodeId,
    /// Its X25519 static key.
    pub static_key: [u8; 32],
    /// Addresses it may be reached at.
    pub candidates: Vec<Remote>,
}

/// A message between the two ends of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// Asks whether the path it travels on works.
    Probe {
        /// Returned in the answer.
        token: u64,
    },
    /// Answers a [`Control::Probe`], on the path that it came by.
    ProbeAck {
        /// The probe's token.
        token: u64,
        /// The address the probe came from, when it came by a direct path.
        observed: Option<Remote>,
    },
    /// The sender's nearest neighbours, nearest first, and whether it needs this link.
    Neighbours {
        /// Neighbours at decreasing positions.
        left: Vec<Contact>,
        /// Neighbours at increasing positions.
        right: Vec<Contact>,
        /// Nodes with a direct path to the sender, when none leads from the sender to the receiver.
        relays: Vec<Contact>,
        /// The digest of the revocations that the sender knows.
        revocations: u64,
        /// The sender keeps this link for its own ends.
        wanted: bool,
        /// The receiver is asked for its own list.
        reply: bool,
    },
    /// What stands where no [`Control::Neighbours`] is called for.
    Link {
        /// The digest of the list that the sender last told the receiver, or 0.
        list: u64,
        /// The sender keeps this link for its own ends.
        wanted: bool,
        /// The digest of the revocations that the sender knows.
        revocations: u64,
    },
    /// The sender's addresses: the receiver probes them at once, and so does the sender.
    Candidates {
        /// The addresses.
        candidates: Vec<Remote>,
        /// The receiver is asked for its own.
        reply: bool,
    },
    /// Asks for an [`Control::EchoReply`]: the overlay's ping.
    Echo {
        /// Returned in the answer.
        token: u64,
    },
    /// Answers an [`Control::Echo`].
    EchoReply {
        /// The request's token.
        token: u64,
        /// Nodes that forwarded the request: 0 on a direct path.
        hops: u8,
    },
    /// The virtual IPv4 addresses that the sender holds, where they are not the one that follows from
    /// its certificate.
    Addresses(Vec<Ipv4Addr>),
    /// A record of the table for the receiver to keep a copy of.
    Store {
        /// Returned in the [`Control::Stored`]; 0 if none is waited for.
        token: u64,
        /// The record; one with no lifetime withdraws what its claimant had claimed.
        record: Record,
        /// Seconds for which it still lives.
        remaining_s: u16,
    },
    /// Answers a [`Control::Store`]: it has arrived, and was kept unless something newer was here.
    Stored {
        /// The message's token.
        token: u64,
    },
    /// Asks for the promise to keep a key free for a claimant.
    Vote {
        /// Returned in the answer.
        token: u64,
        /// The claim.
        record: Record,
    },
    /// Answers a [`Control::Vote`].
    Voted {
        /// The request's token.
        token: u64,
        /// The answer.
        vote: Vote,
    },
    /// The sender's certificate, after it was renewed.
    Certificate(Vec<u8>),
    /// Revocations that the receiver may not know.
    Revocations {
        /// As the pool's CA has signed them.
        revocations: Vec<Vec<u8>>,
        /// The receiver is asked for all that it knows.
        reply: bool,
    },
    /// The sender's translator gives each far end another port: the receiver is asked to send probes
    /// to many of them.
    Punch {
        /// The translator's address.
        ip: IpAddr,
        /// The first of the ports that are likely.
        first: u16,
        /// How many are; 0 where any may be.
        count: u16,
    },
    /// Agrees to a [`Control::Punch`].
    Punching,
    /// The sender drops the link.
    Bye {
        /// The sender leaves the pool, rather than just this link.
        leaving: bool,
    },
}

/// The answer to the question whether a key is free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vote {
    /// It is, and is kept so for a while.
    Yes,
    /// Not for this claimant now.
    No,
    /// Somebody holds it.
    Held(Record),
}

/// A question to whoever is closest to a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// Returned in the answer.
    pub token: u64,
    /// The question.
    pub question: Question,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Who is around the destination?
    Neighbourhood,
    /// Who has this address, name or service?
    Resolve(Key),
    /// Give the claimant this key, or renew it; a claim without lifetime gives it up, and has no
    /// answer.
    Claim(Record),
    /// Who is where this question's hops run out?
    Hop {
        /// Zeros, so that the answer is no longer than the question.
        padding: [[u8; 32]; HOP_PADDING],
    },
    /// Which links has the destination?
    Links,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The query's token.
    pub token: u64,
    /// The findings.
    pub finding: Finding,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Finding {
    /// The answering node and its neighbours.
    Neighbourhood {
        /// The answering node.
        closest: Contact,
        /// Its neighbours at decreasing positions, nearest first.
        left: Vec<Contact>,
        /// Its neighbours at increasing positions, nearest first.
        right: Vec<Contact>,
    },
    /// The node that holds the key.
    Holder {
        /// Its certificate, which names the key.
        certificate: Vec<u8>,
        /// How to reach it.
        candidates: Vec<Remote>,
        /// Its own virtual IPv4 address.
        v4: Ipv4Addr,
    },
    /// The record of the key's holder.
    Record(Record),
    /// Nobody that the answering node knows of.
    Nobody,
    /// The claimant has the key.
    Granted,
    /// Too few promised the claimant the key, for now.
    Undecided,
    /// Where the question's hops ran out.
    Hop {
        /// The answering node's name.
        name: String,
        /// An address that it is reached at, in its own words.
        address: Option<Remote>,
    },
    /// The answering node's links.
    Links {
        /// Its name.
        name: String,
        /// The links, the most important first.
        links: Vec<Link>,
    },
}

/// What a link is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// One of our nearest neighbours in the ring, or we are one of its.
    Near,
    /// A link across the ring that shortens routes.
    Far,
    /// Traffic between the two guests.
    OnDemand,
    /// None of these: about to be dropped, or kept by the other side.
    Idle,
}

/// One link of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The node at its other end.
    pub id: NodeId,
    /// What it is there for.
    pub kind: LinkKind,
    /// Whether a direct path is in use.
    pub direct: bool,
    /// The path's smoothed round-trip time in microseconds, once measured.
    pub rtt_micros: Option<u32>,
}

/// A message that does not decode, or breaks a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed message")]
pub struct MessageError;

/// A message with bounds beyond its encoding.
pub trait Message: Serialize + for<'de> Deserialize<'de> {
    /// Whether every list and text is within its bound.
    fn is_bounded(&self) -> bool;

    /// Decodes exactly one message.
    fn decode(bytes: &[u8]) -> Result<Self, MessageError> {
        let (message, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(|_| MessageError)?;
        if rest.is_empty() && message.is_bounded() {
            Ok(message)
        } else {
            Err(MessageError)
        }
    }

    /// Appends the message to `out`.
    fn encode(&self, out: &mut Vec<u8>) {
        let bytes = postcard::to_extend(self, std::mem::take(out));
        *out = bytes.expect("a vector takes any message");
    }
}

fn sides_are_bounded(left: &[Contact], right: &[Contact]) -> bool {
    left.len() <= SIDE_MAX
        && right.len() <= SIDE_MAX
        && left.iter().chain(right).all(Message::is_bounded)
}

fn offer_is_bounded(certificate: &[u8], candidates: &[Remote]) -> bool {
    certificate.len() <= CERTIFICATE_MAX && candidates.len() <= CANDIDATES_MAX
}

impl Message for Hello {
    fn is_bounded(&self) -> bool {
        offer_is_bounded(&self.certificate, &self.candidates)
    }
}

impl Message for Contact {
    fn is_bounded(&self) -> bool {
        self.candidates.len() <= CANDIDATES_MAX
    }
}

impl Message for Control {
    fn is_bounded(&self) -> bool {
        match self {
            Control::Neighbours {
                left,
                right,
                relays,
                ..
            } => {
                sides_are_bounded(left, right)
                    && relays.len() <= RELAYS_MAX
                    && relays.iter().all(Message::is_bounded)
            }
            Control::Revocations { revocations, .. } => {
                revocations.len() <= REVOCATIONS_PER_MESSAGE_MAX
                    && revocations
                        .iter()
                        .all(|one| one.len() <= REVOCATION_BYTES_MAX)
            }
            Control::Candidates { candidates, .. } => candidates.len() <= CANDIDATES_MAX,
            Control::Certificate(certificate) => certificate.len() <= CERTIFICATE_MAX,
            Control::Addresses(addresses) => addresses.len() <= ADDRESSES_MAX,
            Control::Store { record, .. } | Control::Vote { record, .. } => record.is_bounded(),
            Control::Voted { vote, .. } => match vote {
                Vote::Held(record) => record.is_bounded(),
                Vote::Yes | Vote::No => true,
            },
            Control::Probe { .. }
            | Control::Link { .. }
            | Control::ProbeAck { .. }
            | Control::Echo { .. }
            | Control::EchoReply { .. }
            | Control::Stored { .. }
            | Control::Punch { .. }
            | Control::Punching
            | Control::Bye { .. } => true,
        }
    }
}

impl Message for Query {
    fn is_bounded(&self) -> bool {
        match &self.question {
            Question::Neighbourhood | Question::Hop { .. } | Question::Links => true,
            Question::Resolve(key) => key.is_bounded(),
            Question::Claim(record) => record.is_bounded(),
        }
    }
}

impl Message for Answer {
    fn is_bounded(&self) -> bool {
        match &self.finding {
            Finding::Neighbourhood {
                closest,
                left,
                right,
            } => closest.is_bounded() && sides_are_bounded(left, right),
            Finding::Holder {
                certificate,
                candidates,
                ..
            } => offer_is_bounded(certificate, candidates),
            Finding::Record(record) => record.is_bounded(),
            Finding::Nobody | Finding::Granted | Finding::Undecided => true,
            Finding::Hop { name, .. } => name.len() <= NAME_MAX,
            Finding::Links { name, links } => name.len() <= NAME_MAX && links.len() <= LINKS_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contact() -> Contact {
        Contact {
            id: NodeId([7; 20]),
            static_key: [9; 32],
            candidates: vec!["192.0.2.1:4001".parse().unwrap(); 3],
        }
    }

    fn neighbours(side: usize, relays: usize) -> Control {
        Control::Neighbours {
            left: vec![contact(); side],
            right: vec![contact(); side],
            relays: vec![contact(); relays],
            revocations: u64::MAX,
            wanted: true,
            reply: false,
        }
    }

    #[test]
    fn messages_round_trip() {
        let mut bytes = Vec::new();
        let message = neighbours(SIDE_MAX, RELAYS_MAX);
        message.encode(&mut bytes);
        assert_eq!(Control::decode(&bytes), Ok(message));
    }

    #[test]
    fn a_full_neighbour_list_fits_a_datagram() {
        let mut bytes = Vec::new();
        neighbours(SIDE_MAX, RELAYS_MAX).encode(&mut bytes);
        assert!(bytes.len() < 1200, "{} bytes", bytes.len());
    }

    #[test]
    fn the_answer_to_a_hop_is_no_longer_than_its_question_and_a_list_of_links_fits() {
        let length = |message: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = Vec::new();
            message(&mut bytes);
            bytes.len()
        };
        let token = u64::MAX;
        let padding = [[0; 32]; HOP_PADDING];
        let question = Query {
            token,
            question: Question::Hop { padding },
        };
        let name = "n".repeat(NAME_MAX);
        let address = Some("[2001:db8::1]:65535".parse().unwrap());
        let finding = Finding::Hop {
            name: name.clone(),
            address,
        };
        let answer = Answer { token, finding };
        assert!(length(&|out| answer.encode(out)) <= length(&|out| question.encode(out)));
        let link = Link {
            id: NodeId([7; 20]),
            kind: LinkKind::Idle,
            direct: true,
            rtt_micros: Some(u32::MAX),
        };
        let links = vec![link; LINKS_MAX];
        let finding = Finding::Links { name, links };
        let answer = Answer { token, finding };
        assert!(length(&|out| answer.encode(out)) < 1100);
    }

    #[test]
    fn longer_lists_than_the_bound_are_refused() {
        for message in [neighbours(SIDE_MAX + 1, 0), neighbours(0, RELAYS_MAX + 1)] {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(Control::decode(&bytes), Err(MessageError));
        }
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = Vec::new();
        Control::Bye { leaving: true }.encode(&mut bytes);
        bytes.push(0);
        assert_eq!(Control::decode(&bytes), Err(MessageError));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Control::decode(&bytes);
            let _ = Query::decode(&bytes);
            let _ = Answer::decode(&bytes);
            let _ = Hello::decode(&bytes);
        }
    }
}
