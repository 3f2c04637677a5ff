//! The virtual addresses of nodes, and which point of the ring answers for an address or a name.
//!
//! An address not fixed by the certificate is derived: the ring is cut into as many equal intervals
//! as the range has free addresses, in order, and a node has the address of the interval its id lies
//! in. Two nodes in one interval collide; settling that is left to whoever notices.

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest::{Context, SHA256};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;

use super::certificate::Certificate;
use super::pool::{PoolFacts, PoolId};
use crate::id::{ID_BYTES, NodeId};

/// Addresses that no node has: the network's and the control address before the free ones, and the
/// broadcast address behind them.
const RESERVED_BEFORE: u32 = 2;
const RESERVED: u64 = 3;

/// Bytes of a NodeId that stand in an IPv6 address, behind a prefix of 48 bits.
const V6_ID_BYTES: usize = 10;
const V6_PREFIX_BITS: u8 = 48;

/// A node's virtual addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Addresses {
    /// In the pool's range: fixed by the certificate, or derived from the id.
    pub v4: Ipv4Addr,
    /// In the pool's unique local prefix (RFC 4193), derived from the id.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// The addresses of the node that holds `certificate`.
    pub fn new(pool: &PoolFacts, certificate: &Certificate) -> Self {
        let v4 = certificate
            .fixed_address()
            .unwrap_or_else(|| derive_v4(pool.range, certificate.node_id()));
        Addresses {
            v4,
            v6: derive_v6(pool.pool_id(), certificate.node_id()),
        }
    }
}

/// An address that no node of the pool may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is not in the range.
    #[error("the address {address} is outside the pool's range {range}")]
    OutsideRange {
        /// The address.
        address: Ipv4Addr,
        /// The pool's range.
        range: Ipv4Net,
    },
    /// It is in the range, but has a meaning of its own.
    #[error("the address {address} is the {what} address of the pool's range {range}")]
    Reserved {
        /// The address.
        address: Ipv4Addr,
        /// The pool's range.
        range: Ipv4Net,
        /// What it is.
        what: &'static str,
    },
}

/// Whether a node of a pool with this range may have this address.
pub fn check_v4(range: Ipv4Net, address: Ipv4Addr) -> Result<(), AddressError> {
    if !range.contains(&address) {
        return Err(AddressError::OutsideRange { address, range });
    }
    let what = if address == range.network() {
        "network"
    } else if address == control_v4(range) {
        "control"
    } else if address == range.broadcast() {
        "broadcast"
    } else {
        return Ok(());
    };
    Err(AddressError::Reserved {
        address,
        range,
        what,
    })
}

/// The address at which every node answers its own guests: the first host of the range.
pub fn control_v4(range: Ipv4Net) -> Ipv4Addr {
    offset_v4(range, 1)
}

/// The IPv6 twin of [`control_v4`]: `::1` in the pool's prefix.
pub fn control_v6(pool: PoolId) -> Ipv6Addr {
    Ipv6Addr::from_bits(v6_prefix(pool).addr().to_bits() | 1)
}

/// The IPv6 address that goes with an IPv4 address of the pool: the prefix, zeros, and the IPv4 address. It is whose
/// the IPv4 address is, which a lease in the pool's table proves; guests behind a node have no other.
pub fn twin_v6(pool: PoolId, v4: Ipv4Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(v6_prefix(pool).addr().to_bits() | u128::from(v4.to_bits()))
}

/// The IPv4 address that an IPv6 address goes with: `None` for one that a node has by its id. An id that begins with
/// as many zeros gives its node no IPv6 address: that would take 2^48 tries, and wins nothing.
pub fn twin_v4(pool: PoolId, range: Ipv4Net, v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let rest = v6.to_bits() ^ v6_prefix(pool).addr().to_bits();
    let v4 = Ipv4Addr::from_bits(u32::try_from(rest).ok()?);
    check_v4(range, v4).is_ok().then_some(v4)
}

