//! The simulator's rules, on toys: a sound pool passes, and each flaw breaks its rule.

use super::*;
use crate::sweep::sweep;
use crate::toy::{Flaw, ToyPopulation};

fn play(scenario: &Scenario, flaw: Flaw) -> Report {
    play_on(1, scenario, flaw)
}

fn play_on(threads: usize, scenario: &Scenario, flaw: Flaw) -> Report {
    run(scenario, threads, |rng| {
        ToyPopulation::new(rng, scenario.nodes, flaw)
    })
}

fn scenario(seed: u64, faults: &str) -> Scenario {
    Scenario {
        faults: faults.parse().unwrap(),
        limit: Duration::from_secs(20),
        ..Scenario::new(30, seed)
    }
}

/// The first rule that `flaw` breaks.
fn broken(flaw: Flaw, faults: &str) -> &'static str {
    let report = play(&scenario(3, faults), flaw);
    assert!(!report.passed);
    report.violations[0].rule
}

#[test]
fn a_sound_pool_passes_under_every_fault() {
    for faults in [
        "",
        "loss=5%,dup=2%,jitter=50ms,kill=20%",
        "loss=5%,stop=10%@4s,restart=20%:3s",
        "partition=50%:5s,storm=30%@2s:5s,churn=5%:5s,rebind=50%",
        "pause=30%:5s,move=30%,pause=10%@2s:5s,move=10%@4s",
        "revoke=10%,pause=30%:5s,revoke=5%@14s,churn=5%:5s",
    ] {
        let report = play(&scenario(1, faults), Flaw::None);
        assert!(report.passed, "{report}");
        assert!(report.guest.delivered >= 30, "{report}");
        assert_eq!(report.healed_s.is_some(), !faults.is_empty());
    }
}

#[test]
fn a_killed_share_is_gone_and_a_restarted_one_is_back() {
    let killed = play(&scenario(1, "kill=20%"), Flaw::None);
    assert_eq!(killed.peers.count, 24);
    let restarted = play(&scenario(1, "restart=20%:2s"), Flaw::None);
    assert_eq!(restarted.peers.count, 30);
}

#[test]
fn the_revoked_are_no_part_of_the_ring_and_do_not_start_again() {
    let revoked = play(&scenario(1, "revoke=20%,churn=10%:5s"), Flaw::None);
    assert!(revoked.passed, "{revoked}");
    assert!(revoked.peers.count <= 24, "{revoked}");
    assert!(revoked.cut_off_s.is_some_and(|took| took < 1.0));
}

#[test]
fn the_same_scenario_gives_the_same_run_and_another_seed_another() {
    let text = "loss=5%,dup=2%,jitter=50ms,kill=20%,churn=5%:3s";
    let first = play(&scenario(1, text), Flaw::None);
    assert_eq!(first, play(&scenario(1, text), Flaw::None));
    assert_ne!(first.trace, play(&scenario(2, text), Flaw::None).trace);
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for faults in [
        "loss=5%,dup=2%,jitter=50ms,kill=20%,churn=5%:3s",
        "partition=50%:5s,storm=30%@2s:5s,restart=20%:3s,rebind=50%",
        "pause=30%:5s,move=30%,stop=10%@2s,move=10%@4s",
    ] {
        let alone = play_on(1, &scenario(1, faults), Flaw::None);
        for threads in [2, 3, 8] {
            assert_eq!(play_on(threads, &scenario(1, faults), Flaw::None), alone);
        }
    }
    for flaw in [Flaw::Misdelivers, Flaw::IsStuck, Flaw::Swells] {
        let alone = play_on(1, &scenario(3, ""), flaw);
        assert_eq!(play_on(2, &scenario(3, ""), flaw), alone);
    }
}

#[test]
fn a_panic_on_any_thread_fails_the_run_alike() {
    let panicked = |threads| {
        let report = sweep(&[scenario(3, "")], 1, |scenario| {
            play_on(threads, scenario, Flaw::Panics)
        });
        assert_eq!(report[0].violations[0].rule, "nothing panics");
        report
    };
    assert_eq!(panicked(2), panicked(1));
}

#[test]
fn each_flaw_breaks_its_rule() {
    let ring = "one consistent ring forms";
    assert_eq!(broken(Flaw::ForgetsANeighbour, ""), ring);
    assert_eq!(
        broken(Flaw::Misdelivers, ""),
        "guest packets reach their destination only"
    );
    assert_eq!(broken(Flaw::Alters, ""), "guest packets arrive as sent");
    assert_eq!(
        broken(Flaw::ResolvesWrongly, ""),
        "addresses resolve to their holder"
    );
    assert_eq!(broken(Flaw::IsStuck, ""), "deadlines progress");
    assert_eq!(broken(Flaw::Swells, ""), "datagrams fit the network");
    assert_eq!(broken(Flaw::Hoards, ""), "tables are bounded");
    assert_eq!(
        broken(Flaw::Remembers, "kill=10%"),
        "sessions end with their nodes"
    );
    let unique = "an address has one holder";
    assert_eq!(broken(Flaw::SharesAnAddress, ""), unique);
    let revoked = "nobody has a session with the revoked";
    assert_eq!(broken(Flaw::KeepsTheRevoked, "revoke=10%"), revoked);
    let found = "nobody finds the revoked";
    assert_eq!(broken(Flaw::FindsTheRevoked, "revoke=10%"), found);
    let heard = "nobody hears the revoked";
    assert_eq!(broken(Flaw::HearsTheRevoked, "revoke=10%"), heard);
    let panicked = sweep(&[scenario(3, "")], 1, |scenario| {
        play(scenario, Flaw::Panics)
    });
    assert_eq!(panicked[0].violations[0].rule, "nothing panics");
    assert!(panicked[0].command.contains("--seed 3"));
}

#[test]
fn pools_of_one_and_two_are_rings() {
    for nodes in [1, 2, 3] {
        let report = play(&Scenario::new(nodes, 1), Flaw::None);
        assert!(report.passed, "{report}");
    }
}
