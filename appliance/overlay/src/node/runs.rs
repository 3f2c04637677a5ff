//! Records that come together: what is looked up for the first of a session holds for the next of it.

use std::net::IpAddr;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::Remote;
use crate::wire::frame::{GUEST, UNSUMMED};
use crate::wire::outer::record_receiver;

use super::Node;
use super::api::GuestPacket;
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
    /// Source and destination of packets that may come in.
    addresses: (IpAddr, IpAddr),
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
        let packet = self.open_outer(now, Source::Direct(from), datagram, 0)?;
        let receiver = receiver?;
        if let Some(Owner::Peer(peer)) = self.handshakes.owner(receiver)
            && let Some(addresses) = addresses_of(packet.bytes)
        {
            run.0 = Some(Known {
                from,
                receiver,
                peer,
                addresses,
            });
        }
        Some(packet)
    }

    /// Opens one more record of a session by whose last one a packet came in.
    fn open_known<'d>(
        &mut self,
        run: &mut Run,
        now: Instant,
        known: Known,
        datagram: &'d mut [u8],
    ) -> Option<GuestPacket<&'d [u8]>> {
        let size = datagram.len();
        let peer = self.peers.get_mut(&known.peer)?;
        let mut sessions = peer.sessions.iter_mut();
        let live = sessions.find(|live| live.session.local_index() == known.receiver)?;
        let Ok(plaintext) = live.session.opener.open(datagram) else {
            self.counters.drop_record += 1;
            run.0 = Some(known);
            return None;
        };
        peer.received.count(size);
        if let [kind @ (GUEST | UNSUMMED), bytes @ ..] = &*plaintext
            && addresses_of(bytes) == Some(known.addresses)
        {
            let lacks_checksum = *kind == UNSUMMED;
            self.counters.guest_in += 1;
            run.0 = Some(known);
            return Some(GuestPacket {
                bytes: &plaintext[1..],
                lacks_checksum,
            });
        }
        // Whatever it is, it may change what is known.
        self.handle_plaintext(now, known.peer, Source::Direct(known.from), plaintext, 0)
    }
}
