//! Rules that allow for time: how long after what happened an address may have two holders, and a
//! revoked node a session.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use wow_overlay::time::Instant;

use crate::checks;
use crate::machine::Population;
use crate::world::World;

/// How long an undisturbed ring may have two holders of one address. Each renews its claim within 72 s,
/// and the question reaches the node that is closest to the address within 8 s: by then that node has
/// refused all but one. A grant needs the promise of most of five nodes, and what they hold is handed
/// on, so two holders come about only where a ring was in parts or all five were lost at once.
pub const LEASES_SETTLE: Duration = Duration::from_secs(80);
/// How long members may have a session with a node that was revoked while nothing else happened.
pub const CUT_OFF: Duration = Duration::from_secs(5);
/// The same for members that were away or cut off then, from their return: they first have to find
/// somebody who knows.
pub const CUT_OFF_LATE: Duration = Duration::from_secs(30);
/// What has ended this long ago is over.
const AFTERMATH: Duration = Duration::from_secs(10);

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Watch {
    /// When the last fault but revocations ends, or has ended.
    disturbed: Option<Instant>,
    disputes: BTreeMap<Ipv4Addr, Instant>,
    longest_dispute: Duration,
    /// When the last revocation was that some member does not know of.
    revoked: Option<Instant>,
    longest_cut_off: Option<Duration>,
}

impl Watch {
    /// Something other than a revocation happens until `end`.
    pub fn disturb(&mut self, end: Instant) {
        self.disturbed = self.disturbed.max(Some(end));
    }

    /// Memberships are ended.
    pub fn revoke(&mut self, now: Instant) {
        self.revoked = Some(now);
    }

    /// Whether members have sessions with the revoked, as far as seen.
    pub fn awaits_cut_off(&self) -> bool {
        self.revoked.is_some()
    }

    /// The longest that an address had two holders while nothing else was wrong.
    pub fn longest_dispute(&self) -> Duration {
        self.longest_dispute
    }

    /// The longest from a revocation until no member had a session with the revoked.
    pub fn longest_cut_off(&self) -> Option<Duration> {
        self.longest_cut_off
    }

    /// Looks at everybody. The ring has been consistent since `consistent`, if it is.
    pub fn look<P: Population>(&mut self, world: &mut World<P>, consistent: Option<Instant>) {
        self.look_at_leases(world, consistent);
        self.look_at_revoked(world);
    }

    fn look_at_leases<P: Population>(&mut self, world: &mut World<P>, consistent: Option<Instant>) {
        let now = world.now();
        let disputes = checks::disputes(world);
        self.disputes
            .retain(|address, _| disputes.contains_key(address));
        for (address, holders) in disputes {
            let since = *self.disputes.entry(address).or_insert(now);
            let undisturbed = consistent.max(self.disturbed);
            let (Some(_), Some(undisturbed)) = (consistent, undisturbed) else {
                continue;
            };
            self.longest_dispute = self.longest_dispute.max(now - since.max(undisturbed));
            if now - undisturbed > LEASES_SETTLE {
                let hosts: Vec<String> = holders.iter().map(|host| host.0.to_string()).collect();
                let detail = format!("{address} is held by hosts {}", hosts.join(" and "));
                world.violate("an address has one holder", detail);
            }
        }
    }

    fn look_at_revoked<P: Population>(&mut self, world: &mut World<P>) {
        let now = world.now();
        let links = checks::links_to_revoked(world);
        if links.is_empty() {
            if let Some(since) = self.revoked.take() {
                self.longest_cut_off = self.longest_cut_off.max(Some(now - since));
            }
            return;
        }
        for (member, revoked) in links {
            let since = world.revoked_at(revoked).expect("it was chosen for that");
            if now > self.cut_off_by(world.woke_at(member), since) {
                let detail = format!(
                    "host {} has one with host {}, revoked {:.1} s ago",
                    member.0,
                    revoked.0,
                    (now - since).as_secs_f64()
                );
                world.violate("nobody has a session with the revoked", detail);
            }
        }
    }

    /// Until when a member may have a session with a node revoked at `revoked`.
    fn cut_off_by(&self, woke: Instant, revoked: Instant) -> Instant {
        let troubles = [Some(woke), self.disturbed];
        let last = troubles.into_iter().flatten().max();
        match last.filter(|last| *last + AFTERMATH > revoked) {
            None => revoked + CUT_OFF,
            Some(last) => last.max(revoked) + CUT_OFF_LATE,
        }
    }
}
