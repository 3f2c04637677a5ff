//! What stands before each frame in a buffer: `struct virtio_net_hdr_v1`, twelve bytes.
//!
//! Its first ten are the [`Offload`]; little-endian, which is this machine's own order.

use crate::offload::{OFFLOAD_BYTES, Offload, Transport, UnknownOffload};

/// The header's size.
pub const HEADER_BYTES: usize = OFFLOAD_BYTES + 2;

/// Beside the kind of a TCP superpacket: what the packet itself says of congestion.
const ECN: u8 = 0x80;

/// A header as the card wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What is said of the frame.
    pub offload: Offload,
    /// How many buffers the frame lies in.
    pub buffers: u16,
}

impl Header {
    /// Reads a header; only what was agreed on is understood.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, UnknownOffload> {
        let (first, _) = bytes.split_first_chunk().expect("it is longer");
        let mut first: [u8; OFFLOAD_BYTES] = *first;
        first[1] &= !ECN;
        let offload = Offload::parse(&first)?;
        let transport = offload.segments.map(|segments| segments.transport);
        let buffers = buffers(bytes);
        // Superpackets of UDP were not agreed on.
        if transport == Some(Transport::Udp) || buffers == 0 {
            return Err(UnknownOffload);
        }
        Ok(Header { offload, buffers })
    }

    /// The header of a frame that is sent.
    pub fn encode(offload: Offload) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..OFFLOAD_BYTES].copy_from_slice(&offload.encode());
        bytes
    }
}

/// How many buffers a frame lies in, whatever else its header says.
pub fn buffers(bytes: &[u8; HEADER_BYTES]) -> u16 {
    u16::from_le_bytes([bytes[OFFLOAD_BYTES], bytes[OFFLOAD_BYTES + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::{ChecksumAt, Segments};

    fn offload(transport: Transport) -> Offload {
        Offload {
            checksum: Some(ChecksumAt {
                start: 34,
                offset: 16,
            }),
            segments: Some(Segments {
                transport,
                header_bytes: 66,
                payload_bytes: 1448,
            }),
        }
    }

    #[test]
    fn what_is_written_is_read_and_udp_superpackets_were_not_agreed_on() {
        let mut bytes = Header::encode(offload(Transport::TcpV6));
        assert_eq!(Header::parse(&bytes), Err(UnknownOffload), "in no buffer");
        bytes[OFFLOAD_BYTES] = 3;
        let header = Header::parse(&bytes).unwrap();
        assert_eq!(header.offload, offload(Transport::TcpV6));
        assert_eq!(header.buffers, 3);
        let mut bytes = Header::encode(offload(Transport::Udp));
        bytes[OFFLOAD_BYTES] = 1;
        assert_eq!(Header::parse(&bytes), Err(UnknownOffload));
    }
}
