//! Joins packets of one flow that arrived together into superpackets, so that the guest takes them in one go.
//!
//! What was cut from one superpacket becomes it again. The order of packets within a flow never changes:
//! a packet is only ever joined to the last one of its flow. Other flows do not come between.

use wow_guest::Offload;
use wow_guest::offload::{ChecksumAt, Segments, Transport};

use crate::header::{ACK, FIN, Layout, PSH, TCP, UDP};
use crate::segment::Malformed;

/// Packets and superpackets that are held at once.
pub const ITEMS_MAX: usize = 32;

/// Buffers kept for reuse.
const SPARE_MAX: usize = 2 * ITEMS_MAX;

/// Longest superpacket: what IPv4's header can say.
const SUPERPACKET_MAX_BYTES: usize = 65_535;

/// Most datagrams in one: Linux refuses more, some versions twice as many.
const DATAGRAMS_MAX: usize = 64;

/// Holds up to [`ITEMS_MAX`] packets until they are taken out.
#[derive(Debug, Default)]
pub struct Coalescer {
    items: Vec<Item>,
    /// Buffers of items that were taken out.
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Item {
    bytes: Vec<u8>,
    /// None where the packet is not one of TCP or UDP.
    layout: Option<Layout>,
    /// The checksum is not computed yet.
    partial: bool,
    joined: Option<Joined>,
}

/// What an item takes that others are joined to.
#[derive(Debug)]
struct Joined {
    piece_bytes: usize,
    count: usize,
    next_sequence: u32,
    /// Nothing may follow: its last piece was short or ended a burst.
    is_closed: bool,
}

impl Coalescer {
    /// Whether no further packet is taken before they are taken out.
    pub fn is_full(&self) -> bool {
        self.items.len() == ITEMS_MAX
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes a packet, with its transport's checksum or (`lacks_checksum`) without.
    ///
    /// # Errors
    /// It lacks a checksum that there is no place for.
    ///
    /// # Panics
    /// It is full.
    pub fn push(&mut self, packet: &[u8], lacks_checksum: bool) -> Result<(), Malformed> {
        assert!(!self.is_full(), "callers look first");
        let layout = Layout::of(packet).filter(|layout| layout.states_length(packet));
        if lacks_checksum && layout.is_none() {
            return Err(Malformed);
        }
        let joinable = layout
            .as_ref()
            .filter(|layout| is_joinable(layout, packet))
            .filter(|layout| lacks_checksum || layout.has_checksum(packet));
        let last = layout
            .as_ref()
            .and_then(|layout| self.last_of(layout, packet));
        if let (Some(layout), Some(last)) = (joinable, last)
            && last.takes(layout, packet)
        {
            last.join(layout, packet);
            return Ok(());
        }
        let joined = joinable.map(|layout| Joined::first(layout, packet));
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.clear();
        bytes.extend_from_slice(packet);
        self.items.push(Item {
            bytes,
            partial: lacks_checksum,
            joined,
            layout,
        });
        Ok(())
    }

    /// Gives `write` everything that is held, in order, and holds nothing then.
    pub fn take(&mut self, mut write: impl FnMut(Offload, &[u8])) {
        for mut item in self.items.drain(..) {
            let offload = item.finish();
            write(offload, &item.bytes);
            self.spare.push(item.bytes);
        }
    }

    /// Everything that is held, in order; nothing is held then. [`reuse`](Self::reuse) takes the buffers back.
    pub fn drain(&mut self) -> impl Iterator<Item = (Offload, Vec<u8>)> {
        self.items.drain(..).map(|mut item| {
            let offload = item.finish();
            (offload, item.bytes)
        })
    }

    /// Takes a buffer back that [`drain`](Self::drain) gave away.
    pub fn reuse(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(buffer);
        }
    }

    /// Bytes of all packets that are held.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.bytes.len()).sum()
    }

    /// The last item of a packet's flow.
    fn last_of(&mut self, layout: &Layout, packet: &[u8]) -> Option<&mut Item> {
        self.items
            .iter_mut()
            .rev()
            .find(|item| item.is_of_flow(layout, packet))
    }
}

impl Item {
    fn is_of_flow(&self, layout: &Layout, packet: &[u8]) -> bool {
        self.layout.as_ref().is_some_and(|own| {
            let ports = |layout: &Layout| layout.transport..layout.transport + 4;
            own.protocol == layout.protocol
                && self.bytes[ports(own)] == packet[ports(layout)]
                && own.source == layout.source
                && own.destination == layout.destination
        })
    }

    /// Whether a packet of the flow follows what there is, with the same headers.
    fn takes(&self, layout: &Layout, packet: &[u8]) -> bool {
        let (Some(joined), Some(own)) = (&self.joined, &self.layout) else {
            return false;
        };
        let payload = packet.len() - layout.payload;
        !joined.is_closed
            && own.payload == layout.payload
            && own.transport == layout.transport
            && payload <= joined.piece_bytes
            && self.bytes.len() + payload <= SUPERPACKET_MAX_BYTES
            && (layout.protocol == TCP || joined.count < DATAGRAMS_MAX)
            && has_same_ip_header(own, joined.count, &self.bytes, packet)
            && (layout.protocol == UDP || continues_tcp(own, joined, &self.bytes, packet))
    }

