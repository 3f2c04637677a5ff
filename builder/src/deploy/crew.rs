//! Several hosts at once: threads that take the next host from the list when they are done with one.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::outcome::{Ended, Outcome};
use super::{Event, Plan, Watch, session};

/// Does what `plan` says; an outcome a host, in the list's order. Once `stopped` says so, connections are
/// closed and no others opened.
pub fn run(plan: &Plan, watch: &Watch<'_>, stopped: &(dyn Fn() -> bool + Sync)) -> Vec<Outcome> {
    let order = plan.action.order(plan.limits.join);
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(vec![None; plan.targets.len()]);
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(target) = plan.targets.get(index) else {
                return;
            };
            if stopped() {
                return;
            }
            watch(Event::Began(target));
            let outcome = session::run(plan, &order, target, watch, stopped);
            watch(Event::Ended(target, &outcome));
            outcomes.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..plan.parallel.clamp(1, plan.targets.len().max(1)) {
            scope.spawn(work);
        }
    });
    let outcomes = outcomes
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    let missing = |target| Outcome::new(target, Ended::NotTried);
    let both = outcomes.into_iter().zip(&plan.targets);
    both.map(|(outcome, target)| outcome.unwrap_or_else(|| missing(target)))
        .collect()
}