/// The pool's unique local prefix (RFC 4193): `fd`, then 40 bits of the pool's id as global id.
pub fn v6_prefix(pool: PoolId) -> Ipv6Net {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&pool.0[..5]);
    Ipv6Net::new_assert(octets.into(), V6_PREFIX_BITS)
}

/// The IPv4 address that a node has by its id; never the network's, the control or the broadcast
/// address of a range that [`check_range`](super::pool::check_range) accepts.
pub fn derive_v4(range: Ipv4Net, id: NodeId) -> Ipv4Addr {
    let position = u128::from(top_bits(id));
    let interval = (position * u128::from(intervals(range))) >> 64;
    let interval = u32::try_from(interval).expect("there are fewer than 2^32 intervals");
    offset_v4(range, RESERVED_BEFORE.wrapping_add(interval))
}

/// The IPv6 address that a node has by its id: the prefix, then the id's first 80 bits.
pub fn derive_v6(pool: PoolId, id: NodeId) -> Ipv6Addr {
    let mut octets = v6_prefix(pool).addr().octets();
    octets[16 - V6_ID_BYTES..].copy_from_slice(&id.0[..V6_ID_BYTES]);
    octets.into()
}

/// The point of the ring that answers for `address`: the middle of the interval of ids it is
/// derived from, so that a node with that derived address is as close as any other node or closer.
///
/// `None` for an address that no node can have.
pub fn ring_position_of_v4(range: Ipv4Net, address: Ipv4Addr) -> Option<NodeId> {
    check_v4(range, address).ok()?;
    let count = u128::from(intervals(range));
    let offset = address.to_bits() - range.network().to_bits();
    let interval = u128::from(offset - RESERVED_BEFORE);
    // The interval holds the ids whose first 64 bits are from `start` until just before `end`.
    let start = (interval << 64).div_ceil(count);
    let end = ((interval + 1) << 64).div_ceil(count);
    // Half of `start + end`, which is below 2^65, as the first 64 of 128 bits.
    let middle = (start + end) << 63;
    let mut id = [0; ID_BYTES];
    id[..16].copy_from_slice(&middle.to_be_bytes());
    Some(NodeId(id))
}

/// The point of the ring that answers for `address`: the middle of the ids that begin with its bits.
///
/// `None` for an address outside the pool's prefix, and for the control address.
pub fn ring_position_of_v6(pool: PoolId, address: Ipv6Addr) -> Option<NodeId> {
    if !v6_prefix(pool).contains(&address) || address == control_v6(pool) {
        return None;
    }
    let mut id = [0; ID_BYTES];
    id[..V6_ID_BYTES].copy_from_slice(&address.octets()[16 - V6_ID_BYTES..]);
    id[V6_ID_BYTES] = 0x80;
    Some(NodeId(id))
}

/// The point of the ring that answers for a node's name.
pub fn ring_position_of_name(pool: PoolId, name: &str) -> NodeId {
    position(&[b"wow node name v1\0", &pool.0, name.as_bytes()])
}

/// The point of the ring that answers for a service.
pub fn ring_position_of_service(pool: PoolId, name: &str) -> NodeId {
    position(&[b"wow service v1\0", &pool.0, name.as_bytes()])
}

/// The point of the ring whose address a node tries to lease at its `attempt`-th try, when its own
/// is taken or it needs several.
pub fn lease_position(node: NodeId, lease: u16, attempt: u32) -> NodeId {
    let (lease, attempt) = (lease.to_be_bytes(), attempt.to_be_bytes());
    position(&[b"wow lease v1\0", &node.0, &lease, &attempt])
}

fn position(parts: &[&[u8]]) -> NodeId {
    let mut hash = Context::new(&SHA256);
    for part in parts {
        hash.update(part);
    }
    let hash = hash.finish();
    NodeId(
        *hash
            .as_ref()
            .first_chunk()
            .expect("a digest is longer than its beginning"),
    )
}

