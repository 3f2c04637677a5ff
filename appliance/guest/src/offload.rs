//! What a device says of a packet beside its bytes: `struct virtio_net_hdr` of linux/virtio_net.h.
//!
//! With it one write or read moves up to 64 KiB of one flow, and checksums are computed where they
//! are needed, or nowhere. Left out: fields that a device adds for several buffers or tunnels.

/// The header's size before each packet; TUN devices use the shortest kind.
pub const OFFLOAD_BYTES: usize = 10;

const NEEDS_CHECKSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCP_V4: u8 = 1;
const GSO_TCP_V6: u8 = 4;
const GSO_UDP: u8 = 5;

/// Nothing in it by default: the packet is complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport's checksum covers only its pseudo-header so far.
    pub checksum: Option<ChecksumAt>,
    /// The packet is to be cut.
    pub segments: Option<Segments>,
}

/// Where a checksum goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChecksumAt {
    /// What it covers begins here in the packet, and ends with it.
    pub start: u16,
    /// Where it stands, from `start`.
    pub offset: u16,
}

/// How a superpacket is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    /// By which protocol.
    pub transport: Transport,
    /// All headers, which each piece gets; where a device says so it may be wrong.
    pub header_bytes: u16,
    /// The payload of each piece but the last.
    pub payload_bytes: u16,
}

/// What superpackets there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either.
    Udp,
}

/// A header of another kind than was agreed on with the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device's header says what it was not asked for")]
pub struct UnknownOffload;

impl Offload {
    /// Reads the header.
    pub fn parse(header: &[u8; OFFLOAD_BYTES]) -> Result<Self, UnknownOffload> {
        let word = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let [flags, gso, ..] = *header;
        let transport = match gso {
            GSO_NONE => None,
            GSO_TCP_V4 => Some(Transport::TcpV4),
            GSO_TCP_V6 => Some(Transport::TcpV6),
            GSO_UDP => Some(Transport::Udp),
            _ => return Err(UnknownOffload),
        };
        Ok(Offload {
            checksum: (flags & NEEDS_CHECKSUM != 0).then(|| ChecksumAt {
                start: word(6),
                offset: word(8),
            }),
            segments: transport.map(|transport| Segments {
                transport,
                header_bytes: word(2),
                payload_bytes: word(4),
            }),
        })
    }

    /// The header's bytes, in the machine's own order as the kernel wants them.
    pub fn encode(self) -> [u8; OFFLOAD_BYTES] {
        let mut header = [0; OFFLOAD_BYTES];
        let mut set =
            |at: usize, word: u16| header[at..at + 2].copy_from_slice(&word.to_ne_bytes());
        if let Some(segments) = self.segments {
            set(2, segments.header_bytes);
            set(4, segments.payload_bytes);
        }
        if let Some(at) = self.checksum {
            set(6, at.start);
            set(8, at.offset);
            header[0] = NEEDS_CHECKSUM;
        }
        header[1] = match self.segments.map(|segments| segments.transport) {
            None => GSO_NONE,
            Some(Transport::TcpV4) => GSO_TCP_V4,
            Some(Transport::TcpV6) => GSO_TCP_V6,
            Some(Transport::Udp) => GSO_UDP,
        };
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let checksum = Some(ChecksumAt {
            start: 40,
            offset: 16,
        });
        for transport in [Transport::TcpV4, Transport::TcpV6, Transport::Udp] {
            let segments = Some(Segments {
                transport,
                header_bytes: 60,
                payload_bytes: 1228,
            });
            for offload in [
                Offload::default(),
                Offload {
                    checksum,
                    segments: None,
                },
                Offload { checksum, segments },
            ] {
                assert_eq!(Offload::parse(&offload.encode()), Ok(offload));
            }
        }
        assert_eq!(Offload::default().encode(), [0; OFFLOAD_BYTES]);
    }

    #[test]
    fn kinds_that_were_not_asked_for_are_refused() {
        for gso in [2, 3, 6, 0x81, 0xff] {
            let mut header = [0; OFFLOAD_BYTES];
            header[1] = gso;
            assert_eq!(Offload::parse(&header), Err(UnknownOffload));
        }
    }
}
