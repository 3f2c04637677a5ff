use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;

use super::*;
use crate::offload::Transport;

const OURS: Mac = [2, 0, 0, 0, 0, 0xff];
const ANN: Mac = [2, 0, 0, 0, 0, 1];
const BOB: Mac = [2, 0, 0, 0, 0, 2];
const BROADCAST: Mac = [0xff; 6];
const GATEWAY: Gateway = Gateway {
    v4: Ipv4Addr::new(10, 1, 0, 1),
    v6: Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, 1),
};
const ANNS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
const BOBS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 12);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 99);

/// The twin of a network card: frames wait in queues.
#[derive(Default)]
struct Wire {
    from_lan: VecDeque<(Offload, Vec<u8>)>,
    to_lan: Vec<(Offload, Vec<u8>)>,
}

struct WirePort(Rc<RefCell<Wire>>);

impl Port for WirePort {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        let mut wire = self.0.borrow_mut();
        while let Some((offload, frame)) = wire.from_lan.pop_front() {
            assert!(batch.push(offload, &frame));
        }
        match batch.is_empty() {
            true => Poll::Pending,
            false => Poll::Ready(Ok(())),
        }
    }

    fn write(&mut self, offload: Offload, header: &[u8], rest: &[u8]) -> Result<(), WriteError> {
        let frame = [header, rest].concat();
        self.0.borrow_mut().to_lan.push((offload, frame));
        Ok(())
    }

    fn takes_offloads(&self) -> bool {
        true
    }

    fn mac(&self) -> Mac {
        OURS
    }

    fn malformed(&self) -> u64 {
        0
    }
}

struct Bed {
    wire: Rc<RefCell<Wire>>,
    guest: EthernetGuest<WirePort>,
}

impl Bed {
    fn new() -> Self {
        let wire = Rc::new(RefCell::new(Wire::default()));
        let mut guest = EthernetGuest::new(WirePort(Rc::clone(&wire)), GATEWAY);
        assert!(guest.set_neighbour(ANN, Some(ANNS)));
        assert!(guest.set_neighbour(BOB, Some(BOBS)));
        Bed { wire, guest }
    }

    fn sends(&mut self, offload: Offload, frame: Vec<u8>) {
        self.wire.borrow_mut().from_lan.push_back((offload, frame));
    }

    /// The packets that come out of what was sent.
    async fn packets(&mut self) -> Vec<(Offload, Vec<u8>)> {
        let mut batch = PacketBatch::new();
        let read = poll_fn(|cx| match self.guest.poll_read(cx, &mut batch) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(result) = read.await {
            result.unwrap();
        }
        (0..batch.len())
            .map(|index| {
                let (offload, packet) = batch.packet_mut(index);
                (offload, packet.to_vec())
            })
            .collect()
    }
}

fn packet(source: Ipv4Addr, destination: Ipv4Addr, payload: usize) -> Vec<u8> {
    let mut packet = vec![0xab; 20 + payload];
    packet[..20].fill(0);
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(20 + payload as u16).to_be_bytes());
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&destination.octets());
    packet
}

fn dhcp(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut packet = packet(source, destination, 300);
    packet[9] = 17;
    packet[20..24].copy_from_slice(&[0, 68, 0, 67]);
    packet
}

