//! A LAN of guests: hostile frames, read by the port's reader and answered by the LAN's services.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use wow_control::lan::{Event, GUESTS_KEPT_MAX, LanConfig, LanService, LeaseKey};
use wow_guest::ethernet::Gateway;
use wow_guest::offload::OFFLOAD_BYTES;
use wow_guest::{EthernetGuest, Guest, GuestGone, Lan, Offload, PacketBatch, Port, WriteError};

use crate::Target;
use crate::script::{Script, Writer};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 0xff];
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 2, 0, 0, 0, 0, 1);
const FRAME_BYTES_MAX: usize = 1514;
/// What the router in the script leases at most.
const LEASES_MAX: usize = 8;

pub(super) const LAN: Target = Target {
    name: "lan",
    input_bytes_max: 4096,
    run: lan,
    seeds: || {
        let discover = dhcp(DhcpMessageType::Discover, 1, None, None);
        let request = dhcp(
            DhcpMessageType::Request,
            1,
            Some(Ipv4Addr::new(10, 128, 7, 1)),
            Some(GATEWAY),
        );
        let frame = |frame: &[u8]| {
            Writer::default()
                .byte(0)
                .slice(&[0; OFFLOAD_BYTES])
                .slice(frame)
        };
        let mut arp = vec![0; 42];
        arp[..6].fill(0xff);
        arp[6..12].copy_from_slice(&guest_mac(1));
        arp[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        arp[22..28].copy_from_slice(&guest_mac(1));
        arp[38..42].copy_from_slice(&GATEWAY.octets());
        vec![
            frame(&discover)
                .byte(0)
                .slice(&[0; OFFLOAD_BYTES])
                .slice(&request)
                .0,
            frame(&arp).0,
            solicit_v6().0,
            discover_v6().0,
            Writer::default()
                .byte(1)
                .byte(1)
                .byte(3)
                .byte(7)
                .byte(2)
                .byte(200)
                .byte(3)
                .byte(0)
                .0,
        ]
    },
};

/// Asks for a neighbour, as one that probes and as one that has its address by IPv4.
fn solicit_v6() -> Writer {
    let mut rest = GATEWAY_V6.octets().to_vec();
    rest.splice(..0, [0; 4]);
    let own = [&[1, 1], &guest_mac(1)[..]].concat();
    let link = Writer::default().byte(5).byte(1).byte(135).byte(3);
    let link = link.slice(&[&rest[..], &own].concat());
    link.byte(5).byte(1).byte(135).byte(0).slice(&rest)
}

/// Asks for an address twice, since the first time there is none yet, and takes it.
fn discover_v6() -> Writer {
    let client = [0, 1, 0, 4, 0, 3, 0, 1];
    let server = [&[0, 2, 0, 10, 0, 3, 0, 1], &OURS[..]].concat();
    let association = [&[0, 3, 0, 12][..], &[0; 12]].concat();
    let say = |writer: Writer, kind, options: &[&[u8]]| {
        let message = [&[7, 8, 9][..], &client, &options.concat()].concat();
        writer.byte(4).byte(1).byte(kind).slice(&message)
    };
    let twice = say(Writer::default(), 1, &[&association]);
    let twice = say(twice, 1, &[&association]);
    say(twice, 3, &[&association, &server])
}

/// The port: what the script has sent waits in it.
#[derive(Default)]
struct Wire(VecDeque<(Offload, Vec<u8>)>);

impl Port for Wire {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        let Some((offload, frame)) = self.0.pop_front() else {
            return Poll::Pending;
        };
        assert!(batch.push(offload, &frame), "it is empty");
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, _: Offload, header: &[u8], _: &[u8]) -> Result<(), WriteError> {
        assert_eq!(header.len(), 14);
        assert_eq!(header[6..12], OURS);
        Ok(())
    }

    fn takes_offloads(&self) -> bool {
        true
    }

    fn mac(&self) -> [u8; 6] {
        OURS
    }

    fn malformed(&self) -> u64 {
        0
    }
}

struct Bed {
    service: LanService,
    now: Duration,
    leased: BTreeMap<LeaseKey, Ipv4Addr>,
    next: u8,
}

