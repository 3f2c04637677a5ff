//! What a DHCP server's answer may make us do. An answer that fails here is dropped before the client
//! sees it, so a sensible server on the same wire still gets its turn.

use std::net::Ipv4Addr;
use std::time::Duration;

use smoltcp::wire::DhcpRepr;

use super::plan::{MAX_DNS, PREFIXES, is_host, is_reachable, is_unicast};

/// A shorter lease would keep client and server busy with nothing else.
const SHORTEST: Duration = Duration::from_secs(10);
/// A renewal sooner than this would be a busy loop at the server's command.
const SOONEST_RENEWAL: Duration = Duration::from_secs(2);
/// RFC 2131 leaves the time open; smoltcp's default, too, is two minutes.
const UNSAID: Duration = Duration::from_secs(120);

/// An address on loan, validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Its prefix length, 8 to 32.
    pub prefix: u8,
    /// The default gateway, reachable on the link.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers, at most three.
    pub dns: Vec<Ipv4Addr>,
    /// The server, by its identifier.
    pub server: Ipv4Addr,
    /// How long it holds, from when it was given.
    pub lifetime: Duration,
}

/// Why an answer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("no server identifier")]
    NoServer,
    #[error("no subnet mask")]
    NoMask,
    #[error("subnet mask {0} is not contiguous or not /8 to /32")]
    Mask(Ipv4Addr),
    #[error("{0}/{1} is no host's address")]
    Address(Ipv4Addr, u8),
    #[error("a lease of {} s is too short", .0.as_secs())]
    TooShort(Duration),
    #[error("a renewal after {} s is too soon", .0.as_secs())]
    TooSoon(Duration),
}

impl Lease {
    /// Checks an offer or acknowledgement. A gateway that cannot be reached and name servers that
    /// cannot be any are left out; all other nonsense refuses the lease.
    pub(crate) fn from_answer(answer: &DhcpRepr<'_>) -> Result<Self, Refusal> {
        let server = answer.server_identifier.ok_or(Refusal::NoServer)?;
        let mask = answer.subnet_mask.ok_or(Refusal::NoMask)?;
        let prefix = mask.to_bits().leading_ones() as u8;
        let contiguous = mask.to_bits().count_ones() == u32::from(prefix);
        if !contiguous || !PREFIXES.contains(&prefix) {
            return Err(Refusal::Mask(mask));
        }
        let address = answer.your_ip;
        if !is_host(address, prefix) {
            return Err(Refusal::Address(address, prefix));
        }
        let seconds = |value: u32| Duration::from_secs(u64::from(value));
        let lifetime = answer.lease_duration.map_or(UNSAID, seconds);
        if lifetime < SHORTEST {
            return Err(Refusal::TooShort(lifetime));
        }
        let renewal = renewal(
            lifetime,
            answer.renew_duration.map(seconds),
            answer.rebind_duration.map(seconds),
        );
        if renewal < SOONEST_RENEWAL {
            return Err(Refusal::TooSoon(renewal));
        }
        let gateway = answer
            .router
            .filter(|router| *router != address && is_reachable(*router, address, prefix));
        let dns = answer
            .dns_servers
            .iter()
            .flatten()
            .copied()
            .filter(|dns| is_unicast(*dns));
        Ok(Self {
            address,
            prefix,
            gateway,
            dns: dns.take(MAX_DNS).collect(),
            server,
            lifetime,
        })
    }

    /// Whether another lease differs in its lifetime only.
    pub(crate) fn same_terms(&self, other: &Self) -> bool {
        Self {
            lifetime: other.lifetime,
            ..self.clone()
        } == *other
    }
}

/// When smoltcp's client will renew, from T1 and T2 as it judges them.
fn renewal(lifetime: Duration, t1: Option<Duration>, t2: Option<Duration>) -> Duration {
    match (t1, t2) {
        (Some(t1), Some(t2)) if t1 < t2 && t2 < lifetime => t1,
        (Some(t1), None) if t1 < lifetime => t1,
        (None, Some(t2)) if t2 < lifetime => t2.min(lifetime / 2),
        _ => lifetime / 2,
    }
}
