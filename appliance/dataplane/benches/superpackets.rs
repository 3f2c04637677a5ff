//! `cargo bench -p wow-dataplane`: superpackets cut, and packets joined again, without any kernel.

use divan::Bencher;
use divan::counter::BytesCount;
use wow_dataplane::{Coalescer, Outbound};
use wow_guest::Offload;
use wow_guest::offload::{ChecksumAt, Segments, Transport};
use wow_overlay::node::{GUEST_MTU_DEFAULT, GuestPackets};

const HEADER_BYTES: usize = 20 + 20;
const PIECE_BYTES: usize = GUEST_MTU_DEFAULT - HEADER_BYTES;
const PAYLOAD_BYTES: usize = 45 * PIECE_BYTES;

fn main() {
    divan::main();
}

/// One flow's superpacket of TCP over IPv4.
fn superpacket() -> (Offload, Vec<u8>) {
    let mut packet = vec![7; HEADER_BYTES + PAYLOAD_BYTES];
    packet[0] = 0x45;
    packet[6..8].copy_from_slice(&[0x40, 0]);
    packet[9] = 6;
    // The header's length, and an acknowledgement.
    packet[32] = 5 << 4;
    packet[33] = 0x10;
    let offload = Offload {
        checksum: Some(ChecksumAt {
            start: 20,
            offset: 16,
        }),
        segments: Some(Segments {
            transport: Transport::TcpV4,
            header_bytes: HEADER_BYTES as u16,
            payload_bytes: PIECE_BYTES as u16,
        }),
    };
    (offload, packet)
}

fn pieces() -> Vec<Vec<u8>> {
    let (offload, mut packet) = superpacket();
    let outbound = Outbound::new(offload, &mut packet).expect("a superpacket");
    let piece = |index| {
        let mut out = Vec::new();
        outbound.write(index, &mut out);
        out
    };
    (0..outbound.count()).map(piece).collect()
}

#[divan::bench]
fn segmentation(bencher: Bencher) {
    let (offload, mut packet) = superpacket();
    let mut out = Vec::with_capacity(65_536 + 8192);
    bencher
        .counter(BytesCount::new(PAYLOAD_BYTES))
        .bench_local(|| {
            let outbound = Outbound::new(offload, &mut packet).expect("a superpacket");
            out.clear();
            for index in 0..outbound.count() {
                outbound.write(index, &mut out);
            }
            out.len()
        });
}

/// Packets without their transport's checksum, as from a node with offloads, or with it.
#[divan::bench(args = [true, false])]
fn coalescing(bencher: Bencher, lacks_checksum: bool) {
    let mut pieces = pieces();
    if !lacks_checksum {
        for piece in &mut pieces {
            wow_dataplane::segment::fill_checksum(piece).expect("a TCP segment");
        }
    }
    let mut coalescer = Coalescer::default();
    bencher
        .counter(BytesCount::new(PAYLOAD_BYTES))
        .bench_local(|| {
            for piece in &pieces {
                coalescer
                    .push(piece, lacks_checksum)
                    .expect("a TCP segment");
            }
            let mut count = 0;
            coalescer.take(|_, _| count += 1);
            assert_eq!(count, 1);
        });
}
