//! IPv6 neighbour discovery (RFC 4861): for guests every address of the pool is at the gateway's hardware address,
//! except those of guests on the same LAN; and routers' advertisements, which say so, name the DNS server, and lead to
//! DHCP for an address. Nobody is told of a way out of the pool, since there is none.

mod advertisement;

use std::net::Ipv6Addr;
use std::time::Duration;

use smoltcp::phy::{Checksum, ChecksumCapabilities};
use smoltcp::wire::{
    Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr,
    RawHardwareAddress,
};

use super::frame6::{ALL_NODES, To, frame, group_mac, link_local};
use super::table::Table;
use super::{LanConfig, Mac, Out};

/// How often the gateway's addresses are defended, as with ARP.
const DEFEND: Duration = Duration::from_secs(10);
/// How often advertisements go to everybody; the first few sooner (RFC 4861, sections 6.2.1 and 10).
pub const ADVERTISE: Duration = Duration::from_secs(200);
const ADVERTISE_FIRST: Duration = Duration::from_secs(16);
const FIRST: u8 = 3;
/// Between two of them at least, whoever asks.
const ADVERTISE_LEAST: Duration = Duration::from_secs(3);
const HOPS: u8 = 255;

/// See the module.
pub struct Discovery {
    /// When everybody is told next.
    due: Duration,
    /// Of the first, those that are still to come.
    first: u8,
    told: Option<Duration>,
    defended: Option<Duration>,
}

/// A message of a guest's, as far as it matters.
enum Message {
    RouterSolicit,
    Solicit {
        target: Ipv6Addr,
        own: Option<RawHardwareAddress>,
    },
    Advert {
        target: Ipv6Addr,
    },
}

impl Discovery {
    pub fn new(now: Duration) -> Self {
        Discovery {
            due: now + ADVERTISE_FIRST,
            first: FIRST,
            told: None,
            defended: None,
        }
    }

    /// Tells everybody who and where the gateway is: after the port came up.
    pub fn announce(&mut self, config: &LanConfig, out: &mut Out) {
        out.frame(claim(config, config.gateway_v6));
        self.told = None;
        out.frame(advertisement::frame(config, everybody()));
    }

    /// Takes an IPv6 packet with a message of neighbour discovery.
    #[expect(clippy::too_many_arguments, reason = "what is known of a frame")]
    pub fn handle(
        &mut self,
        config: &LanConfig,
        table: &Table,
        now: Duration,
        sender: Mac,
        packet: &[u8],
        lacks_checksum: bool,
        out: &mut Out,
    ) {
        let Some((source, message)) = parse(packet, lacks_checksum) else {
            out.counters.malformed += 1;
            return;
        };
        // Who claims an address says so by sending from it, or by advertising it.
        let claimed = match message {
            Message::Advert { target } => target,
            _ => source,
        };
        let holds = |v6| {
            let held = config.v4_of(v6).and_then(|v4| table.holder_of(v4));
            held == Some(sender)
        };
        if config.is_own_v6(claimed) {
            out.spoof(now, sender, claimed.into());
            let defended = self.defended;
            if defended.is_none_or(|last| now.saturating_sub(last) >= DEFEND) {
                self.defended = Some(now);
                out.frame(claim(config, claimed));
            }
            return;
        }
        let is_nobodys = claimed.is_unspecified() || claimed.is_unicast_link_local();
        if !is_nobodys && !holds(claimed) {
            if config.is_pool_v6(claimed) {
                out.spoof(now, sender, claimed.into());
            }
            return;
        }
        match message {
            Message::RouterSolicit if source.is_unspecified() => self.advertise(config, now, out),
            Message::RouterSolicit => out.frame(advertisement::frame(config, (sender, source))),
            Message::Solicit { target, own } => {
                let told = own.is_none_or(|own| own.as_bytes() == sender);
                if !told {
                    out.counters.malformed += 1;
                } else if is_elsewhere(config, table, sender, target) {
                    let to = match source.is_unspecified() {
                        true => everybody(),
                        false => (sender, source),
                    };
                    out.frame(advert(config, target, to));
                }
            }
            Message::Advert { .. } => {}
        }
    }

    /// Tells everybody, unless that was only just done.
    fn advertise(&mut self, config: &LanConfig, now: Duration, out: &mut Out) {
        if self
            .told
            .is_none_or(|told| now.saturating_sub(told) >= ADVERTISE_LEAST)
        {
            self.told = Some(now);
            out.frame(advertisement::frame(config, everybody()));
        }
    }

