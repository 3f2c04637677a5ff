//! ARP: for guests every address of the pool is at the gateway's hardware address, except those of guests
//! on the same LAN.

use std::time::Duration;

use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr,
};

use super::table::Table;
use super::{LanConfig, Mac, Out};

/// How often the gateway's address is defended (RFC 5227, section 2.4).
const DEFEND: Duration = Duration::from_secs(10);

/// Takes an ARP packet.
pub fn handle(
    config: &LanConfig,
    table: &Table,
    now: Duration,
    sender: Mac,
    payload: &[u8],
    out: &mut Out,
) {
    let parsed = ArpPacket::new_checked(payload).and_then(|packet| ArpRepr::parse(&packet));
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr: source,
        target_protocol_addr: target,
        ..
    }) = parsed
    else {
        out.counters.malformed += 1;
        return;
    };
    if source_hardware_addr != EthernetAddress(sender) {
        out.counters.malformed += 1;
        return;
    }
    // Who asks without an address wants to know whether it may take the one that it asks for.
    let is_probe = source.is_unspecified();
    if source == config.gateway {
        out.spoof(now, sender, source.into());
        if out
            .defended
            .is_none_or(|last| now.saturating_sub(last) >= DEFEND)
        {
            out.defended = Some(now);
            out.frame(announcement(config));
        }
        return;
    }
    if !is_probe && table.holder_of(source) != Some(sender) {
        if config.is_member(source) {
            out.spoof(now, sender, source.into());
        }
        return;
    }
    let is_ours = target == config.gateway;
    let is_elsewhere = config.is_member(target) && table.holder_of(target).is_none();
    if operation == ArpOperation::Request && (is_ours || is_elsewhere) {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(config.mac),
            source_protocol_addr: target,
            target_hardware_addr: source_hardware_addr,
            target_protocol_addr: source,
        };
        out.frame(frame(config.mac, source_hardware_addr, &reply));
    }
}

/// Says to everybody which hardware address the gateway has.
pub fn announcement(config: &LanConfig) -> Vec<u8> {
    let own = EthernetAddress(config.mac);
    let repr = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: own,
        source_protocol_addr: config.gateway,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: config.gateway,
    };
    frame(config.mac, EthernetAddress::BROADCAST, &repr)
}

fn frame(from: Mac, to: EthernetAddress, repr: &ArpRepr) -> Vec<u8> {
    let header = EthernetRepr {
        src_addr: EthernetAddress(from),
        dst_addr: to,
        ethertype: EthernetProtocol::Arp,
    };
    let mut bytes = vec![0; header.buffer_len() + repr.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    header.emit(&mut frame);
    repr.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
    bytes
}