/// How many free addresses the range has: at least one, so that this is total.
fn intervals(range: Ipv4Net) -> u64 {
    let addresses = 1u64 << (range.max_prefix_len() - range.prefix_len());
    addresses.saturating_sub(RESERVED).max(1)
}

fn top_bits(id: NodeId) -> u64 {
    let first = id.0.first_chunk().expect("an id has twenty bytes");
    u64::from_be_bytes(*first)
}

fn offset_v4(range: Ipv4Net, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(range.network().to_bits().wrapping_add(offset))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::pool::{PREFIX_MAX, PREFIX_MIN};
    use proptest::prelude::*;

    const POOL: PoolId = PoolId([0xab; 16]);

    fn ranges() -> impl Strategy<Value = Ipv4Net> {
        (any::<u32>(), PREFIX_MIN..=PREFIX_MAX)
            .prop_map(|(bits, prefix)| Ipv4Net::new_assert(bits.into(), prefix).trunc())
    }

    fn ids() -> impl Strategy<Value = NodeId> {
        any::<[u8; ID_BYTES]>().prop_map(NodeId)
    }

    fn id_from(top: u64, rest: u8) -> NodeId {
        let mut id = [rest; ID_BYTES];
        id[..8].copy_from_slice(&top.to_be_bytes());
        NodeId(id)
    }

    proptest! {
        #[test]
        fn a_derived_address_is_one_a_node_may_have(range in ranges(), id in ids()) {
            prop_assert_eq!(check_v4(range, derive_v4(range, id)), Ok(()));
        }

        #[test]
        fn the_ring_position_of_an_address_derives_to_it(range in ranges(), id in ids()) {
            let address = derive_v4(range, id);
            let position = ring_position_of_v4(range, address).unwrap();
            prop_assert_eq!(derive_v4(range, position), address);
            let address = derive_v6(POOL, id);
            let position = ring_position_of_v6(POOL, address).unwrap();
            prop_assert_eq!(derive_v6(POOL, position), address);
        }

        #[test]
        fn every_address_a_node_may_have_is_derived_from_some_id(range in ranges(), at: u32) {
            let offset = u64::from(at) % intervals(range);
            let address = offset_v4(range, RESERVED_BEFORE + u32::try_from(offset).unwrap());
            let position = ring_position_of_v4(range, address).unwrap();
            prop_assert_eq!(derive_v4(range, position), address);
        }

        #[test]
        fn the_node_closest_to_an_address_has_it_if_any_node_has(
            range in ranges(),
            nodes in proptest::collection::btree_set(ids(), 1..64),
        ) {
            for owner in &nodes {
                let address = derive_v4(range, *owner);
                let position = ring_position_of_v4(range, address).unwrap();
                let closest = nodes.iter().min_by_key(|node| node.distance(position)).unwrap();
                prop_assert_eq!(derive_v4(range, *closest), address);
            }
        }

        #[test]
        fn addresses_increase_with_ids(range in ranges(), a in ids(), b in ids()) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(derive_v4(range, low) <= derive_v4(range, high));
        }

        #[test]
        fn an_address_and_its_twin_lead_to_each_other(range in ranges(), id in ids()) {
            let v4 = derive_v4(range, id);
            prop_assert_eq!(twin_v4(POOL, range, twin_v6(POOL, v4)), Some(v4));
            prop_assert_eq!(twin_v4(PoolId([1; 16]), range, twin_v6(POOL, v4)), None);
            let reserved = [range.network(), control_v4(range), range.broadcast()];
            for v4 in reserved {
                prop_assert_eq!(twin_v4(POOL, range, twin_v6(POOL, v4)), None);
            }
        }

        #[test]
        fn any_range_and_address_at_all_are_survived(bits: u32, prefix in 0u8..=32, at: u32, id in ids()) {
            let range = Ipv4Net::new_assert(bits.into(), prefix);
            let _ = derive_v4(range, id);
            let _ = ring_position_of_v4(range, at.into());
            let _ = ring_position_of_v4(range, (bits ^ (at & 7)).into());
        }
    }

    #[test]
    fn every_interval_s_edges_derive_to_its_address_and_lie_no_farther_than_half_of_it() {
        let range: Ipv4Net = "10.9.8.0/24".parse().unwrap();
        let count = intervals(range);
        assert_eq!(count, 253);
        for interval in 0..count {
            let address = offset_v4(range, 2 + u32::try_from(interval).unwrap());
            let start = (u128::from(interval) << 64).div_ceil(u128::from(count));
            let end = (u128::from(interval + 1) << 64).div_ceil(u128::from(count));
            let first = id_from(start.try_into().unwrap(), 0);
            let last = id_from((end - 1).try_into().unwrap(), 0xff);
            assert_eq!(derive_v4(range, first), address);
            assert_eq!(derive_v4(range, last), address);
            // The nearest strangers: one step outside either edge.
            let before = id_from(u64::try_from(start).unwrap().wrapping_sub(1), 0xff);
            let after = id_from(u64::try_from(end - 1).unwrap().wrapping_add(1), 0);
            let position = ring_position_of_v4(range, address).unwrap();
            for owner in [first, last] {
                for stranger in [before, after] {
                    assert_ne!(derive_v4(range, stranger), address);
                    assert!(owner.distance(position) <= stranger.distance(position));
                }
            }
        }
    }

    #[test]
    fn reserved_and_outside_addresses_are_refused_and_have_no_position() {
        let range: Ipv4Net = "10.128.0.0/9".parse().unwrap();
        for (address, message) in [
            ("10.128.0.0", "is the network address"),
            ("10.128.0.1", "is the control address"),
            ("10.255.255.255", "is the broadcast address"),
            ("10.127.255.255", "is outside the pool's range 10.128.0.0/9"),
            ("11.0.0.0", "is outside the pool's range 10.128.0.0/9"),
        ] {
            let address: Ipv4Addr = address.parse().unwrap();
            let error = check_v4(range, address).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
            assert_eq!(ring_position_of_v4(range, address), None);
        }
        check_v4(range, Ipv4Addr::new(10, 128, 0, 2)).unwrap();
        check_v4(range, Ipv4Addr::new(10, 255, 255, 254)).unwrap();
    }

    #[test]
    fn v6_addresses_are_unique_local_and_carry_the_id() {
        let id = id_from(0x0123_4567_89ab_cdef, 0x42);
        assert_eq!(v6_prefix(POOL).to_string(), "fdab:abab:abab::/48");
        assert_eq!(control_v6(POOL).to_string(), "fdab:abab:abab::1");
        assert_eq!(
            derive_v6(POOL, id).to_string(),
            "fdab:abab:abab:123:4567:89ab:cdef:4242"
        );
        let range: Ipv4Net = "10.128.0.0/9".parse().unwrap();
        assert_eq!(twin_v4(POOL, range, derive_v6(POOL, id)), None);
        assert_eq!(twin_v4(POOL, range, control_v6(POOL)), None);
        let twin = twin_v6(POOL, Ipv4Addr::new(10, 128, 3, 4));
        assert_eq!(twin.to_string(), "fdab:abab:abab::a80:304");
        assert_eq!(ring_position_of_v6(POOL, control_v6(POOL)), None);
        let elsewhere = derive_v6(PoolId([1; 16]), id);
        assert_eq!(ring_position_of_v6(POOL, elsewhere), None);
    }

    #[test]
    fn names_spread_over_the_ring_and_differ_between_pools() {
        let position = ring_position_of_name(POOL, "node-1");
        assert_eq!(position, ring_position_of_name(POOL, "node-1"));
        assert_ne!(position, ring_position_of_name(POOL, "node-2"));
        assert_ne!(position, ring_position_of_name(PoolId([1; 16]), "node-1"));
    }
}
