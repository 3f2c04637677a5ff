//! Records kept for others. Bounded, also for each owner.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::message::Control;
use crate::wire::record::Key;

use super::{LIFETIME, Verified};

/// Records that a node keeps.
pub const RECORDS_MAX: usize = 8192;
/// Records of one owner that a node keeps.
pub const RECORDS_PER_OWNER_MAX: usize = 64;

/// Withdrawals that are remembered.
const WITHDRAWALS_MAX: usize = 1024;

/// How long a key that this node has given away gives way to somebody who has held it for longer: a node
/// that has just joined may not have known yet whom to ask for their promise.
const YOUTH: Duration = Duration::from_secs(10);

/// How firm a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Standing {
    /// The key is kept free for the claimant while votes are counted.
    Promised,
    /// The claimant holds the key.
    Granted,
}

/// A record, how firm it is, and until when.
#[derive(Clone, Debug)]
pub(in super::super) struct Kept {
    pub verified: Verified,
    /// The key's place in the ring.
    pub position: NodeId,
    pub until: Instant,
    pub standing: Standing,
    /// When this node gave the key to the claimant, if it was this node.
    pub decided: Option<Instant>,
}

impl Kept {
    /// A copy for a neighbour, for the whole seconds that it still lives.
    pub(super) fn copy(&self, now: Instant, token: u64) -> Control {
        Control::Store {
            token,
            record: self.verified.record.clone(),
            remaining_s: u16::try_from((self.until - now).as_secs()).unwrap_or(u16::MAX),
        }
    }
}

/// Why a record is not kept.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody else holds the key; the record comes back.
    Held(Box<Kept>),
    /// The same owner has claimed since.
    Stale,
    /// There is no room, or none for this owner.
    Full,
}

/// See the module.
pub(in super::super) struct Store {
    /// The node that keeps them. When there is no more room the nearest keys stay: those are its to
    /// answer for.
    centre: NodeId,
    records: BTreeMap<Key, Kept>,
    /// How many records each owner has here.
    owners: BTreeMap<NodeId, usize>,
    /// What was here and its owner has given up, by its last sequence, while copies may still live
    /// with nodes that were not told.
    withdrawals: BTreeMap<(Key, NodeId), (u64, Instant)>,
}

impl Store {
    pub(super) fn new(centre: NodeId) -> Self {
        Store {
            centre,
            records: BTreeMap::new(),
            owners: BTreeMap::new(),
            withdrawals: BTreeMap::new(),
        }
    }

    /// How many records there are, those that have just ended included.
    pub(in super::super) fn len(&self) -> usize {
        self.records.len()
    }

    pub(in super::super) fn get(&self, key: &Key) -> Option<&Kept> {
        self.records.get(key)
    }

    pub(super) fn live(&self, now: Instant, key: &Key) -> Option<&Kept> {
        self.get(key).filter(|kept| kept.until > now)
    }

    pub(super) fn granted(&self, now: Instant, key: &Key) -> Option<&Kept> {
        let live = self.live(now, key);
        live.filter(|kept| kept.standing == Standing::Granted)
    }

    pub(super) fn all_granted(&self, now: Instant) -> impl Iterator<Item = &Kept> {
        let live = self.records.values().filter(move |kept| kept.until > now);
        live.filter(|kept| kept.standing == Standing::Granted)
    }

    /// Keeps a record, unless its key is somebody else's or it is older than what is here.
    pub(super) fn keep(&mut self, now: Instant, mut kept: Kept) -> Result<(), Refused> {
        let owner = kept.verified.owner();
        if self.is_withdrawn(now, &kept.verified) {
            return Err(Refused::Stale);
        }
        if let Some(held) = self.live(now, &kept.verified.claim.key) {
            if held.verified.owner() == owner {
                if kept.verified.claim.sequence < held.verified.claim.sequence {
                    return Err(Refused::Stale);
                }
                kept.standing = kept.standing.max(held.standing);
                kept.until = kept.until.max(held.until);
                kept.decided = held.decided.or(kept.decided);
            } else if held.standing >= kept.standing && !kept.verified.precedes(&held.verified) {
                return Err(Refused::Held(Box::new(kept)));
            }
        }
        self.insert(now, kept)
    }

    /// Removes what has ended, or else the record farthest away, if that is farther than `position`.
    fn make_room(&mut self, now: Instant, position: NodeId) -> Result<(), Refused> {
        self.expire(now);
        if self.records.len() < RECORDS_MAX {
            return Ok(());
        }
        let centre = self.centre;
        let distance = |kept: &Kept| centre.distance(kept.position);
        let farthest = self.records.iter().max_by_key(|(_, kept)| distance(kept));
        match farthest {
            Some((key, kept)) if distance(kept) > centre.distance(position) => {
                let key = key.clone();
                self.remove(&key);
                Ok(())
            }
            _ => Err(Refused::Full),
        }
    }

    /// This node gave a key to the claimant whose record is here.
    pub(super) fn note_decided(&mut self, now: Instant, key: &Key) {
        if let Some(kept) = self.records.get_mut(key) {
            kept.decided.get_or_insert(now);
        }
    }

