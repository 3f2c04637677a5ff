//! Deciding who gets a key: the closest node asks its near neighbours, and most must promise it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::NodeId;
use crate::time::Instant;
use crate::wire::frame::RoutedHeader;
use crate::wire::message::{Control, Finding, Vote};
use crate::wire::record::{Key, Record};

use super::super::Node;
use super::super::answers::Asker;
use super::store::{Refused, Standing};
use super::{LIFETIME, Verified};

/// Claims that are voted on at once.
const GRANTS_MAX: usize = 256;
/// How long votes are waited for.
const PATIENCE: Duration = Duration::from_millis(800);
/// How long a key is kept free for a claimant that most have not yet promised it to.
const PROMISE: Duration = Duration::from_secs(3);

/// How long a key is given to the next claimant without a vote.
const VACANCY: Duration = Duration::from_secs(30);

struct Grant {
    verified: Verified,
    asker: Asker,
    /// Those who have not voted yet.
    voters: BTreeSet<NodeId>,
    yes: usize,
    needed: usize,
    due: Instant,
}

/// The claims that are voted on.
#[derive(Default)]
pub(in super::super) struct Grants {
    open: BTreeMap<u64, Grant>,
    /// Keys whose holders were found to be gone, and until when that counts. Copies of their records
    /// still live, so these keys are not voted on.
    vacant: BTreeMap<Key, Instant>,
}

impl Grants {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().map(|grant| grant.due).min()
    }

    /// The holder of a key is gone.
    pub(super) fn vacate(&mut self, now: Instant, key: Key) {
        self.vacant.retain(|_, until| *until > now);
        if self.vacant.len() < GRANTS_MAX {
            self.vacant.insert(key, now + VACANCY);
        }
    }

    pub(super) fn is_vacant(&self, now: Instant, key: &Key) -> bool {
        self.vacant.get(key).is_some_and(|until| *until > now)
    }
}

impl Node {
    /// A claim ended here: we are the closest node to its key.
    pub(in super::super) fn handle_claim(
        &mut self,
        now: Instant,
        header: &RoutedHeader,
        token: u64,
        record: Record,
    ) {
        let Some(verified) = self.verify_record(now, record) else {
            return;
        };
        let asker = Asker::new(header, token);
        if verified.owner() != asker.source {
            self.counters.drop_message += 1;
            return;
        }
        if verified.claim.lifetime_s == 0 {
            self.dht.store.withdraw(now, &verified);
            return self.tell_withdrawal(now, &verified.record);
        }
        let held = self.dht.store.live(now, &verified.claim.key);
        match held {
            Some(held) if held.verified.owner() == verified.owner() => {
                let is_granted = held.standing == Standing::Granted;
                let is_stale = held.verified.claim.sequence > verified.claim.sequence;
                if is_stale {
                    let finding = Finding::Record(held.verified.record.clone());
                    self.answer(now, asker, finding);
                } else if is_granted {
                    self.grant(now, verified, asker);
                } else {
                    self.put_to_vote(now, verified, asker);
                }
            }
            Some(held) if !verified.precedes(&held.verified) => {
                let finding = match held.standing {
                    Standing::Granted => Finding::Record(held.verified.record.clone()),
                    Standing::Promised => Finding::Undecided,
                };
                let (key, holder) = (verified.claim.key.clone(), held.verified.owner());
                // A name, or an address that both were given, is not kept for a node that is gone.
                let may_fall = matches!(key, Key::Name(_)) || verified.is_fixed();
                if may_fall && held.standing == Standing::Granted {
                    self.look_for_absentee(now, key, holder);
                }
                self.answer(now, asker, finding);
            }
            None if self.dht.grants.is_vacant(now, &verified.claim.key) => {
                self.grant(now, verified, asker);
            }
            _ => self.put_to_vote(now, verified, asker),
        }
    }

