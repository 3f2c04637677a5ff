//! A router's advertisement (RFC 4861, section 4.2), with the DNS server and the pool's suffix (RFC 8106).

use std::net::Ipv6Addr;

use smoltcp::wire::{Icmpv6Packet, IpProtocol};

use super::super::LanConfig;
use super::super::frame6::{self, To, link_local};

/// How long what is said holds: some of these may get lost.
const LIFETIME_S: u32 = 1800;

const ADVERTISEMENT: u8 = 134;
const HOP_LIMIT: u8 = 64;
/// Addresses, and all else, are had by DHCP.
const MANAGED_AND_OTHER: u8 = 0xc0;
/// Whoever has an address of this prefix is asked for on this very link; and nobody makes up an address of it.
const ON_LINK: u8 = 0x80;

const OPTION_HARDWARE_ADDRESS: u8 = 1;
const OPTION_PREFIX: u8 = 3;
const OPTION_MTU: u8 = 5;
const OPTION_DNS: u8 = 25;
const OPTION_SUFFIX: u8 = 31;

/// The frame, to one guest or everybody.
pub fn frame(config: &LanConfig, to: To) -> Vec<u8> {
    let message = message(config);
    let source = link_local(config.mac);
    let fill = |payload: &mut [u8]| {
        payload.copy_from_slice(&message);
        Icmpv6Packet::new_unchecked(payload).fill_checksum(&source, &to.1);
    };
    frame6::frame(
        (config.mac, source),
        to,
        IpProtocol::Icmpv6,
        message.len(),
        fill,
    )
}

fn message(config: &LanConfig) -> Vec<u8> {
    let lifetime = LIFETIME_S.to_be_bytes();
    // The router's lifetime of zero: it is no default router. The two times are left to the hosts.
    let mut message = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, MANAGED_AND_OTHER, 0, 0];
    message.extend([0; 8]);
    option(&mut message, OPTION_HARDWARE_ADDRESS, &[&config.mac]);
    let mtu = u32::from(config.mtu_bytes).to_be_bytes();
    option(&mut message, OPTION_MTU, &[&[0; 2], &mtu]);
    let prefix = prefix(config).octets();
    let about = [config.prefix_length_v6, ON_LINK];
    let parts: [&[u8]; 5] = [&about, &lifetime, &lifetime, &[0; 4], &prefix];
    option(&mut message, OPTION_PREFIX, &parts);
    let server = config.gateway_v6.octets();
    option(&mut message, OPTION_DNS, &[&[0; 2], &lifetime, &server]);
    if let Some(domain) = &config.domain {
        let labels = config.domain_labels(domain);
        option(&mut message, OPTION_SUFFIX, &[&[0; 2], &lifetime, &labels]);
    }
    message
}

/// Appends an option, whose length is told in units of eight bytes.
fn option(message: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length = 2 + parts.iter().map(|part| part.len()).sum::<usize>();
    let units = length.div_ceil(8);
    let end = message.len() + units * 8;
    message.extend([kind, u8::try_from(units).unwrap_or(u8::MAX)]);
    message.extend(parts.iter().copied().flatten());
    message.resize(end, 0);
}

fn prefix(config: &LanConfig) -> Ipv6Addr {
    let host_bits = u32::from(128 - config.prefix_length_v6.min(128));
    let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
    Ipv6Addr::from_bits(config.gateway_v6.to_bits() & mask)
}