    /// When [`Self::handle_deadline`] is due.
    pub fn next_deadline(&self) -> Duration {
        self.due
    }

    pub fn handle_deadline(&mut self, config: &LanConfig, now: Duration, out: &mut Out) {
        if now < self.due {
            return;
        }
        self.first = self.first.saturating_sub(1);
        self.due = now
            + match self.first {
                0 => ADVERTISE,
                _ => ADVERTISE_FIRST,
            };
        self.advertise(config, now, out);
    }
}

/// Whether an address is found at the gateway: its own, and those of members that are not on this LAN. Who wants to know
/// whether its own is free must not find it taken.
fn is_elsewhere(config: &LanConfig, table: &Table, sender: Mac, target: Ipv6Addr) -> bool {
    if config.is_own_v6(target) {
        return true;
    }
    match config.v4_of(target) {
        Some(v4) => {
            let had = table.get(sender).and_then(|guest| guest.last);
            table.holder_of(v4).is_none() && had != Some(v4)
        }
        // The addresses that nodes have by their ids.
        None => config.is_pool_v6(target) && !config.is_twin(target),
    }
}

fn everybody() -> To {
    (group_mac(ALL_NODES), ALL_NODES)
}

fn parse(packet: &[u8], lacks_checksum: bool) -> Option<(Ipv6Addr, Message)> {
    let mut checksums = ChecksumCapabilities::default();
    if lacks_checksum {
        checksums.icmpv6 = Checksum::None;
    }
    let packet = Ipv6Packet::new_checked(packet).ok()?;
    let ip = Ipv6Repr::parse(&packet).ok()?;
    if ip.next_header != IpProtocol::Icmpv6 || ip.hop_limit != HOPS {
        return None;
    }
    let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
    if icmp.msg_code() != 0 {
        return None;
    }
    let parsed = Icmpv6Repr::parse(&ip.src_addr, &ip.dst_addr, &icmp, &checksums).ok()?;
    let Icmpv6Repr::Ndisc(message) = parsed else {
        return None;
    };
    let source = ip.src_addr;
    let message = match message {
        NdiscRepr::RouterSolicit { .. } => Message::RouterSolicit,
        NdiscRepr::NeighborSolicit {
            target_addr: target,
            lladdr: own,
        } => Message::Solicit { target, own },
        NdiscRepr::NeighborAdvert { target_addr, .. } => Message::Advert {
            target: target_addr,
        },
        _ => return None,
    };
    // Whom is answered by a group's address was asked by nobody (RFC 4861, sections 7.1.1 and 7.1.2).
    let is_right = match message {
        Message::RouterSolicit => !source.is_multicast(),
        Message::Solicit { target, own } => {
            let is_probe = source.is_unspecified();
            !source.is_multicast()
                && !target.is_multicast()
                && !(is_probe && (own.is_some() || !ip.dst_addr.is_multicast()))
        }
        Message::Advert { target } => {
            !source.is_multicast() && !source.is_unspecified() && !target.is_multicast()
        }
    };
    is_right.then_some((source, message))
}

/// Says that an address is at the gateway's hardware address. For addresses that are others' it overrides nothing
/// (RFC 4861, section 7.2.8).
fn advert(config: &LanConfig, target: Ipv6Addr, to: To) -> Vec<u8> {
    let mut flags = NdiscNeighborFlags::empty();
    let is_own = config.is_own_v6(target);
    flags.set(NdiscNeighborFlags::ROUTER, is_own);
    flags.set(NdiscNeighborFlags::OVERRIDE, is_own);
    flags.set(NdiscNeighborFlags::SOLICITED, !to.1.is_multicast());
    let source = link_local(config.mac);
    let message = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags,
        target_addr: target,
        lladdr: Some(RawHardwareAddress::from_bytes(&config.mac)),
    });
    let (from, length) = ((config.mac, source), message.buffer_len());
    frame(from, to, IpProtocol::Icmpv6, length, |payload| {
        message.emit(
            &source,
            &to.1,
            &mut Icmpv6Packet::new_unchecked(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// Says to everybody that an address is the gateway's.
fn claim(config: &LanConfig, address: Ipv6Addr) -> Vec<u8> {
    advert(config, address, everybody())
}
