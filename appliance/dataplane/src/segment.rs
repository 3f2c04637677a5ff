//! What the guest hands over, made ready for sealing: superpackets are cut, each piece written straight to
//! where it is sealed; checksums that are missing stay so where the receiver can do without.

use std::net::IpAddr;

use wow_guest::Offload;
use wow_guest::offload::Transport;
use wow_overlay::node::GuestPackets;

use crate::checksum;
use crate::header::{CWR, FIN, Layout, PSH, TCP, UDP};

/// A packet and its offload that do not fit each other, or a packet that lies about its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet is not what its description says")]
pub struct Malformed;

/// One packet of the guest, or several of one flow in one superpacket.
#[derive(Debug)]
pub struct Outbound<'a> {
    packet: &'a [u8],
    /// None: whole, with its checksum.
    layout: Option<Layout>,
    /// The payload of each piece but the last; all of it where there is one piece.
    piece_bytes: usize,
    count: usize,
}

impl<'a> Outbound<'a> {
    /// Checks a packet against what the device says of it. A checksum that only its place is known of is
    /// computed at once.
    pub fn new(offload: Offload, packet: &'a mut [u8]) -> Result<Self, Malformed> {
        match (offload.segments, offload.checksum) {
            (None, None) => Ok(Outbound::complete(packet)),
            (None, Some(at)) => {
                let (start, offset) = (usize::from(at.start), usize::from(at.offset));
                let known = Layout::of(packet).filter(|layout| {
                    layout.transport == start
                        && layout.checksum_offset() == offset
                        && layout.states_length(packet)
                });
                if let Some(layout) = known {
                    return Ok(Outbound {
                        piece_bytes: packet.len() - layout.payload,
                        packet,
                        layout: Some(layout),
                        count: 1,
                    });
                }
                complete(packet, start, offset)?;
                Ok(Outbound::complete(packet))
            }
            (Some(segments), Some(at)) => {
                let layout = Layout::of(packet).ok_or(Malformed)?;
                let (is_v4, protocol) = match segments.transport {
                    Transport::TcpV4 => (true, TCP),
                    Transport::TcpV6 => (false, TCP),
                    Transport::Udp => (layout.is_v4, UDP),
                };
                let piece_bytes = usize::from(segments.payload_bytes);
                let payload = packet.len() - layout.payload;
                let agrees = layout.is_v4 == is_v4
                    && layout.protocol == protocol
                    && layout.transport == usize::from(at.start)
                    && layout.checksum_offset() == usize::from(at.offset);
                if !agrees || piece_bytes == 0 || payload == 0 {
                    return Err(Malformed);
                }
                Ok(Outbound {
                    packet,
                    layout: Some(layout),
                    piece_bytes,
                    count: payload.div_ceil(piece_bytes),
                })
            }
            // Without a checksum to fill in, pieces could not be told from damage.
            (Some(_), None) => Err(Malformed),
        }
    }

    /// A packet that needs nothing.
    pub fn complete(packet: &'a [u8]) -> Self {
        Outbound {
            packet,
            layout: None,
            piece_bytes: packet.len(),
            count: 1,
        }
    }

    /// The packet's first bytes, up to its payload at least.
    pub fn head(&self) -> &[u8] {
        self.packet
    }

    /// Gives `take` every piece, with its checksum: for those who cannot do without.
    pub fn each_complete(&self, mut take: impl FnMut(&[u8])) {
        let mut piece = Vec::new();
        for index in 0..self.count {
            piece.clear();
            self.write(index, &mut piece);
            complete_checksum(self.layout.as_ref(), &mut piece);
            take(&piece);
        }
    }

    /// The part of the payload that a piece has.
    fn payload(&self, index: usize, layout: &Layout) -> &'a [u8] {
        let start = layout.payload + index * self.piece_bytes;
        &self.packet[start..self.packet.len().min(start + self.piece_bytes)]
    }
}

impl GuestPackets for Outbound<'_> {
    fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match &self.layout {
            Some(layout) => Some((layout.source, layout.destination)),
            None => wow_overlay::node::addresses_of(self.packet),
        }
    }

    fn count(&self) -> usize {
        self.count
    }

    fn length(&self, index: usize) -> usize {
        match &self.layout {
            Some(layout) => layout.payload + self.payload(index, layout).len(),
            None => self.packet.len(),
        }
    }

    fn lacks_checksum(&self) -> bool {
        self.layout.is_some()
    }

    fn write(&self, index: usize, out: &mut Vec<u8>) {
        let Some(layout) = &self.layout else {
            out.extend_from_slice(self.packet);
            return;
        };
        let start = out.len();
        let payload = self.payload(index, layout);
        out.extend_from_slice(&self.packet[..layout.payload]);
        let header = &mut out[start..];
        if layout.is_v4 {
            let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(index as u16);
            header[4..6].copy_from_slice(&id.to_be_bytes());
        }
        layout.set_lengths(header, layout.payload + payload.len());
        let transport = layout.transport;
        if layout.protocol == TCP {
            let before = (index * self.piece_bytes) as u32;
            let number = &mut header[transport + 4..transport + 8];
            let first = u32::from_be_bytes(number.try_into().expect("four bytes"));
            number.copy_from_slice(&first.wrapping_add(before).to_be_bytes());
            let flags = &mut header[transport + 13];
            if index > 0 {
                *flags &= !CWR;
            }
            if index + 1 < self.count {
                *flags &= !(FIN | PSH);
            }
        }
        // Whoever completes or hands it on computes it anew.
        let at = layout.checksum_at();
        header[at..at + 2].fill(0);
        out.extend_from_slice(payload);
    }
}

/// Completes a packet that a peer sent without its transport's checksum.
pub fn fill_checksum(packet: &mut [u8]) -> Result<(), Malformed> {
    let layout = Layout::of(packet).filter(|layout| layout.states_length(packet));
    layout.ok_or(Malformed)?.set_checksum(packet);
    Ok(())
}

fn complete_checksum(layout: Option<&Layout>, packet: &mut [u8]) {
    if let Some(layout) = layout {
        layout.set_checksum(packet);
    }
}

/// Computes a checksum of any protocol over what a device says that it covers.
fn complete(packet: &mut [u8], start: usize, offset: usize) -> Result<(), Malformed> {
    let covered = packet.get_mut(start..).ok_or(Malformed)?;
    if offset + 2 > covered.len() {
        return Err(Malformed);
    }
    // The pseudo-header's sum stands there already.
    let sum = match checksum::finish(checksum::add(0, covered)) {
        0 => 0xffff,
        sum => sum,
    };
    covered[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests;