    /// Whether this node has only just given a key to the claimant whose record is here, and on no
    /// better ground than that nobody else was known to hold it.
    pub(super) fn is_hasty(&self, now: Instant, other: &Verified) -> bool {
        self.live(now, &other.claim.key).is_some_and(|held| {
            let young = held.decided.is_some_and(|decided| now - decided < YOUTH);
            young && !held.verified.precedes(other)
        })
    }

    /// Keeps a record whoever held its key before.
    pub(super) fn replace(&mut self, now: Instant, kept: Kept) {
        // A key that is here already needs no room.
        let _ = self.insert(now, kept);
    }

    fn insert(&mut self, now: Instant, kept: Kept) -> Result<(), Refused> {
        let (key, owner) = (kept.verified.claim.key.clone(), kept.verified.owner());
        self.remove(&key);
        let owned = self.owners.get(&owner).copied().unwrap_or(0);
        if owned >= RECORDS_PER_OWNER_MAX {
            return Err(Refused::Full);
        }
        if self.records.len() >= RECORDS_MAX {
            self.make_room(now, kept.position)?;
        }
        self.owners.insert(owner, owned + 1);
        self.records.insert(key, kept);
        Ok(())
    }

    /// Removes what its owner gives up, and refuses older copies of it from now on.
    pub(super) fn withdraw(&mut self, now: Instant, by: &Verified) {
        let key = &by.claim.key;
        let Some(held) = self.get(key) else {
            return;
        };
        let (owner, sequence, until) = (by.owner(), by.claim.sequence, held.until);
        if held.verified.owner() != owner || held.verified.claim.sequence > sequence {
            return;
        }
        self.remove(key);
        self.withdrawals.retain(|_, (_, until)| *until > now);
        if self.withdrawals.len() < WITHDRAWALS_MAX {
            let withdrawal = (sequence, until.max(now + LIFETIME));
            self.withdrawals.insert((key.clone(), owner), withdrawal);
        }
    }

    /// Whether its owner has given up what a record says.
    pub(super) fn is_withdrawn(&self, now: Instant, verified: &Verified) -> bool {
        let known = (verified.claim.key.clone(), verified.owner());
        let withdrawal = self.withdrawals.get(&known);
        withdrawal
            .is_some_and(|(sequence, until)| *until > now && verified.claim.sequence <= *sequence)
    }

    #[cfg(test)]
    pub(in super::super) fn forget_withdrawals(&mut self) {
        self.withdrawals.clear();
    }

    /// Removes a promise that came to nothing.
    pub(super) fn break_promise(&mut self, key: &Key) {
        if self
            .get(key)
            .is_some_and(|kept| kept.standing == Standing::Promised)
        {
            self.remove(key);
        }
    }

