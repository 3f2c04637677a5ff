//! What a guest is told of a packet that is longer than its way: "fragmentation needed" (RFC 1191) or "packet
//! too big" (RFC 4443), as a router between it and the destination would say.

use std::net::{Ipv4Addr, Ipv6Addr};

const V4_HEADER_BYTES: usize = 20;
const V6_HEADER_BYTES: usize = 40;
const ICMP_HEADER_BYTES: usize = 8;
/// An answer's longest: what every host takes.
const V4_BYTES_MAX: usize = 576;
/// What IPv6 requires of every link: no host takes less for an answer, so none is told less.
pub(super) const V6_MTU_MIN: usize = 1280;
const HOP_LIMIT: u8 = 64;
const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;
const DO_NOT_FRAGMENT: u8 = 0x40;

/// The answer to a packet on whose way `mtu` bytes pass, from one of two addresses. None where there is to
/// be none: the packet is not too long, its sender leaves it to others to fragment it, or it is an answer
/// itself.
pub(super) fn answer(packet: &[u8], mtu: usize, from: (Ipv4Addr, Ipv6Addr)) -> Option<Vec<u8>> {
    match packet.first()? >> 4 {
        4 => answer_v4(packet, mtu, from.0),
        6 => answer_v6(packet, mtu.max(V6_MTU_MIN), from.1),
        _ => None,
    }
}

fn answer_v4(packet: &[u8], mtu: usize, from: Ipv4Addr) -> Option<Vec<u8>> {
    let header: &[u8; V4_HEADER_BYTES] = packet.first_chunk()?;
    let content = usize::from(header[0] & 0xf) * 4;
    let is_later_fragment = header[6] & 0x1f != 0 || header[7] != 0;
    // Destination unreachable, source quench, redirect, time exceeded, parameter problem.
    let is_error =
        header[9] == ICMP && matches!(packet.get(content), None | Some(3 | 4 | 5 | 11 | 12));
    let may_fragment = header[6] & DO_NOT_FRAGMENT == 0;
    if packet.len() <= mtu || may_fragment || is_later_fragment || is_error {
        return None;
    }
    let quoted = &packet[..packet
        .len()
        .min(V4_BYTES_MAX - V4_HEADER_BYTES - ICMP_HEADER_BYTES)];
    let [high, low] = u16::try_from(mtu).ok()?.to_be_bytes();
    let mut message = vec![3, 4, 0, 0, 0, 0, high, low];
    message.extend_from_slice(quoted);
    let sum = checksum(&[&message]);
    message[2..4].copy_from_slice(&sum);

    let mut answer = vec![0; V4_HEADER_BYTES];
    answer[0] = 0x45;
    let length = (V4_HEADER_BYTES + message.len()) as u16;
    answer[2..4].copy_from_slice(&length.to_be_bytes());
    answer[8] = HOP_LIMIT;
    answer[9] = ICMP;
    answer[12..16].copy_from_slice(&from.octets());
    answer[16..20].copy_from_slice(&header[12..16]);
    let sum = checksum(&[&answer]);
    answer[10..12].copy_from_slice(&sum);
    answer.extend_from_slice(&message);
    Some(answer)
}

fn answer_v6(packet: &[u8], mtu: usize, from: Ipv6Addr) -> Option<Vec<u8>> {
    let header: &[u8; V6_HEADER_BYTES] = packet.first_chunk()?;
    let is_error =
        header[6] == ICMP_V6 && packet.get(V6_HEADER_BYTES).is_none_or(|kind| *kind < 128);
    if packet.len() <= mtu || is_error {
        return None;
    }
    let quoted = &packet[..packet
        .len()
        .min(V6_MTU_MIN - V6_HEADER_BYTES - ICMP_HEADER_BYTES)];
    let mut message = vec![2, 0, 0, 0];
    message.extend_from_slice(&u32::try_from(mtu).ok()?.to_be_bytes());
    message.extend_from_slice(quoted);
    let to = &header[8..24];
    let length = message.len() as u16;
    let pseudo = [0, 0, 0, ICMP_V6];
    let sum = checksum(&[&from.octets(), to, &length.to_be_bytes(), &pseudo, &message]);
    message[2..4].copy_from_slice(&sum);

    let mut answer = vec![0x60, 0, 0, 0];
    answer.extend_from_slice(&length.to_be_bytes());
    answer.extend_from_slice(&[ICMP_V6, HOP_LIMIT]);
    answer.extend_from_slice(&from.octets());
    answer.extend_from_slice(to);
    answer.extend_from_slice(&message);
    Some(answer)
}

