//! An entrance for fuzzers: a client among servers that answer anything.

use std::net::Ipv4Addr;

use smoltcp::wire::{Ipv4Repr, UdpRepr};

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
/// Fixed part of a BOOTP message, and the cookie after it.
const BOOTP_BYTES: usize = 236;
const COOKIE: [u8; 4] = [0x63, 0x82, 0x53, 0x63];

/// Plays `script`: steps of an operation, a length, and so many bytes. Operations are by their
/// remainder by three a frame as it stands; the address and options of an answer to the client's
/// last message; or a pause of that many tenths of a second.
pub fn dhcp(script: &[u8]) {
    let mut now = Duration::ZERO;
    let mut client = Client::new(MAC, 1, now);
    client.handle_deadline(now);
    drain(&mut client);
    let mut rest = script;
    while let Some((&[operation, length], tail)) = rest.split_first_chunk::<2>() {
        if operation % 3 == 2 {
            now += Duration::from_millis(100 * u64::from(length));
            client.handle_deadline(now);
            rest = tail;
        } else {
            let (body, tail) = tail.split_at(usize::from(length).min(tail.len()));
            match operation % 3 {
                0 => client.handle_frame(now, body),
                _ => client.handle_frame(now, &answer(client.transaction, body)),
            }
            rest = tail;
        }
        drain(&mut client);
        assert!(client.next_deadline(now) >= now);
    }
}

fn drain(client: &mut Client) {
    assert!(client.wire.sent.len() <= QUEUE && client.events.len() <= QUEUE);
    while client.poll_transmit().is_some() {}
    while let Some(event) = client.poll_event() {
        if let Event::Acquired(lease) | Event::Renewed(lease) = event {
            assert!((8..=32).contains(&lease.prefix) && lease.dns.len() <= 3);
        }
    }
}

/// A frame to the client: an address in four bytes, then options.
fn answer(transaction: Option<u32>, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0; BOOTP_BYTES];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[4..8].copy_from_slice(&transaction.unwrap_or(0).to_be_bytes());
    let (address, options) = body.split_at(body.len().min(4));
    message[16..16 + address.len()].copy_from_slice(address);
    message[28..34].copy_from_slice(&MAC);
    message.extend(COOKIE);
    message.extend(options);
    message.push(255);
    let udp = UdpRepr {
        src_port: DHCP_SERVER_PORT,
        dst_port: DHCP_CLIENT_PORT,
    };
    let ip = Ipv4Repr {
        src_addr: SERVER,
        dst_addr: Ipv4Addr::BROADCAST,
        next_header: IpProtocol::Udp,
        payload_len: 8 + message.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 14 + 20 + 8 + message.len()];
    let mut ethernet = EthernetFrame::new_unchecked(&mut frame);
    ethernet.set_dst_addr(EthernetAddress(MAC));
    ethernet.set_src_addr(EthernetAddress([2, 0, 0, 0, 0, 9]));
    ethernet.set_ethertype(EthernetProtocol::Ipv4);
    let checksums = ChecksumCapabilities::default();
    let mut packet = Ipv4Packet::new_unchecked(ethernet.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    udp.emit(
        &mut datagram,
        &SERVER.into(),
        &Ipv4Addr::BROADCAST.into(),
        message.len(),
        |payload| payload.copy_from_slice(&message),
        &checksums,
    );
    frame
}