    pub(super) fn remove(&mut self, key: &Key) {
        let Some(kept) = self.records.remove(key) else {
            return;
        };
        let owner = kept.verified.owner();
        if let Some(count) = self.owners.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&owner);
            }
        }
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Kept) -> bool) {
        let gone = self.records.iter().filter(|(_, kept)| !keep(kept));
        for key in gone.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    /// Removes what has ended.
    pub(in super::super) fn expire(&mut self, now: Instant) {
        self.retain(|kept| kept.until > now);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rand::SeedableRng;

    use super::*;
    use crate::Rng;
    use crate::membership::{CertificateRequest, Identity, PoolAuthority, PoolName, Roles, Ticket};
    use crate::time::UnixTime;
    use crate::wire::record::{Claim, Record};

    const WALL: UnixTime = UnixTime(1_800_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    struct Owners {
        ticket: Ticket,
        rng: Rng,
    }

    impl Owners {
        fn new() -> Self {
            let mut rng = Rng::seed_from_u64(1);
            let name = PoolName::new("lab").unwrap();
            let range = "10.128.0.0/9".parse().unwrap();
            let authority = PoolAuthority::create(name, range, Vec::new(), &mut rng).unwrap();
            let issued = authority.issue_ticket(Roles::ALL, WALL, WALL + MINUTE, None, &mut rng);
            let ticket = issued.unwrap();
            Owners { ticket, rng }
        }

        fn claim(&mut self) -> Verified {
            let identity = Identity::generate(&mut self.rng);
            let request = CertificateRequest {
                name: "n".parse().unwrap(),
                roles: Roles::ROUTER,
                fixed_address: None,
                not_before: WALL,
                not_after: WALL + MINUTE,
            };
            Verified {
                record: Record {
                    certificate: Vec::new(),
                    claim: Vec::new(),
                    signature: Vec::new(),
                },
                certificate: self.ticket.certify(&identity, &request).unwrap(),
                claim: Claim {
                    key: key(1),
                    sequence: 1,
                    lifetime_s: 60,
                    candidates: Vec::new(),
                    value: Vec::new(),
                },
            }
        }
    }

    fn key(n: u32) -> Key {
        Key::V4(Ipv4Addr::from(0x0a80_0000 + n))
    }

    /// The record at a place whose distance from the centre grows with `n`.
    fn kept(verified: &Verified, n: u32, standing: Standing) -> Kept {
        let mut verified = verified.clone();
        verified.claim.key = key(n);
        let mut position = [0; 20];
        position[..4].copy_from_slice(&n.to_be_bytes());
        Kept {
            verified,
            position: NodeId(position),
            until: Instant::ZERO + MINUTE,
            standing,
            decided: None,
        }
    }

    fn store() -> Store {
        Store::new(NodeId([0; 20]))
    }

    #[test]
    fn a_key_is_its_holder_s_until_the_record_ends() {
        let (mut store, mut owners) = (store(), Owners::new());
        let (a, b) = (owners.claim(), owners.claim());
        let now = Instant::ZERO;
        store.keep(now, kept(&a, 1, Standing::Granted)).unwrap();
        let refused = store.keep(now, kept(&b, 1, Standing::Granted));
        assert!(matches!(refused, Err(Refused::Held(_))));
        let later = now + MINUTE;
        assert!(store.granted(later, &key(1)).is_none());
        store.keep(later, kept(&b, 1, Standing::Granted)).unwrap();
        assert_eq!(store.get(&key(1)).unwrap().verified.owner(), b.owner());
    }

    #[test]
    fn a_grant_ends_another_s_promise_but_no_promise_ends_a_grant() {
        let (mut store, mut owners) = (store(), Owners::new());
        let (a, b) = (owners.claim(), owners.claim());
        let now = Instant::ZERO;
        store.keep(now, kept(&a, 1, Standing::Promised)).unwrap();
        assert!(store.granted(now, &key(1)).is_none());
        let second = store.keep(now, kept(&b, 1, Standing::Promised));
        assert!(matches!(second, Err(Refused::Held(_))));
        store.keep(now, kept(&b, 1, Standing::Granted)).unwrap();
        let late = store.keep(now, kept(&a, 1, Standing::Promised));
        assert!(matches!(late, Err(Refused::Held(_))));
        store.break_promise(&key(1));
        assert_eq!(
            store.granted(now, &key(1)).unwrap().verified.owner(),
            b.owner()
        );
    }

    #[test]
    fn an_older_claim_neither_replaces_nor_withdraws_a_newer_one() {
        let (mut store, mut owners) = (store(), Owners::new());
        let (mut old, now) = (owners.claim(), Instant::ZERO);
        let mut new = old.clone();
        new.claim.sequence = 2;
        store.keep(now, kept(&new, 1, Standing::Granted)).unwrap();
        let refused = store.keep(now, kept(&old, 1, Standing::Granted));
        assert!(matches!(refused, Err(Refused::Stale)));
        store.withdraw(now, &old);
        assert_eq!(store.len(), 1);
        old.claim.sequence = 3;
        store.withdraw(now, &old);
        assert_eq!(store.len(), 0);
        let back = store.keep(now, kept(&new, 1, Standing::Granted));
        assert!(matches!(back, Err(Refused::Stale)));
        new.claim.sequence = 4;
        store.keep(now, kept(&new, 1, Standing::Granted)).unwrap();
    }

    #[test]
    fn one_owner_has_so_many_records_and_no_more() {
        let (mut store, mut owners) = (store(), Owners::new());
        let (greedy, modest) = (owners.claim(), owners.claim());
        let (now, most) = (Instant::ZERO, RECORDS_PER_OWNER_MAX as u32);
        for n in 0..most {
            store
                .keep(now, kept(&greedy, n, Standing::Granted))
                .unwrap();
        }
        let refused = store.keep(now, kept(&greedy, most, Standing::Granted));
        assert!(matches!(refused, Err(Refused::Full)));
        store
            .keep(now, kept(&modest, most, Standing::Granted))
            .unwrap();
        // Renewing needs no further room.
        store
            .keep(now, kept(&greedy, 0, Standing::Granted))
            .unwrap();
        assert_eq!(store.len(), RECORDS_PER_OWNER_MAX + 1);
    }

    #[test]
    fn when_it_is_full_the_nearest_records_stay() {
        let (mut store, mut owners) = (store(), Owners::new());
        let now = Instant::ZERO;
        let count = RECORDS_MAX.div_ceil(RECORDS_PER_OWNER_MAX);
        let crowd: Vec<_> = (0..count).map(|_| owners.claim()).collect();
        let place = |n: usize| u32::try_from(n).unwrap() + 10;
        for n in 0..RECORDS_MAX {
            let owner = &crowd[n / RECORDS_PER_OWNER_MAX];
            store
                .keep(now, kept(owner, place(n), Standing::Granted))
                .unwrap();
        }
        let late = owners.claim();
        let far = store.keep(now, kept(&late, place(RECORDS_MAX), Standing::Granted));
        assert!(matches!(far, Err(Refused::Full)));
        store.keep(now, kept(&late, 1, Standing::Granted)).unwrap();
        assert_eq!(store.len(), RECORDS_MAX);
        assert!(store.get(&key(place(RECORDS_MAX - 1))).is_none());
        // What has ended makes room first.
        let later = now + MINUTE;
        store
            .keep(later, kept(&late, 2, Standing::Granted))
            .unwrap();
        assert_eq!(store.len(), 1);
    }
}