/// Steps: a frame as it stands, a DHCP message of a guest's, a pause, the loss of a lease, or by IPv6 a message of
/// DHCP's or of neighbour discovery, whose headers and checksum are right.
fn lan(input: &[u8]) {
    let mut script = Script::new(input);
    let config = LanConfig {
        mac: OURS,
        gateway: GATEWAY,
        prefix_length: 9,
        gateway_v6: GATEWAY_V6,
        prefix_length_v6: 48,
        mtu_bytes: 1280,
        domain: Some("lab".into()),
        gives_time: true,
    };
    let mut bed = Bed {
        service: LanService::new(config, Vec::new(), Duration::ZERO),
        now: Duration::ZERO,
        leased: BTreeMap::new(),
        next: 0,
    };
    let mut guest = EthernetGuest::new(
        Wire::default(),
        Gateway {
            v4: GATEWAY,
            v6: GATEWAY_V6,
        },
    );
    while !script.is_empty() {
        match script.byte() % 6 {
            0 => {
                let header = script
                    .slice(OFFLOAD_BYTES)
                    .first_chunk()
                    .map(Offload::parse);
                let offload = header.and_then(Result::ok).unwrap_or_default();
                bed.hand_in(&mut guest, offload, script.slice(FRAME_BYTES_MAX).to_vec());
            }
            1 => {
                let kind = DhcpMessageType::from(script.byte());
                let number = script.byte();
                let wish = Ipv4Addr::new(10, 128, 7, script.byte());
                let server = [None, Some(GATEWAY), Some(wish)][usize::from(number % 3)];
                let wish = Some(wish).filter(|_| number.is_multiple_of(2));
                // smoltcp can only write what a client or a server says.
                if !matches!(kind, DhcpMessageType::Unknown(_)) {
                    let frame = dhcp(kind, number, wish, server);
                    bed.hand_in(&mut guest, Offload::default(), frame);
                }
            }
            2 => {
                bed.now += Duration::from_secs(script.byte().into());
                bed.service.handle_deadline(bed.now);
            }
            4 => {
                let (number, kind) = (script.byte(), script.byte());
                let fill = script.slice(FRAME_BYTES_MAX - 14 - 40 - 8);
                let message = [&[kind], fill].concat();
                let frame = frame_v6(number, link_local(number), UDP, &udp_v6(&message));
                bed.hand_in(&mut guest, Offload::default(), frame);
            }
            5 => {
                let (number, kind, from) = (script.byte(), script.byte(), script.byte());
                let source = match from % 4 {
                    0 => Ipv6Addr::UNSPECIFIED,
                    1 => GATEWAY_V6,
                    2 => twin(Ipv4Addr::new(10, 129, 7, from / 4)),
                    _ => link_local(number),
                };
                let fill = script.slice(FRAME_BYTES_MAX - 14 - 40 - 4);
                let message = [&[kind, 0, 0, 0], fill].concat();
                let frame = frame_v6(number, source, ICMP, &message);
                bed.hand_in(&mut guest, Offload::default(), frame);
            }
            _ => {
                let at = usize::from(script.byte()) % bed.leased.len().max(1);
                if let Some((key, address)) = bed.leased.iter().nth(at).map(|(k, a)| (*k, *a)) {
                    bed.service.lost(bed.now, key);
                    bed.service.leased(bed.now, key, address);
                }
            }
        }
        bed.drain(&mut guest);
    }
}

impl Bed {
    fn hand_in(&mut self, guest: &mut EthernetGuest<Wire>, offload: Offload, frame: Vec<u8>) {
        guest.port_mut().0.push_back((offload, frame));
        let mut batch = PacketBatch::new();
        let mut context = Context::from_waker(Waker::noop());
        // Pending: it was nothing to anybody.
        let _ = guest.poll_read(&mut context, &mut batch);
        for index in 0..batch.len() {
            let (_, packet) = batch.packet_mut(index);
            let source = wow_overlay::node::addresses_of(packet)
                .expect("an IP packet")
                .0;
            let held = self.leased.values().any(|v4| match source {
                IpAddr::V4(source) => source == *v4,
                IpAddr::V6(source) => source == twin(*v4),
            });
            assert!(held, "a packet from an address that nobody holds");
        }
        while let Some(frame) = guest.poll_local() {
            let before = self.now;
            self.service
                .handle_frame(before, &frame.bytes, frame.lacks_checksum);
            self.drain(guest);
        }
    }

