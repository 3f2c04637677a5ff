//! Frames: what a record carries once it is opened.
//!
//! ```text
//! 0x01 guest    | IP packet
//! 0x02 routed   | flags, hops, destination, source, [agent], [source agent], body
//! 0x03 control  | one `message::Control`, postcard
//! 0x04 unsummed | IP packet of TCP or UDP, without the transport's checksum
//! 0x05 size     | token (8), then zeros up to the length that is probed
//! 0x06 part     | frame number (2), place, count, a part of a frame of another kind
//! ```

use crate::id::{ID_BYTES, NodeId};

/// Kind byte of a frame that holds one IP packet of the sender's guest.
pub const GUEST: u8 = 0x01;
/// Kind byte of a frame that travels on over the overlay.
pub const ROUTED: u8 = 0x02;
/// Kind byte of a frame that holds one [`Control`](super::message::Control) message.
pub const CONTROL: u8 = 0x03;
/// Kind byte of a frame that holds one IP packet of TCP or UDP whose transport checksum is left to the
/// receiver: the record authenticates it better.
pub const UNSUMMED: u8 = 0x04;
/// Kind byte of a frame that is as long as a path may carry, answered by a
/// [`ProbeAck`](super::message::Control::ProbeAck).
pub const SIZE_PROBE: u8 = 0x05;
/// Kind byte of a part of a frame that is longer than its path carries.
pub const PART: u8 = 0x06;

/// Largest encoded [`RoutedHeader`]: both agents present.
pub const ROUTED_HEADER_MAX: usize = 3 + 4 * ID_BYTES;

/// Links a routed frame may cross before it is dropped as lost in a loop.
pub const HOPS_MAX: u8 = 64;

const FLAG_CLOSEST: u8 = 0x01;
const FLAG_AGENT: u8 = 0x02;
const FLAG_SOURCE_AGENT: u8 = 0x04;
const FLAG_BODY_SHIFT: u8 = 4;

