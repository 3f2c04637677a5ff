//! Records that come together: what is looked up for the first of a session holds for the next of it.

use std::net::IpAddr;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::{Body, Frame, GUEST, RoutedHeader, UNSUMMED};
use crate::wire::outer::record_receiver;

use super::Node;
use super::api::GuestPacket;
use super::batches::Way;
use super::guest::addresses_of;
use super::handshake::Owner;
use super::traffic::Source;

/// What is known of the last record, for [`Node::open_next`]: begin with an empty one for datagrams that
/// were received together.
#[derive(Debug, Default)]
pub struct Run(Option<Known>);

#[derive(Debug)]
struct Known {
    from: Remote,
    receiver: u32,
    peer: NodeId,
    holds: Holds,
}

/// What the last record held.
#[derive(Debug)]
enum Holds {
    /// A packet with this source and destination, which may come in.
    Packet((IpAddr, IpAddr)),
    /// A routed frame that goes on: what it began with, and how it went.
    Passing { head: Vec<u8>, way: Way },
    /// A routed frame that ends here: what it began with, and in it a record of this session with a packet
    /// that may come in.
    Routed {
        head: Vec<u8>,
        receiver: u32,
        peer: NodeId,
        addresses: (IpAddr, IpAddr),
    },
}

impl Node {
    /// Takes the next of several datagrams that came together, all at the time `now` and with no other call
    /// between. It is opened in place; a packet for the guest is given back where it lies, the rest waits to
    /// be polled.
    pub fn open_next<'d>(
        &mut self,
        run: &mut Run,
        now: Instant,
        from: Remote,
        datagram: &'d mut [u8],
    ) -> Option<GuestPacket<&'d [u8]>> {
        self.counters.datagrams_in += 1;
        self.counters.bytes_in += datagram.len() as u64;
        let receiver = record_receiver(datagram);
        let goes_on = |known: &Known| known.from == from && Some(known.receiver) == receiver;
        if let Some(known) = run.0.take_if(|known| goes_on(known)) {
            return self.open_known(run, now, known, datagram);
        }
        run.0 = None;
        let source = Source::Direct(from);
        let Some(receiver) = receiver else {
            return self.open_outer(now, source, datagram, 0);
        };
        let (peer, plaintext) = self.unseal(now, source, receiver, datagram)?;
        let known = |holds| Known {
            from,
            receiver,
            peer,
            holds,
        };
        if let Ok(Frame::Routed(header, body)) = Frame::parse(plaintext) {
            let head = plaintext[..plaintext.len() - body.len()].to_vec();
            if let Some(way) = self.way_on(now, peer, header, body.len()) {
                run.0 = Some(known(Holds::Passing { head, way }));
                return self.handle_plaintext(now, peer, source, plaintext, 0);
            }
            let inner = self.inner(&header, body);
            let packet = self.handle_plaintext(now, peer, source, plaintext, 0)?;
            if let Some((receiver, peer)) = inner
                && let Some(addresses) = addresses_of(packet.bytes)
            {
                run.0 = Some(known(Holds::Routed {
                    head,
                    receiver,
                    peer,
                    addresses,
                }));
            }
            return Some(packet);
        }
        let packet = self.handle_plaintext(now, peer, source, plaintext, 0)?;
        if let Some(addresses) = addresses_of(packet.bytes) {
            run.0 = Some(known(Holds::Packet(addresses)));
        }
        Some(packet)
    }

    /// The session of the record in a routed frame that ends here, and its peer.
    fn inner(&self, header: &RoutedHeader, body: &[u8]) -> Option<(u32, NodeId)> {
        let receiver = (header.body == Body::Datagram).then(|| record_receiver(body))??;
        match self.handshakes.owner(receiver) {
            Some(Owner::Peer(peer)) => Some((receiver, peer)),
            _ => None,
        }
    }

    /// Opens one more record of a session, like the last one of it.
    fn open_known<'d>(
        &mut self,
        run: &mut Run,
        now: Instant,
        known: Known,
        datagram: &'d mut [u8],
    ) -> Option<GuestPacket<&'d [u8]>> {
        let Ok(plaintext) = self.open_more(known.peer, known.receiver, datagram)? else {
            run.0 = Some(known);
            return None;
        };
        let (from, peer) = (known.from, known.peer);
        match &known.holds {
            Holds::Packet(addresses) => {
                if is_packet_like(plaintext, *addresses) {
                    run.0 = Some(known);
                    return Some(self.let_in(plaintext));
                }
            }
            Holds::Passing { head, way } => {
                if let Some(body) = plaintext.strip_prefix(&head[..])
                    && self.pass_together(now, way, body)
                {
                    run.0 = Some(known);
                    return None;
                }
            }
            Holds::Routed {
                head,
                receiver,
                peer: inner,
                addresses,
            } => {
                let start = head.len();
                if plaintext.starts_with(head)
                    && record_receiver(&plaintext[start..]) == Some(*receiver)
                {
                    let (inner, addresses) = (*inner, *addresses);
                    let Ok(packet) = self.open_more(inner, *receiver, &mut plaintext[start..])?
                    else {
                        run.0 = Some(known);
                        return None;
                    };
                    if is_packet_like(packet, addresses) {
                        run.0 = Some(known);
                        return Some(self.let_in(packet));
                    }
                    let source = overlay_source(head)?;
                    return self.handle_plaintext(now, inner, source, packet, 1);
                }
            }
        }
        // Whatever it is, it may change what is known.
        self.handle_plaintext(now, peer, Source::Direct(from), plaintext, 0)
    }

    /// Opens one more record of a session; none where the session is gone, an error where it does not open.
    fn open_more<'d>(
        &mut self,
        peer: NodeId,
        receiver: u32,
        record: &'d mut [u8],
    ) -> Option<Result<&'d mut [u8], ()>> {
        let size = record.len();
        let peer = self.peers.get_mut(&peer)?;
        let live = peer.session_mut(receiver)?;
        let Ok(plaintext) = live.session.opener.open(record) else {
            self.counters.drop_record += 1;
            return Some(Err(()));
        };
        peer.received.count(size);
        Some(Ok(plaintext))
    }

    fn let_in<'d>(&mut self, plaintext: &'d [u8]) -> GuestPacket<&'d [u8]> {
        self.counters.guest_in += 1;
        GuestPacket {
            bytes: &plaintext[1..],
            lacks_checksum: plaintext[0] == UNSUMMED,
        }
    }
}

/// Where a frame that began so came from.
fn overlay_source(head: &[u8]) -> Option<Source> {
    let Ok(Frame::Routed(header, _)) = Frame::parse(head) else {
        return None;
    };
    Some(Source::Overlay {
        from: header.source,
        agent: header.source_agent,
        hops: header.hops,
    })
}

/// Whether a frame is a guest's packet between these addresses.
fn is_packet_like(plaintext: &[u8], addresses: (IpAddr, IpAddr)) -> bool {
    match plaintext {
        [GUEST | UNSUMMED, bytes @ ..] => addresses_of(bytes) == Some(addresses),
        _ => false,
    }
}
