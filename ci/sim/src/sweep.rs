//! Many runs, several at a time; they share nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::report::Report;
use crate::scenario::Scenario;
use crate::world::Violation;

/// Runs all of `scenarios`, `threads` at a time, and returns their reports in the same order. A
/// run that panics is a run that failed.
pub fn sweep(
    scenarios: &[Scenario],
    threads: usize,
    run: impl Fn(&Scenario) -> Report + Sync,
) -> Vec<Report> {
    let next = AtomicUsize::new(0);
    let reports: Mutex<Vec<Option<Report>>> = Mutex::new(vec![None; scenarios.len()]);
    if let [scenario] = scenarios {
        return vec![guarded(scenario, &run)];
    }
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, scenarios.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(scenario) = scenarios.get(n) else {
                        break;
                    };
                    let report = guarded(scenario, &run);
                    let mut reports = reports.lock().unwrap_or_else(PoisonError::into_inner);
                    reports[n] = Some(report);
                }
            });
        }
    });
    let reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.into_iter().flatten().collect()
}

fn guarded(scenario: &Scenario, run: impl Fn(&Scenario) -> Report) -> Report {
    catch_unwind(AssertUnwindSafe(|| run(scenario))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied())
            .unwrap_or("with something else than a text");
        Report {
            command: scenario.command(),
            nodes: scenario.nodes,
            seed: scenario.seed,
            violations: vec![Violation {
                at_s: 0.0,
                rule: "nothing panics",
                detail: text.to_owned(),
            }],
            ..Report::default()
        }
    })
}

/// Parses seeds written as `1-20`, `3` or `1-5,9,100-120`, at most `max` of them.
pub fn parse_seeds(text: &str, max: usize) -> Result<Vec<u64>, String> {
    let mut seeds = Vec::new();
    for part in text.split(',') {
        let complaint = || format!("`{part}`: write seeds as 3, or 1-20, or 1-5,9");
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: u64 = first.trim().parse().map_err(|_| complaint())?;
        let last: u64 = last.trim().parse().map_err(|_| complaint())?;
        if first > last {
            return Err(complaint());
        }
        for seed in first..=last {
            if seeds.len() >= max {
                return Err(format!("`{text}` names more than {max} seeds"));
            }
            seeds.push(seed);
        }
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_lists_of_numbers_and_ranges() {
        assert_eq!(parse_seeds("3", 10), Ok(vec![3]));
        assert_eq!(parse_seeds("1-3,9", 10), Ok(vec![1, 2, 3, 9]));
        for text in ["", "a", "3-1", "1-", "1-11", "0-18446744073709551615"] {
            assert!(parse_seeds(text, 10).is_err(), "{text}");
        }
    }

    #[test]
    fn reports_keep_the_order_and_a_panic_is_a_failure() {
        let scenarios: Vec<_> = (0..8).map(|seed| Scenario::new(1, seed)).collect();
        let reports = sweep(&scenarios, 3, |scenario| {
            assert_ne!(scenario.seed, 5, "a broken invariant");
            Report {
                seed: scenario.seed,
                passed: true,
                ..Report::default()
            }
        });
        let seeds: Vec<u64> = reports.iter().map(|report| report.seed).collect();
        assert_eq!(seeds, (0..8).collect::<Vec<_>>());
        for report in reports {
            assert_eq!(report.passed, report.seed != 5);
        }
    }
}