/// One frame, borrowing from the opened record.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// An IP packet of the sender's guest.
    Guest(&'a [u8]),
    /// The same without its transport's checksum.
    Unsummed(&'a [u8]),
    /// A frame on its way over the overlay.
    Routed(RoutedHeader, &'a [u8]),
    /// A postcard-encoded message between the two ends of the session.
    Control(&'a [u8]),
    /// A token, and what makes it long.
    SizeProbe(&'a [u8]),
    /// A part of a frame.
    Part(&'a [u8]),
}

/// Where a routed frame ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// At the destination itself, or nowhere.
    Exact,
    /// At the node closest to the destination, the source excepted.
    Closest,
}

/// What a routed frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// An outer datagram (handshake or record) for the session between source and destination.
    Datagram,
    /// A [`Query`](super::message::Query).
    Query,
    /// An [`Answer`](super::message::Answer).
    Answer,
}

/// How a routed frame finds its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedHeader {
    /// Where it ends.
    pub delivery: Delivery,
    /// What it carries.
    pub body: Body,
    /// Links crossed so far.
    pub hops: u8,
    /// The position it is going to.
    pub destination: NodeId,
    /// The node it is from.
    pub source: NodeId,
    /// A node that it visits first: one that has a link to a destination outside the ring.
    pub agent: Option<NodeId>,
    /// The agent that answers to the source go through.
    pub source_agent: Option<NodeId>,
}

/// A frame that does not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Shorter than its kind needs.
    #[error("frame is truncated")]
    Truncated,
    /// A kind, flag or body that this version does not know.
    #[error("frame of unknown kind")]
    Unknown,
}

impl<'a> Frame<'a> {
    /// Decodes the plaintext of a record.
    pub fn parse(plaintext: &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let (&kind, rest) = plaintext.split_first().ok_or(FrameError::Truncated)?;
        match kind {
            GUEST => Ok(Frame::Guest(rest)),
            UNSUMMED => Ok(Frame::Unsummed(rest)),
            ROUTED => {
                let (header, body) = RoutedHeader::parse(rest)?;
                Ok(Frame::Routed(header, body))
            }
            CONTROL => Ok(Frame::Control(rest)),
            SIZE_PROBE => Ok(Frame::SizeProbe(rest)),
            PART => Ok(Frame::Part(rest)),
            _ => Err(FrameError::Unknown),
        }
    }
}

/// Whether these bytes are all that stands before a datagram in a routed frame.
pub fn is_routed_head(bytes: &[u8]) -> bool {
    match Frame::parse(bytes) {
        Ok(Frame::Routed(header, body)) => header.body == Body::Datagram && body.is_empty(),
        _ => false,
    }
}

impl RoutedHeader {
    /// Appends the kind byte and the header to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut flags = match self.body {
            Body::Datagram => 0,
            Body::Query => 1,
            Body::Answer => 2,
        } << FLAG_BODY_SHIFT;
        if self.delivery == Delivery::Closest {
            flags |= FLAG_CLOSEST;
        }
        if self.agent.is_some() {
            flags |= FLAG_AGENT;
        }
        if self.source_agent.is_some() {
            flags |= FLAG_SOURCE_AGENT;
        }
        out.extend([ROUTED, flags, self.hops]);
        out.extend(self.destination.0);
        out.extend(self.source.0);
        for agent in [self.agent, self.source_agent].into_iter().flatten() {
            out.extend(agent.0);
        }
    }

    fn parse(bytes: &[u8]) -> Result<(RoutedHeader, &[u8]), FrameError> {
        let ([flags, hops], mut rest) = bytes
            .split_first_chunk::<2>()
            .map(|(head, rest)| (*head, rest))
            .ok_or(FrameError::Truncated)?;
        let body = match flags >> FLAG_BODY_SHIFT {
            0 => Body::Datagram,
            1 => Body::Query,
            2 => Body::Answer,
            _ => return Err(FrameError::Unknown),
        };
        if flags & 0x0f & !(FLAG_CLOSEST | FLAG_AGENT | FLAG_SOURCE_AGENT) != 0 {
            return Err(FrameError::Unknown);
        }
        let mut id = || {
            let (head, tail) = rest
                .split_first_chunk::<ID_BYTES>()
                .ok_or(FrameError::Truncated)?;
            rest = tail;
            Ok(NodeId(*head))
        };
        let header = RoutedHeader {
            delivery: if flags & FLAG_CLOSEST != 0 {
                Delivery::Closest
            } else {
                Delivery::Exact
            },
            body,
            hops,
            destination: id()?,
            source: id()?,
            agent: (flags & FLAG_AGENT != 0).then(&mut id).transpose()?,
            source_agent: (flags & FLAG_SOURCE_AGENT != 0).then(&mut id).transpose()?,
        };
        Ok((header, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header() -> impl Strategy<Value = RoutedHeader> {
        let id = any::<[u8; ID_BYTES]>().prop_map(NodeId);
        (
            any::<bool>(),
            0..3u8,
            any::<u8>(),
            id.clone(),
            id.clone(),
            proptest::option::of(id.clone()),
            proptest::option::of(id),
        )
            .prop_map(
                |(closest, body, hops, destination, source, agent, source_agent)| RoutedHeader {
                    delivery: if closest {
                        Delivery::Closest
                    } else {
                        Delivery::Exact
                    },
                    body: [Body::Datagram, Body::Query, Body::Answer][usize::from(body)],
                    hops,
                    destination,
                    source,
                    agent,
                    source_agent,
                },
            )
    }

    proptest! {
        #[test]
        fn routed_frames_round_trip(header in header(), body: Vec<u8>) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            prop_assert!(bytes.len() <= 1 + ROUTED_HEADER_MAX);
            bytes.extend(&body);
            prop_assert_eq!(Frame::parse(&bytes), Ok(Frame::Routed(header, &body)));
        }

        #[test]
        fn truncated_headers_are_refused(header in header(), cut in 1usize..80) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            bytes.truncate(bytes.len().saturating_sub(cut));
            prop_assert!(Frame::parse(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Frame::parse(&bytes);
        }
    }
}
