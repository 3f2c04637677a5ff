//! Time in windows: within one no site can reach another, so sites run in any order, and on any thread.
//!
//! A window begins with the earliest event anywhere and is as long as a datagram takes at least from
//! one domain to another: what is sent within it arrives after it. That is what makes a run the same
//! whatever the number of threads (Chandy and Misra's conservative simulation, with a barrier).

use std::any::Any;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};

use wow_overlay::time::Instant;

use super::site::{Letter, Site, Surroundings};
use crate::machine::{Machine, Population};
use crate::network::Edge;

/// No event is ever due then.
const NEVER: u64 = u64::MAX;

/// Lets everything happen at `sites` that is due until `until`, on `threads` threads. A panic comes
/// through.
pub(super) fn run<P: Population>(
    threads: usize,
    around: &Surroundings<'_, P>,
    edges: &mut [Edge],
    sites: &mut [Site<P::Machine>],
    until: Instant,
) {
    let earliest = sites.iter().filter_map(Site::next_due).min();
    let Some(earliest) = earliest.filter(|due| *due <= until) else {
        return;
    };
    let shared = Shared {
        slots: sites.iter_mut().zip(edges).map(Slot::new).collect(),
        earliest: earliest.as_micros(),
        until: until.as_micros(),
        window: u64::try_from(around.map.lookahead().as_micros()).unwrap_or(NEVER),
        rounds: [Round::new(threads), Round::new(threads)],
        barrier: Barrier::new(threads),
        panicked: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for worker in 1..threads {
            let shared = &shared;
            scope.spawn(move || shared.work(worker, threads, around));
        }
        shared.work(0, threads, around);
    });
    if let Some((_, panic)) = shared
        .panicked
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        resume_unwind(panic);
    }
}

/// A site, and when something is due there.
struct Slot<'a, M> {
    due: AtomicU64,
    site: Mutex<(&'a mut Site<M>, &'a mut Edge)>,
}

impl<'a, M: Machine> Slot<'a, M> {
    fn new(site: (&'a mut Site<M>, &'a mut Edge)) -> Self {
        Slot {
            due: AtomicU64::new(micros(site.0.next_due())),
            site: Mutex::new(site),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (&'a mut Site<M>, &'a mut Edge)> {
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What workers tell each other in a window. There are two, by turns: one is read while the other is
/// written.
struct Round {
    /// Of each worker's sites, how many have been taken up.
    taken: Vec<AtomicUsize>,
    /// The earliest event that each worker knows of, after the window.
    earliest: Vec<AtomicU64>,
    /// Somebody panicked.
    failed: AtomicBool,
}

impl Round {
    fn new(threads: usize) -> Self {
        Round {
            taken: iter::repeat_with(AtomicUsize::default)
                .take(threads)
                .collect(),
            earliest: iter::repeat_with(AtomicU64::default)
                .take(threads)
                .collect(),
            failed: AtomicBool::new(false),
        }
    }
}

struct Shared<'a, M> {
    slots: Vec<Slot<'a, M>>,
    /// When the first window begins.
    earliest: u64,
    until: u64,
    window: u64,
    rounds: [Round; 2],
    barrier: Barrier,
    /// The panic at the first site that had one.
    panicked: Mutex<Option<(usize, Box<dyn Any + Send>)>>,
}

impl<M: Machine> Shared<'_, M> {
    fn work<P: Population<Machine = M>>(
        &self,
        worker: usize,
        threads: usize,
        around: &Surroundings<'_, P>,
    ) {
        let mut earliest = self.earliest;
        let mut letters = Vec::new();
        for turn in 0.. {
            if earliest > self.until {
                return;
            }
            let last = self.until.min(earliest.saturating_add(self.window) - 1);
            let (round, next) = (&self.rounds[turn % 2], &self.rounds[(turn + 1) % 2]);
            next.taken[worker].store(0, Ordering::Relaxed);
            let mut known = NEVER;
            // Its own sites first, as their memory is near; then what others have not come to.
            for owner in (worker..threads).chain(0..worker) {
                loop {
                    let n = round.taken[owner].fetch_add(1, Ordering::Relaxed);
                    let site = n * threads + owner;
                    let Some(slot) = self.slots.get(site) else {
                        break;
                    };
                    let mut due = slot.due.load(Ordering::Relaxed);
                    if due <= last {
                        due = self.run_site(site, round, around, last, &mut letters);
                    }
                    known = known.min(due);
                }
            }
            for letter in letters.drain(..) {
                known = known.min(letter.at.as_micros());
                self.deliver(letter);
            }
            round.earliest[worker].store(known, Ordering::Relaxed);
            self.barrier.wait();
            if round.failed.load(Ordering::Relaxed) {
                return;
            }
            let earliests = round.earliest.iter();
            let earliests = earliests.map(|earliest| earliest.load(Ordering::Relaxed));
            earliest = earliests.min().unwrap_or(NEVER);
        }
    }

    /// Runs a site to the end of the window. Returns when something is due there next.
    fn run_site<P: Population<Machine = M>>(
        &self,
        site: usize,
        round: &Round,
        around: &Surroundings<'_, P>,
        last: u64,
        letters: &mut Vec<Letter>,
    ) -> u64 {
        let slot = &self.slots[site];
        let mut locked = slot.lock();
        let (here, edge) = &mut *locked;
        let last = Instant::from_micros(last);
        let run = AssertUnwindSafe(|| here.run_until(around, edge, last, letters));
        if let Err(panic) = catch_unwind(run) {
            round.failed.store(true, Ordering::Relaxed);
            let panicked = self.panicked.lock();
            let mut panicked = panicked.unwrap_or_else(PoisonError::into_inner);
            if panicked.as_ref().is_none_or(|(first, _)| site < *first) {
                *panicked = Some((site, panic));
            }
        }
        let due = micros(here.next_due());
        slot.due.store(due, Ordering::Relaxed);
        due
    }

    /// What arrives is due after the window, so the site may have come to it or not.
    fn deliver(&self, letter: Letter) {
        let slot = &self.slots[letter.domain];
        let mut locked = slot.lock();
        slot.due.fetch_min(letter.at.as_micros(), Ordering::Relaxed);
        locked.0.take(letter);
    }
}

fn micros(due: Option<Instant>) -> u64 {
    due.map_or(NEVER, Instant::as_micros)
}
