//! What happened, counted: every packet that goes nowhere has a reason.

use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::wire::Malformed;

/// Why a packet or frame went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Lengths, version or checksum do not hold.
    Malformed,
    /// Its sender's address is not one it may use there.
    Spoofed,
    /// IPv4 that is neither for us nor to be forwarded (multicast, broadcast).
    NotForwarded,
    /// A protocol the NAT does not translate.
    Protocol,
    /// A fragment at a NAT.
    Fragment,
    /// No mapping for the external port.
    NatUnmapped,
    /// A mapping whose filter does not know the sender.
    NatFiltered,
    /// The NAT's tables are at their limits.
    NatFull,
    /// Sent to the own public address while hairpinning is off.
    HairpinOff,
    /// TTL ran out.
    TtlExpired,
    /// Between two domains that are cut off from each other.
    Cut,
    /// No such network.
    NoRoute,
    /// The host did not answer ARP.
    NoHost,
    /// Held packets exceed their bound while ARP is under way.
    HeldFull,
    /// UDP, which the domain blocks.
    UdpBlocked,
    /// Lost as configured.
    Lost,
    /// The line's queue is longer than it may be.
    QueueFull,
    /// An ICMP error beyond the rate limit.
    ErrorLimit,
}

impl DropReason {
    const ALL: [(DropReason, &'static str); 18] = [
        (DropReason::Malformed, "malformed"),
        (DropReason::Spoofed, "spoofed"),
        (DropReason::NotForwarded, "not_forwarded"),
        (DropReason::Protocol, "protocol"),
        (DropReason::Fragment, "fragment"),
        (DropReason::NatUnmapped, "nat_unmapped"),
        (DropReason::NatFiltered, "nat_filtered"),
        (DropReason::NatFull, "nat_full"),
        (DropReason::HairpinOff, "hairpin_off"),
        (DropReason::TtlExpired, "ttl_expired"),
        (DropReason::Cut, "cut"),
        (DropReason::NoRoute, "no_route"),
        (DropReason::NoHost, "no_host"),
        (DropReason::HeldFull, "held_full"),
        (DropReason::UdpBlocked, "udp_blocked"),
        (DropReason::Lost, "lost"),
        (DropReason::QueueFull, "queue_full"),
        (DropReason::ErrorLimit, "error_limit"),
    ];
}

impl From<Malformed> for DropReason {
    fn from(_: Malformed) -> DropReason {
        DropReason::Malformed
    }
}

/// Drops by reason. Serialises as a map of those that happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    /// One more.
    pub(crate) fn count(&mut self, reason: DropReason) {
        self.0[reason as usize] += 1;
    }

    /// How many for this reason.
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }
}

impl Serialize for Drops {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let happened = || {
            DropReason::ALL
                .iter()
                .filter(|(reason, _)| self.of(*reason) > 0)
        };
        let mut map = serializer.serialize_map(Some(happened().count()))?;
        for (reason, name) in happened() {
            map.serialize_entry(name, &self.of(*reason))?;
        }
        map.end()
    }
}

/// Frames and bytes one way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Frames or packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Traffic {
    /// One more of this size.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.packets += 1;
        self.bytes += bytes as u64;
    }
}

/// What one domain did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets that entered the line to the core.
    pub to_core: Traffic,
    /// Packets that arrived by the line from the core.
    pub from_core: Traffic,
    /// Packets that went nowhere, wherever in this domain.
    pub drops: Drops,
    /// ARP requests answered.
    pub arp_replies: u64,
    /// DHCP messages answered.
    pub dhcp_replies: u64,
    /// ICMP errors sent.
    pub icmp_errors: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_counts_under_its_own_name() {
        for (index, (reason, name)) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            let mut drops = Drops::default();
            drops.count(*reason);
            let json = serde_json::to_value(drops).unwrap();
            assert_eq!(json, serde_json::json!({ *name: 1 }));
        }
    }
}
