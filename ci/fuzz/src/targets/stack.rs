//! The stack at the control address, and packets to it from the guest beside it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr};
use wow_control::{Control, ControlConfig, Names};

pub(super) const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 200, 3, 4);
pub(super) const MTU_BYTES: u16 = 1280;
const HEADER_BYTES: usize = 20;

/// The stack; whether it has name servers to forward to.
pub(super) fn control(forwards: bool) -> Control {
    let config = ControlConfig {
        v4: CONTROL,
        v6: Ipv6Addr::LOCALHOST,
        mtu_bytes: MTU_BYTES,
        seed: 7,
        names: Names {
            suffix: "lab.internal".into(),
            v4: (CONTROL, 9),
            v6: (Ipv6Addr::LOCALHOST, 48),
            forwards,
        },
    };
    Control::new(config, Duration::ZERO)
}

/// A packet of the guest's.
pub(super) fn packet(kind: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: GUEST,
        dst_addr: CONTROL,
        next_header: kind,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; HEADER_BYTES];
    let checksums = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &checksums);
    bytes.extend_from_slice(payload);
    bytes
}