/// The Internet checksum (RFC 1071) over parts of which only the last may have an odd length.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let word = |word: &[u8]| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low));
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM: (Ipv4Addr, Ipv6Addr) = (
        Ipv4Addr::new(10, 128, 0, 1),
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    );

    fn v4(length: usize, flags: u8, protocol: u8) -> Vec<u8> {
        let mut packet = vec![7; length];
        packet[0] = 0x45;
        packet[6..8].copy_from_slice(&[flags, 0]);
        packet[9] = protocol;
        packet[12..16].copy_from_slice(&[10, 128, 3, 4]);
        packet[20] = 8;
        packet
    }

    fn v6(length: usize, protocol: u8, kind: u8) -> Vec<u8> {
        let mut packet = vec![7; length];
        packet[0] = 0x60;
        packet[6] = protocol;
        packet[40] = kind;
        packet
    }

    #[test]
    fn an_answer_names_the_mtu_and_quotes_the_packet_with_right_checksums() {
        let packet = v4(1400, DO_NOT_FRAGMENT, 6);
        let told = answer(&packet, 1219, FROM).unwrap();
        assert_eq!(told.len(), V4_BYTES_MAX);
        assert_eq!(told[12..20], [10, 128, 0, 1, 10, 128, 3, 4]);
        assert_eq!(told[20..22], [3, 4]);
        assert_eq!(told[26..28], 1219u16.to_be_bytes());
        assert_eq!(told[28..], packet[..548]);
        assert_eq!(checksum(&[&told[..20]]), [0, 0]);
        assert_eq!(checksum(&[&told[20..]]), [0, 0]);

        let packet = v6(1400, 6, 1);
        let told = answer(&packet, 1219, FROM).unwrap();
        assert_eq!(told.len(), V6_MTU_MIN);
        assert_eq!(told[24..40], packet[8..24]);
        assert_eq!(told[40..42], [2, 0]);
        assert_eq!(told[44..48], 1280u32.to_be_bytes());
        assert_eq!(told[48..], packet[..1232]);
        let length = (told.len() as u16 - 40).to_be_bytes();
        let pseudo: [&[u8]; 4] = [&told[8..40], &length, &[0, 0, 0, 58], &told[40..]];
        assert_eq!(checksum(&pseudo), [0, 0]);
    }

    #[test]
    fn what_fits_or_may_be_fragmented_and_errors_are_not_answered() {
        assert_eq!(answer(&v4(1219, DO_NOT_FRAGMENT, 6), 1219, FROM), None);
        assert_eq!(answer(&v4(1400, 0, 6), 1219, FROM), None);
        assert_eq!(answer(&v6(1280, 6, 1), 1219, FROM), None);
        assert_eq!(answer(&v6(1400, ICMP_V6, 2), 1219, FROM), None);
        assert!(answer(&v6(1400, ICMP_V6, 128), 1219, FROM).is_some());
        assert!(answer(&v4(1400, DO_NOT_FRAGMENT, ICMP), 1219, FROM).is_some());
        let mut error = v4(1400, DO_NOT_FRAGMENT, ICMP);
        error[20] = 3;
        assert_eq!(answer(&error, 1219, FROM), None);
        let mut fragment = v4(1400, DO_NOT_FRAGMENT, 17);
        fragment[7] = 1;
        assert_eq!(answer(&fragment, 1219, FROM), None);
    }

    proptest! {
        #[test]
        fn arbitrary_packets_never_panic(packet: Vec<u8>, mtu in 0usize..100_000) {
            let _ = answer(&packet, mtu, FROM);
        }
    }
}