    fn drain(&mut self, guest: &mut EthernetGuest<Wire>) {
        while let Some(event) = self.service.poll_event() {
            match event {
                Event::Wanted { key, preferred } if self.leased.len() < LEASES_MAX => {
                    let free = |v4: &Ipv4Addr| !self.leased.values().any(|held| held == v4);
                    let address = preferred.filter(free).unwrap_or_else(|| {
                        self.next = self.next.wrapping_add(1);
                        Ipv4Addr::new(10, 129, 7, self.next)
                    });
                    self.leased.insert(key, address);
                    self.service.leased(self.now, key, address);
                }
                Event::Wanted { key, .. } => self.service.refused(self.now, key),
                Event::Unwanted(key) => {
                    assert!(self.leased.remove(&key).is_some(), "given back once");
                }
                Event::Neighbour(mac, address) => assert!(guest.set_neighbour(mac, address)),
                Event::Changed => {}
            }
        }
        while let Some(frame) = self.service.poll_frame() {
            assert!(frame.len() <= FRAME_BYTES_MAX);
        }
        assert!(self.service.guests(self.now).len() <= GUESTS_KEPT_MAX);
        assert!(self.service.kept().len() <= GUESTS_KEPT_MAX);
    }
}

fn guest_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number & 0x0f]
}

/// The IPv6 address that goes with an IPv4 address.
fn twin(v4: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(GATEWAY_V6.to_bits() >> 32 << 32 | u128::from(v4.to_bits()))
}

fn link_local(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x100 + u16::from(number))
}

const UDP: u8 = 17;
const ICMP: u8 = 58;
/// All routers, nodes and servers alike: the services look at the message alone.
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// A message for DHCP servers behind its ports.
fn udp_v6(message: &[u8]) -> Vec<u8> {
    let length = (8 + message.len()) as u16;
    let head = [546, 547, length, 0].map(u16::to_be_bytes);
    [head.as_flattened(), message].concat()
}

/// An IPv6 frame of a guest's to a group.
fn frame_v6(number: u8, source: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let (from, to) = (source.into(), GROUP.into());
    match next {
        UDP => UdpPacket::new_unchecked(&mut payload[..]).fill_checksum(&from, &to),
        _ => Icmpv6Packet::new_unchecked(&mut payload[..]).fill_checksum(&source, &GROUP),
    }
    let length = (payload.len() as u16).to_be_bytes();
    let ip = [0x60, 0, 0, 0, length[0], length[1], next, 255];
    let ethernet = [
        &[0x33, 0x33, 0, 1, 0, 2],
        &guest_mac(number)[..],
        &[0x86, 0xdd],
    ]
    .concat();
    [
        &ethernet,
        &ip[..],
        &source.octets(),
        &GROUP.octets(),
        &payload,
    ]
    .concat()
}

/// A frame with a guest's DHCP message.
fn dhcp(
    kind: DhcpMessageType,
    number: u8,
    wish: Option<Ipv4Addr>,
    server: Option<Ipv4Addr>,
) -> Vec<u8> {
    let mac = EthernetAddress(guest_mac(number));
    let message = DhcpRepr {
        message_type: kind,
        transaction_id: 7,
        secs: 0,
        client_hardware_address: mac,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: Ipv4Addr::UNSPECIFIED,
        server_ip: Ipv4Addr::UNSPECIFIED,
        router: None,
        subnet_mask: None,
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: number & 0x10 != 0,
        requested_ip: wish,
        client_identifier: None,
        server_identifier: server,
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: None,
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let udp = UdpRepr {
        src_port: 68,
        dst_port: 67,
    };
    let ip = Ipv4Repr {
        src_addr: Ipv4Addr::UNSPECIFIED,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + message.buffer_len(),
        hop_limit: 64,
    };
    let header = EthernetRepr {
        src_addr: mac,
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; header.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &ip.src_addr.into(),
        &ip.dst_addr.into(),
        message.buffer_len(),
        |payload| {
            message
                .emit(&mut DhcpPacket::new_unchecked(payload))
                .expect("the buffer has the length that the message says");
        },
        &checksums,
    );
    bytes
}
