//! Superpackets of UDP, cut before they are sent: virtio cards of today take those of TCP alone.
//!
//! Each piece's checksum is left to the card, as the superpacket's was.

use crate::offload::{ChecksumAt, Offload};

const ETHERNET_BYTES: usize = 14;
const UDP_BYTES: usize = 8;
const UDP: u8 = 17;

/// All headers of a piece at most: Ethernet, IPv4 with every option, UDP.
const HEADERS_MAX_BYTES: usize = ETHERNET_BYTES + 60 + UDP_BYTES;

/// Hands the pieces of a frame, given in two parts of which the first holds headers only, to `put`
/// until that returns false; whether all were taken, or `None` if the frame is no superpacket of UDP.
pub fn cut(
    checksum: Option<ChecksumAt>,
    payload_bytes: u16,
    [first, second]: [&[u8]; 2],
    mut put: impl FnMut(Offload, [&[u8]; 2]) -> bool,
) -> Option<bool> {
    let start = usize::from(checksum?.start);
    let headers_bytes = start + UDP_BYTES;
    let mut headers = [0; HEADERS_MAX_BYTES];
    let headers = headers.get_mut(..headers_bytes)?;
    let behind = headers_bytes.checked_sub(first.len())?;
    headers[..first.len()].copy_from_slice(first);
    headers[first.len()..].copy_from_slice(second.get(..behind)?);
    let payload = &second[behind..];
    let mut ip = Ip::of(headers, start)?;
    let offload = Offload {
        checksum,
        segments: None,
    };
    for piece in payload.chunks(usize::from(payload_bytes).max(1)) {
        ip.set_lengths(headers, start, UDP_BYTES + piece.len());
        if !put(offload, [headers, piece]) {
            return Some(false);
        }
    }
    Some(true)
}

/// The version of a frame's packet, with what differs from piece to piece.
enum Ip {
    V4 { identification: u16 },
    V6,
}

impl Ip {
    fn of(headers: &[u8], start: usize) -> Option<Self> {
        let ip = headers.get(ETHERNET_BYTES..start)?;
        match (*ip.first()?, ip.len()) {
            (first, 20..) if first >> 4 == 4 && usize::from(first & 0xf) * 4 == ip.len() => {
                let identification = u16::from_be_bytes([ip[4], ip[5]]);
                (ip[9] == UDP).then_some(Ip::V4 { identification })
            }
            (first, 40) if first >> 4 == 6 && ip[6] == UDP => Some(Ip::V6),
            _ => None,
        }
    }

