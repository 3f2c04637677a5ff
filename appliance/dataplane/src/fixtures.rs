//! Packets for tests.

use proptest::prelude::*;
use wow_guest::Offload;
use wow_guest::offload::{ChecksumAt, Segments, Transport};

use crate::header::{ACK, FIN, Layout, PSH, TCP, UDP};

/// One flow's superpacket, as a kernel hands it over.
#[derive(Debug, Clone)]
pub struct Super {
    pub offload: Offload,
    pub packet: Vec<u8>,
}

/// What a packet is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub is_v4: bool,
    pub protocol: u8,
    pub port: u16,
    pub sequence: u32,
    pub flags: u8,
    pub options: usize,
}

impl Shape {
    pub const TCP_V4: Shape = Shape {
        is_v4: true,
        protocol: TCP,
        port: 1000,
        sequence: 7,
        flags: ACK,
        options: 12,
    };

    /// A packet with this payload and no checksum of its transport.
    pub fn packet(self, payload: &[u8]) -> Vec<u8> {
        let mut packet = match self.is_v4 {
            true => vec![0x45, 0, 0, 0, 0xff, 0xf0, 0x40, 0, 64, self.protocol, 0, 0],
            false => vec![0x60, 0, 0, 0, 0, 0, self.protocol, 64],
        };
        match self.is_v4 {
            true => packet.extend([10, 128, 0, 2, 10, 128, 0, 3]),
            false => packet.extend([0xfd; 32]),
        }
        let transport = packet.len();
        packet.extend(self.port.to_be_bytes());
        packet.extend([0, 80]);
        if self.protocol == TCP {
            packet.extend(self.sequence.to_be_bytes());
            packet.extend([0, 0, 0, 9]);
            packet.push((20 + self.options as u8) << 2);
            packet.extend([self.flags, 1, 0, 0, 0, 0, 0]);
            packet.extend((0..self.options).map(|_| 1));
        } else {
            packet.extend([0; 4]);
        }
        packet.extend(payload);
        let layout = Layout::of(&packet).expect("a sound packet");
        assert_eq!(layout.transport, transport);
        let length = packet.len();
        layout.set_lengths(&mut packet, length);
        packet
    }

    pub fn checksum_at(self) -> ChecksumAt {
        ChecksumAt {
            start: if self.is_v4 { 20 } else { 40 },
            offset: if self.protocol == TCP { 16 } else { 6 },
        }
    }

    pub fn superpacket(self, payload: &[u8], piece_bytes: u16) -> Super {
        let mut packet = self.packet(payload);
        let layout = Layout::of(&packet).expect("a sound packet");
        layout.set_partial_checksum(&mut packet);
        let transport = match (self.protocol, self.is_v4) {
            (TCP, true) => Transport::TcpV4,
            (TCP, false) => Transport::TcpV6,
            _ => Transport::Udp,
        };
        Super {
            offload: Offload {
                checksum: Some(self.checksum_at()),
                segments: Some(Segments {
                    transport,
                    header_bytes: layout.payload as u16,
                    payload_bytes: piece_bytes,
                }),
            },
            packet,
        }
    }
}

prop_compose! {
    pub fn shape()(
        is_v4: bool, tcp: bool, port in 1u16..4, sequence: u32, words in 0usize..=10,
        flags in prop_oneof![Just(ACK), Just(ACK | PSH), Just(ACK | FIN | PSH)],
    ) -> Shape {
        let protocol = if tcp { TCP } else { UDP };
        Shape { is_v4, protocol, port, sequence, flags, options: 4 * words }
    }
}

prop_compose! {
    pub fn superpacket()(
        shape in shape(), payload in proptest::collection::vec(any::<u8>(), 2..9000),
        share in 0.02f64..0.99,
    ) -> Super {
        // Two pieces at least, and fewer than a kernel takes.
        let piece = (payload.len() as f64 * share).ceil() as usize;
        let piece = piece.min(payload.len() - 1) as u16;
        shape.superpacket(&payload, piece)
    }
}