    fn join(&mut self, layout: &Layout, packet: &[u8]) {
        let Some(joined) = &mut self.joined else {
            return;
        };
        let payload = &packet[layout.payload..];
        self.bytes.extend_from_slice(payload);
        joined.count += 1;
        joined.next_sequence = joined.next_sequence.wrapping_add(payload.len() as u32);
        joined.is_closed = payload.len() < joined.piece_bytes;
        if layout.protocol == TCP {
            let last = packet[layout.transport + 13] & (FIN | PSH);
            self.bytes[layout.transport + 13] |= last;
            joined.is_closed |= last != 0;
        }
    }

    /// Makes headers and offload of what is there.
    fn finish(&mut self) -> Offload {
        let Some(layout) = &self.layout else {
            return Offload::default();
        };
        let checksum = Some(ChecksumAt {
            start: layout.transport as u16,
            offset: layout.checksum_offset() as u16,
        });
        match &self.joined {
            Some(joined) if joined.count > 1 => {
                let length = self.bytes.len();
                layout.set_lengths(&mut self.bytes, length);
                layout.set_partial_checksum(&mut self.bytes);
                let transport = match (layout.protocol, layout.is_v4) {
                    (TCP, true) => Transport::TcpV4,
                    (TCP, false) => Transport::TcpV6,
                    _ => Transport::Udp,
                };
                Offload {
                    checksum,
                    segments: Some(Segments {
                        transport,
                        header_bytes: layout.payload as u16,
                        payload_bytes: joined.piece_bytes as u16,
                    }),
                }
            }
            _ if self.partial => {
                layout.set_partial_checksum(&mut self.bytes);
                Offload {
                    checksum,
                    segments: None,
                }
            }
            _ => Offload::default(),
        }
    }
}

impl Joined {
    fn first(layout: &Layout, packet: &[u8]) -> Self {
        let payload = packet.len() - layout.payload;
        let at = layout.transport;
        let (next_sequence, ends) = match layout.protocol {
            TCP => {
                let number = packet[at + 4..at + 8].try_into().expect("four bytes");
                let next = u32::from_be_bytes(number).wrapping_add(payload as u32);
                (next, packet[at + 13] & (FIN | PSH) != 0)
            }
            _ => (0, false),
        };
        Joined {
            piece_bytes: payload,
            count: 1,
            next_sequence,
            is_closed: ends,
        }
    }
}

/// Whether others may be joined to such a packet at all, or it to others.
fn is_joinable(layout: &Layout, packet: &[u8]) -> bool {
    // SYN, RST and URG stand for themselves, CWR and ECE are told once.
    let is_plain = |flags: u8| flags & !(FIN | PSH) == ACK;
    let plain = layout.protocol == UDP || is_plain(packet[layout.transport + 13]);
    let has_options = layout.is_v4 && layout.transport != 20;
    plain && !has_options && packet.len() > layout.payload
}

/// Whether nothing but lengths, checksum and number differs between the IP headers.
fn has_same_ip_header(own: &Layout, count: usize, bytes: &[u8], packet: &[u8]) -> bool {
    if !own.is_v4 {
        return bytes[..4] == packet[..4] && bytes[6..8] == packet[6..8];
    }
    const DO_NOT_FRAGMENT: u8 = 0x40;
    let id = |bytes: &[u8]| u16::from_be_bytes([bytes[4], bytes[5]]);
    let follows = id(packet) == id(bytes).wrapping_add(count as u16);
    // What is never fragmented needs no number, and often has none (RFC 6864).
    let unnumbered = packet[6] & DO_NOT_FRAGMENT != 0 && id(packet) == id(bytes);
    bytes[..2] == packet[..2] && bytes[6..10] == packet[6..10] && (follows || unnumbered)
}

/// Whether a TCP segment comes right after what there is and says the same otherwise.
fn continues_tcp(own: &Layout, joined: &Joined, bytes: &[u8], packet: &[u8]) -> bool {
    let at = own.transport;
    let header = &packet[at..own.payload];
    let before = &bytes[at..own.payload];
    let sequence = u32::from_be_bytes(header[4..8].try_into().expect("four bytes"));
    // Acknowledgement, header length and window, urgent pointer, options; of the flags only FIN and
    // PSH may be new.
    let same_flags = (before[13] ^ header[13]) & !(FIN | PSH) == 0;
    sequence == joined.next_sequence
        && before[8..13] == header[8..13]
        && same_flags
        && before[14..16] == header[14..16]
        && before[18..] == header[18..]
}

#[cfg(test)]
mod tests;