fn frame(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

#[tokio::test]
async fn packets_lose_their_headers_and_padding_on_the_way_in_and_get_headers_on_the_way_out() {
    let mut bed = Bed::new();
    let inner = packet(ANNS, FAR, 4);
    let mut padded = frame(OURS, ANN, 0x0800, &inner);
    padded.resize(60, 0);
    bed.sends(Offload::default(), padded);
    assert_eq!(bed.packets().await, [(Offload::default(), inner)]);

    let back = packet(FAR, BOBS, 9);
    bed.guest.write(Offload::default(), &back).unwrap();
    let expected = frame(BOB, OURS, 0x0800, &back);
    assert_eq!(bed.wire.borrow().to_lan, [(Offload::default(), expected)]);
    let nobody = bed.guest.write(Offload::default(), &packet(ANNS, FAR, 9));
    assert!(matches!(nobody, Err(WriteError::NoNeighbour)));
}

#[tokio::test]
async fn descriptions_count_from_the_packet_inside_and_from_the_frame_outside() {
    let described = |more: u16| Offload {
        checksum: Some(ChecksumAt {
            start: 20 + more,
            offset: 16,
        }),
        segments: Some(Segments {
            transport: Transport::TcpV4,
            header_bytes: 40 + more,
            payload_bytes: 1000,
        }),
    };
    let mut bed = Bed::new();
    let inner = packet(ANNS, FAR, 5000);
    bed.sends(described(14), frame(OURS, ANN, 0x0800, &inner));
    assert_eq!(bed.packets().await, [(described(0), inner)]);

    let back = packet(FAR, ANNS, 5000);
    bed.guest.write(described(0), &back).unwrap();
    let expected = frame(ANN, OURS, 0x0800, &back);
    assert_eq!(bed.wire.borrow().to_lan, [(described(14), expected)]);

    // A checksum within the Ethernet header is none of a packet.
    let mut wrong = described(14);
    wrong.checksum = Some(ChecksumAt {
        start: 13,
        offset: 0,
    });
    bed.sends(wrong, frame(OURS, ANN, 0x0800, &packet(ANNS, FAR, 5000)));
    assert!(bed.packets().await.is_empty());
    assert_eq!(bed.guest.counters().malformed, 1);
}

#[tokio::test]
async fn a_guest_that_takes_anothers_address_is_dropped_counted_and_named() {
    let mut bed = Bed::new();
    for (sender, source) in [(ANN, BOBS), (ANN, FAR), ([2, 9, 9, 9, 9, 9], ANNS)] {
        let inner = packet(source, FAR, 9);
        bed.sends(Offload::default(), frame(OURS, sender, 0x0800, &inner));
        assert!(bed.packets().await.is_empty());
        let spoofed = Spoofed {
            mac: sender,
            source: source.into(),
        };
        assert_eq!(bed.guest.take_spoofed(), Some(spoofed));
    }
    assert_eq!(bed.guest.counters().spoofed, 3);
    assert_eq!(bed.guest.take_spoofed(), None);
}

#[tokio::test]
async fn arp_and_dhcp_wait_for_the_services_within_a_bound() {
    let mut bed = Bed::new();
    let unicast = frame(OURS, ANN, 0x0800, &dhcp(ANNS, GATEWAY.v4));
    let local = [
        frame(BROADCAST, ANN, 0x0806, &[0; 28]),
        frame(
            BROADCAST,
            ANN,
            0x0800,
            &dhcp(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST),
        ),
        unicast.clone(),
    ];
    for frame in &local {
        bed.sends(Offload::default(), frame.clone());
    }
    assert!(bed.packets().await.is_empty());
    for frame in local {
        let next = bed.guest.poll_local().unwrap();
        assert_eq!((next.bytes, next.lacks_checksum), (frame, false));
    }
    assert_eq!(bed.guest.poll_local(), None);

    let partial = Offload {
        checksum: Some(ChecksumAt {
            start: 34,
            offset: 6,
        }),
        segments: None,
    };
    bed.sends(partial, unicast);
    assert!(bed.packets().await.is_empty());
    assert!(bed.guest.poll_local().unwrap().lacks_checksum);

    for _ in 0..=LOCAL_FRAMES_MAX {
        bed.sends(Offload::default(), frame(BROADCAST, ANN, 0x0806, &[0; 28]));
        bed.packets().await;
    }
    assert_eq!(bed.guest.counters().local_full, 1);
    assert_eq!(bed.guest.local.len(), LOCAL_FRAMES_MAX);
    // DHCP for a server elsewhere is traffic.
    bed.sends(
        Offload::default(),
        frame(OURS, ANN, 0x0800, &dhcp(ANNS, FAR)),
    );
    assert_eq!(bed.packets().await.len(), 1);
}

#[tokio::test]
async fn a_lans_chatter_and_lies_stay_on_the_lan() {
    let mut bed = Bed::new();
    let whole = packet(ANNS, FAR, 9);
    let chatter = [
        frame(BROADCAST, ANN, 0x0800, &whole),
        frame([1, 0, 0x5e, 0, 0, 1], ANN, 0x86dd, &[0x60; 60]),
        frame(BOB, ANN, 0x0800, &whole),
        frame(OURS, ANN, 0x8100, &whole),
        frame(
            OURS,
            ANN,
            0x0800,
            &packet(ANNS, Ipv4Addr::new(224, 0, 0, 251), 9),
        ),
    ];
    let count = chatter.len() as u64;
    for frame in chatter {
        bed.sends(Offload::default(), frame);
    }
    assert!(bed.packets().await.is_empty());
    assert_eq!(bed.guest.counters().chatter, count);

    let mut long = whole.clone();
    long[3] = 30;
    let mut short = whole.clone();
    short[3] = 19;
    let mut headless = whole.clone();
    headless[0] = 0x44;
    let lies = [
        Vec::new(),
        vec![0; 13],
        frame(OURS, ANN, 0x0800, &whole[..19]),
        frame(OURS, ANN, 0x0800, &long),
        frame(OURS, ANN, 0x0800, &short),
        frame(OURS, ANN, 0x0800, &headless),
        frame(OURS, [3, 0, 0, 0, 0, 1], 0x0800, &whole),
        frame(OURS, OURS, 0x0800, &whole),
    ];
    let count = lies.len() as u64;
    for frame in lies {
        bed.sends(Offload::default(), frame);
    }
    assert!(bed.packets().await.is_empty());
    assert_eq!(bed.guest.counters().malformed, count);
}

/// The IPv6 address that goes with an IPv4 address.
fn twin(v4: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(GATEWAY.v6.to_bits() >> 32 << 32 | u128::from(v4.to_bits()))
}

fn packet_v6(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    packet[6] = next;
    packet[8..24].copy_from_slice(&source.octets());
    packet[24..40].copy_from_slice(&destination.octets());
    packet.extend(payload);
    packet
}

#[tokio::test]
async fn by_ipv6_a_guest_has_the_address_that_goes_with_its_own_and_no_other() {
    let mut bed = Bed::new();
    let far: Ipv6Addr = "fd00:1:2:3456:789a::1".parse().unwrap();
    let inner = packet_v6(twin(ANNS), far, 6, &[1; 30]);
    let mut padded = frame(OURS, ANN, 0x86dd, &inner);
    padded.resize(100, 0);
    bed.sends(Offload::default(), padded);
    assert_eq!(bed.packets().await, [(Offload::default(), inner)]);
    let back = packet_v6(far, twin(BOBS), 6, &[2; 30]);
    bed.guest.write(Offload::default(), &back).unwrap();
    let expected = frame(BOB, OURS, 0x86dd, &back);
    assert_eq!(bed.wire.borrow().to_lan, [(Offload::default(), expected)]);
    let nobody = bed
        .guest
        .write(Offload::default(), &packet_v6(far, far, 6, &[]));
    assert!(matches!(nobody, Err(WriteError::NoNeighbour)));

    let hairpin = packet_v6(twin(ANNS), twin(BOBS), 6, &[3; 30]);
    bed.sends(Offload::default(), frame(OURS, ANN, 0x86dd, &hairpin));
    assert!(bed.packets().await.is_empty());
    let passed = bed.wire.borrow_mut().to_lan.pop().unwrap();
    assert_eq!(passed.1, frame(BOB, OURS, 0x86dd, &hairpin));

    for source in [twin(BOBS), far, "2001:db8::1".parse().unwrap(), GATEWAY.v6] {
        let inner = packet_v6(source, far, 6, &[1; 30]);
        bed.sends(Offload::default(), frame(OURS, ANN, 0x86dd, &inner));
        assert!(bed.packets().await.is_empty());
        let spoofed = Spoofed {
            mac: ANN,
            source: source.into(),
        };
        assert_eq!(bed.guest.take_spoofed(), Some(spoofed));
    }
}

#[tokio::test]
async fn neighbour_discovery_and_dhcp_wait_for_the_services_and_other_groups_are_chatter() {
    let mut bed = Bed::new();
    let local: Ipv6Addr = "fe80::1".parse().unwrap();
    let solicited: Ipv6Addr = "ff02::1:ff00:63".parse().unwrap();
    let group = [0x33, 0x33, 0xff, 0, 0, 0x63];
    let dhcp = [2, 34, 2, 35, 0, 8, 0, 0];
    let to_services = [
        frame(
            group,
            ANN,
            0x86dd,
            &packet_v6(local, solicited, 58, &[135; 24]),
        ),
        frame(
            OURS,
            ANN,
            0x86dd,
            &packet_v6(twin(ANNS), local, 58, &[136; 24]),
        ),
        frame(
            group,
            ANN,
            0x86dd,
            &packet_v6(local, solicited, 58, &[133; 8]),
        ),
        frame(group, ANN, 0x86dd, &packet_v6(local, solicited, 17, &dhcp)),
    ];
    for frame in &to_services {
        bed.sends(Offload::default(), frame.clone());
    }
    assert!(bed.packets().await.is_empty());
    for frame in to_services {
        assert_eq!(bed.guest.poll_local().unwrap().bytes, frame);
    }
    let far: Ipv6Addr = "fd00:1:2:3456::1".parse().unwrap();
    let chatter = [
        frame(
            group,
            ANN,
            0x86dd,
            &packet_v6(local, solicited, 58, &[134; 24]),
        ),
        frame(
            group,
            ANN,
            0x86dd,
            &packet_v6(local, solicited, 17, &[1; 9]),
        ),
        frame(group, ANN, 0x86dd, &packet_v6(twin(ANNS), far, 6, &[1; 20])),
        frame(OURS, ANN, 0x86dd, &packet_v6(local, far, 6, &[1; 20])),
        frame(group, ANN, 0x0800, &packet(ANNS, FAR, 9)),
    ];
    for frame in chatter {
        bed.sends(Offload::default(), frame);
    }
    assert!(bed.packets().await.is_empty());
    assert_eq!(bed.guest.counters().chatter, 5);
    let mut long = packet_v6(twin(ANNS), far, 6, &[1; 20]);
    long[5] = 21;
    for lie in [&long[..], &long[..39], &packet(ANNS, FAR, 40)] {
        bed.sends(Offload::default(), frame(OURS, ANN, 0x86dd, lie));
    }
    assert!(bed.packets().await.is_empty());
    assert_eq!(bed.guest.counters().malformed, 3);
    assert_eq!(bed.guest.poll_local(), None);
}

#[tokio::test]
async fn what_one_guest_sends_another_by_way_of_us_goes_back_to_the_lan() {
    let mut bed = Bed::new();
    let inner = packet(ANNS, BOBS, 9);
    bed.sends(Offload::default(), frame(OURS, ANN, 0x0800, &inner));
    assert!(bed.packets().await.is_empty());
    let expected = frame(BOB, OURS, 0x0800, &inner);
    assert_eq!(bed.wire.borrow().to_lan, [(Offload::default(), expected)]);
    assert_eq!(bed.guest.counters().hairpin, 1);
}