    fn put_to_vote(&mut self, now: Instant, verified: Verified, asker: Asker) {
        let key = &verified.claim.key;
        let mut open = self.dht.grants.open.values_mut();
        if let Some(grant) = open.find(|grant| grant.verified.claim.key == *key) {
            // Asked again before the votes were counted.
            if grant.verified.owner() == verified.owner() {
                grant.asker = asker;
            }
            return;
        }
        if self.dht.grants.open.len() >= GRANTS_MAX {
            self.counters.drop_full += 1;
            return self.answer(now, asker, Finding::Undecided);
        }
        let promised = self.keep(now, verified.clone(), now + PROMISE, Standing::Promised);
        if promised.is_err() {
            return self.answer(now, asker, Finding::Undecided);
        }
        let voters: BTreeSet<_> = self.ring.near.iter().collect();
        let grant = Grant {
            verified,
            asker,
            // Ourselves.
            yes: 1,
            // More than half of them and us.
            needed: voters.len().div_ceil(2) + 1,
            voters,
            due: now + PATIENCE,
        };
        let token = self.token();
        for id in &grant.voters {
            let message = Control::Vote {
                token,
                record: grant.verified.record.clone(),
            };
            self.send_control(now, *id, &message);
        }
        self.dht.grants.open.insert(token, grant);
        self.count_votes(now, token);
    }

    /// A neighbour that decides on a key asks for our promise.
    pub(in super::super) fn handle_vote(
        &mut self,
        now: Instant,
        from: NodeId,
        token: u64,
        record: Record,
    ) {
        let Some(verified) = self.verify_record(now, record) else {
            return;
        };
        let key = verified.claim.key.clone();
        let vote = match self.keep(now, verified, now + PROMISE, Standing::Promised) {
            Ok(()) => Vote::Yes,
            Err(Refused::Held(_)) => match self.dht.store.granted(now, &key) {
                Some(held) => Vote::Held(held.verified.record.clone()),
                None => Vote::No,
            },
            Err(Refused::Stale | Refused::Full) => Vote::No,
        };
        self.send_control(now, from, &Control::Voted { token, vote });
    }

    /// A neighbour voted.
    pub(in super::super) fn handle_voted(
        &mut self,
        now: Instant,
        from: NodeId,
        token: u64,
        vote: Vote,
    ) {
        let Some(grant) = self.dht.grants.open.get_mut(&token) else {
            return;
        };
        if !grant.voters.remove(&from) {
            return;
        }
        match vote {
            Vote::Yes => grant.yes += 1,
            Vote::No => {}
            Vote::Held(record) => {
                let (key, owner) = (grant.verified.claim.key.clone(), grant.verified.owner());
                let held = self.verify_record(now, record);
                let held = held.filter(|held| held.claim.key == key && held.owner() != owner);
                match held {
                    // The voter has not heard of its end.
                    Some(held) if self.dht.store.is_withdrawn(now, &held) => {
                        if let Some(grant) = self.dht.grants.open.get_mut(&token) {
                            grant.yes += 1;
                        }
                    }
                    Some(held) => return self.yield_to(now, token, held),
                    None => {}
                }
            }
        }
        self.count_votes(now, token);
    }

    /// A neighbour knows of a holder that we had not heard of.
    fn yield_to(&mut self, now: Instant, token: u64, held: Verified) {
        let Some(grant) = self.dht.grants.open.remove(&token) else {
            return;
        };
        let finding = Finding::Record(held.record.clone());
        let until = now + held.claim.lifetime();
        // Without room for it the next vote will tell again.
        let _ = self.keep(now, held, until, Standing::Granted);
        self.answer(now, grant.asker, finding);
    }

    fn count_votes(&mut self, now: Instant, token: u64) {
        let Some(grant) = self.dht.grants.open.get(&token) else {
            return;
        };
        if grant.yes >= grant.needed {
            if let Some(grant) = self.dht.grants.open.remove(&token) {
                self.grant(now, grant.verified, grant.asker);
            }
        } else if grant.yes + grant.voters.len() < grant.needed {
            self.refuse(now, token);
        }
    }

    fn grant(&mut self, now: Instant, verified: Verified, asker: Asker) {
        let key = verified.claim.key.clone();
        let lifetime = verified.claim.lifetime().min(LIFETIME);
        let finding = match self.keep(now, verified, now + lifetime, Standing::Granted) {
            Ok(()) => {
                self.dht.store.note_decided(now, &key);
                self.replicate(now, &key);
                Finding::Granted
            }
            Err(_) => Finding::Undecided,
        };
        self.answer(now, asker, finding);
    }

    /// Most did not promise the key.
    fn refuse(&mut self, now: Instant, token: u64) {
        if let Some(grant) = self.dht.grants.open.remove(&token) {
            self.dht.store.break_promise(&grant.verified.claim.key);
            self.answer(now, grant.asker, Finding::Undecided);
        }
    }

    pub(super) fn maintain_grants(&mut self, now: Instant) {
        let due = self
            .dht
            .grants
            .open
            .iter()
            .filter(|(_, grant)| grant.due <= now);
        for token in due.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.refuse(now, token);
        }
    }
}