    /// Writes lengths and sums for a transport of `bytes`; of the UDP checksum the part that covers the
    /// pseudo-header.
    fn set_lengths(&mut self, headers: &mut [u8], start: usize, bytes: usize) {
        let (ip, udp) = headers.split_at_mut(start);
        let ip = &mut ip[ETHERNET_BYTES..];
        let ip_bytes = ip.len();
        // A superpacket is no longer than 65,535 bytes, and so are its pieces.
        let length = bytes as u16;
        let addresses = match self {
            Ip::V4 { identification } => {
                ip[2..4].copy_from_slice(&(length + ip_bytes as u16).to_be_bytes());
                ip[4..6].copy_from_slice(&identification.to_be_bytes());
                *identification = identification.wrapping_add(1);
                ip[10..12].fill(0);
                let sum = !sum(0, ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                &ip[12..20]
            }
            Ip::V6 => {
                ip[4..6].copy_from_slice(&length.to_be_bytes());
                &ip[8..40]
            }
        };
        let pseudo = sum(u32::from(UDP) + u32::from(length), addresses);
        udp[4..6].copy_from_slice(&length.to_be_bytes());
        udp[6..8].copy_from_slice(&pseudo.to_be_bytes());
    }
}

/// The ones' complement sum of an even number of bytes: RFC 1071.
fn sum(start: u32, bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let sum = words.fold(start, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word[1]]))
    });
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ethernet() -> Vec<u8> {
        vec![0xee; ETHERNET_BYTES]
    }

    fn v4(payload: usize) -> Vec<u8> {
        let mut frame = ethernet();
        frame.extend([
            0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
        ]);
        frame.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0]);
        frame.extend((0..payload).map(|at| at as u8));
        frame
    }

    fn v6(payload: usize) -> Vec<u8> {
        let mut frame = ethernet();
        frame.extend([0x60, 0, 0, 0, 0, 0, UDP, 64]);
        frame.extend((0..32).map(|at| at as u8 * 7));
        frame.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0]);
        frame.extend((0..payload).map(|at| at as u8));
        frame
    }

    fn at(start: u16) -> Option<ChecksumAt> {
        Some(ChecksumAt { start, offset: 6 })
    }

    /// The pieces with their checksums completed as a card does it.
    fn pieces(frame: &[u8], start: u16, payload_bytes: u16, split: usize) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let (first, second) = frame.split_at(split);
        let done = cut(
            at(start),
            payload_bytes,
            [first, second],
            |offload, parts| {
                assert_eq!(offload.checksum, at(start));
                assert_eq!(offload.segments, None);
                let mut piece = parts.concat();
                let from = usize::from(start);
                if piece.len() % 2 == 1 {
                    piece.push(0);
                }
                let sum = !sum(0, &piece[from..]);
                piece[from + 6..from + 8].copy_from_slice(&sum.to_be_bytes());
                pieces.push(piece);
                true
            },
        );
        assert_eq!(done, Some(true));
        pieces
    }

    #[test]
    fn pieces_carry_the_payload_in_order_with_right_lengths_and_sums() {
        for split in [14, 20, 42] {
            let pieces = pieces(&v4(3000), 34, 1200, split);
            assert_eq!(pieces.len(), 3);
            let payload: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece[42..].to_vec())
                .collect();
            assert_eq!(payload, v4(3000)[42..]);
            let numbers: Vec<&[u8]> = pieces.iter().map(|piece| &piece[18..20]).collect();
            assert_eq!(numbers, [[0xff, 0xff], [0, 0], [0, 1]]);
            for piece in &pieces {
                assert_eq!(sum(0, &piece[14..34]), 0xffff, "IPv4's sum");
                let length = u16::from_be_bytes([piece[16], piece[17]]);
                assert_eq!(usize::from(length), piece.len() - 14);
                let udp = piece.len() as u32 - 34;
                let whole = sum(
                    u32::from(UDP) + udp + u32::from(sum(0, &piece[26..34])),
                    &piece[34..],
                );
                assert_eq!(whole, 0xffff, "UDP's sum");
            }
        }
        let pieces = pieces(&v6(2500), 54, 1200, 14);
        assert_eq!(pieces.len(), 3);
        assert_eq!(pieces[2][18..20], (8_u16 + 100).to_be_bytes());
        let whole = sum(
            u32::from(UDP) + 108 + u32::from(sum(0, &pieces[2][22..54])),
            &pieces[2][54..],
        );
        assert_eq!(whole, 0xffff);
    }

    #[test]
    fn what_is_no_superpacket_of_udp_is_not_cut() {
        let nothing = |checksum, frame: &[u8], split| {
            let (first, second) = frame.split_at(split);
            let done = cut(checksum, 1200, [first, second], |_, _| {
                panic!("nothing comes of it")
            });
            assert_eq!(done, None);
        };
        nothing(None, &v4(3000), 14);
        nothing(at(36), &v4(3000), 14);
        nothing(at(54), &v4(3000), 14);
        nothing(at(10), &v4(3000), 14);
        nothing(at(u16::MAX), &v4(3000), 14);
        nothing(at(34), &v4(3000), 43);
        nothing(at(34), &v4(0)[..30], 14);
        let mut tcp = v4(3000);
        tcp[14 + 9] = 6;
        nothing(at(34), &tcp, 14);
    }

    proptest::proptest! {
        /// Headers come from peers: whatever they say, pieces are no longer than asked for, and nothing
        /// panics.
        #[test]
        fn any_headers_are_cut_or_refused(
            mut frame in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            version in 4_u8..=6,
            start in 0_u16..90,
            payload_bytes in 0_u16..100,
            split in 0_usize..90,
        ) {
            if frame.len() > 23 {
                frame[14] = version << 4 | 5;
                frame[23] = UDP;
                frame[20] = UDP;
            }
            let (first, second) = frame.split_at(split.min(frame.len()));
            cut(at(start), payload_bytes, [first, second], |_, [headers, piece]| {
                assert_eq!(headers.len(), usize::from(start) + UDP_BYTES);
                assert!(piece.len() <= usize::from(payload_bytes).max(1));
                true
            });
        }
    }

    #[test]
    fn a_port_that_takes_no_more_ends_the_cutting() {
        let mut left = 2;
        let done = cut(at(34), 100, [&v4(1000)[..14], &v4(1000)[14..]], |_, _| {
            left -= 1;
            left > 0
        });
        assert_eq!((done, left), (Some(false), 0));
    }
}
