//! What is agreed on with the card: the features of the virtio specification 1.2, sections 5.1.3 and 6.

use virtio_drivers::transport::{DeviceStatus, Transport};

/// The card computes checksums that are left out of what it is given.
pub const CSUM: u64 = 1 << 0;
/// The driver takes frames without their checksum.
pub const GUEST_CSUM: u64 = 1 << 1;
/// The card tells how long packets may be.
pub const MTU: u64 = 1 << 3;
/// The card tells its address.
pub const MAC: u64 = 1 << 5;
/// The driver takes TCP superpackets over IPv4.
pub const GUEST_TSO4: u64 = 1 << 7;
/// The same over IPv6.
pub const GUEST_TSO6: u64 = 1 << 8;
/// The card takes TCP superpackets over IPv4.
pub const HOST_TSO4: u64 = 1 << 11;
/// The same over IPv6.
pub const HOST_TSO6: u64 = 1 << 12;
/// A frame may be spread over several of the driver's buffers.
pub const MRG_RXBUF: u64 = 1 << 15;
/// The interface of version 1: all that is spoken here.
pub const VERSION_1: u64 = 1 << 32;
/// The card reaches memory through an IOMMU, and does nothing without it.
pub const ACCESS_PLATFORM: u64 = 1 << 33;

/// Without these nothing works: superpackets need buffers that are joined.
const NEEDED: [(u64, &str); 3] = [
    (VERSION_1, "virtio 1.0 (VERSION_1)"),
    (MRG_RXBUF, "joined buffers (MRG_RXBUF)"),
    (MAC, "an address of its own (MAC)"),
];

/// All that is taken of what is offered. Among what is not: EVENT_IDX and INDIRECT_DESC, since the
/// queues' arithmetic for the first goes wrong when the index wraps within a batch and the second
/// needs memory that the card cannot see; UFO, which Linux no longer makes; a control queue, without
/// which the card hears every frame, as a gateway must.
const WANTED: u64 = CSUM
    | GUEST_CSUM
    | MTU
    | MAC
    | GUEST_TSO4
    | GUEST_TSO6
    | HOST_TSO4
    | HOST_TSO6
    | MRG_RXBUF
    | VERSION_1;

/// Why there is no agreement.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// It lacks something.
    #[error("the card does not offer {0}")]
    Lacks(&'static str),
    /// It wants an IOMMU.
    #[error(
        "the card insists on an IOMMU (iommu_platform=on), through which no process can drive it"
    )]
    Iommu,
    /// It refuses what it has offered.
    #[error("the card refuses the features {taken:#x} of {offered:#x}")]
    Refused {
        /// What it offered.
        offered: u64,
        /// What was taken.
        taken: u64,
    },
    /// It does not react to being reset.
    #[error("the card does not reset")]
    Stuck,
}

/// How often the status is read until a reset counts as failed. Each read is an exit to the
/// hypervisor, which takes microseconds: half a second at least.
const RESET_READS: u32 = 500_000;

/// Resets the card, and agrees on features; those taken.
///
/// # Errors
/// See [`FeatureError`]. The card is left as it is, marked as failed.
pub fn negotiate(card: &mut impl Transport) -> Result<u64, FeatureError> {
    if !reset(card) {
        return Err(FeatureError::Stuck);
    }
    let known = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    card.set_status(DeviceStatus::ACKNOWLEDGE);
    card.set_status(known);
    let offered = card.read_device_features();
    let result = choose(offered).and_then(|taken| {
        card.write_driver_features(taken);
        card.set_status(known | DeviceStatus::FEATURES_OK);
        // A card that wants more than was taken says so by forgetting this bit, and would seem to
        // work without ever moving a frame.
        if card.get_status().contains(DeviceStatus::FEATURES_OK) {
            return Ok(taken);
        }
        Err(match offered & ACCESS_PLATFORM {
            0 => FeatureError::Refused { offered, taken },
            _ => FeatureError::Iommu,
        })
    });
    if result.is_err() {
        card.set_status(known | DeviceStatus::FAILED);
    }
    result
}

/// Stops the card; false when it does not react within a bounded time, as one that was unplugged.
pub fn reset(card: &mut impl Transport) -> bool {
    card.set_status(DeviceStatus::empty());
    (0..RESET_READS).any(|_| card.get_status() == DeviceStatus::empty())
}

fn choose(offered: u64) -> Result<u64, FeatureError> {
    for (feature, name) in NEEDED {
        if offered & feature == 0 {
            return Err(FeatureError::Lacks(name));
        }
    }
    let mut taken = offered & WANTED;
    // Superpackets are without a checksum: section 5.1.3.1.
    if taken & CSUM == 0 {
        taken &= !(HOST_TSO4 | HOST_TSO6);
    }
    if taken & GUEST_CSUM == 0 {
        taken &= !(GUEST_TSO4 | GUEST_TSO6);
    }
    Ok(taken)
}

/// Whether superpackets and frames without checksums may be given to the card.
pub fn takes_offloads(features: u64) -> bool {
    let all = CSUM | HOST_TSO4 | HOST_TSO6;
    features & all == all
}

#[cfg(test)]
mod tests {
    use super::super::twin::Twin;
    use super::*;

    const EVENT_IDX: u64 = 1 << 29;
    const INDIRECT_DESC: u64 = 1 << 28;
    const GUEST_UFO: u64 = 1 << 10;
    const CTRL_VQ: u64 = 1 << 17;

    #[test]
    fn what_would_stall_or_confuse_the_queues_is_not_taken() {
        let more = EVENT_IDX | INDIRECT_DESC | GUEST_UFO | CTRL_VQ;
        let mut card = Twin::new(WANTED | more);
        assert_eq!(negotiate(&mut card), Ok(WANTED));
        assert_eq!(card.taken(), WANTED);
        assert!(takes_offloads(WANTED));
    }

    #[test]
    fn a_card_that_insists_on_an_iommu_is_refused_loudly() {
        let mut card = Twin::new(WANTED | ACCESS_PLATFORM);
        card.insist_on(ACCESS_PLATFORM);
        assert_eq!(negotiate(&mut card), Err(FeatureError::Iommu));
        assert!(card.get_status().contains(DeviceStatus::FAILED));
        let mut lenient = Twin::new(WANTED | ACCESS_PLATFORM);
        assert_eq!(negotiate(&mut lenient), Ok(WANTED));
        let mut picky = Twin::new(WANTED | CTRL_VQ);
        picky.insist_on(CTRL_VQ);
        let refused = negotiate(&mut picky);
        assert!(matches!(refused, Err(FeatureError::Refused { .. })));
    }

    #[test]
    fn what_is_missing_is_named_and_superpackets_need_checksums() {
        let mut old = Twin::new(WANTED & !VERSION_1);
        let lacks = negotiate(&mut old).unwrap_err().to_string();
        assert!(lacks.contains("virtio 1.0"), "{lacks}");
        let without = choose(WANTED & !CSUM).unwrap();
        assert_eq!(without & (HOST_TSO4 | HOST_TSO6), 0);
        assert!(!takes_offloads(without));
        assert_eq!(choose(WANTED & !GUEST_CSUM).unwrap() & GUEST_TSO4, 0);
    }

    #[test]
    fn a_card_that_is_gone_is_not_waited_for_without_end() {
        let mut card = Twin::new(WANTED);
        card.unplug();
        assert_eq!(negotiate(&mut card), Err(FeatureError::Stuck));
    }
}
