//! Two hundred production nodes form one ring, whatever the network does, on every seed.
//!
//! `WOW_SIM_SEEDS` (as in `1-20` or `7,9`) replaces the seeds.

use std::time::Duration;

use wow_sim::crypto::Crypto;
use wow_sim::faults::Faults;
use wow_sim::production::simulate;
use wow_sim::report::Report;
use wow_sim::scenario::Scenario;
use wow_sim::sweep::{parse_seeds, sweep};

const NODES: usize = 200;
const SEEDS: &str = "1-8";
const SEEDS_MAX: usize = 10_000;

fn seeds() -> Vec<u64> {
    let text = std::env::var("WOW_SIM_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
    parse_seeds(&text, SEEDS_MAX).expect("WOW_SIM_SEEDS names seeds")
}

/// Runs every seed under `faults`, and says what failed and how to see it again.
fn check(nodes: usize, seeds: &[u64], faults: &str, nat: &str) -> Vec<Report> {
    check_all(seeds.iter().map(|seed| Scenario {
        faults: faults.parse().expect("the schedule is valid"),
        nat: nat.parse().expect("the mix is valid"),
        idle: Duration::ZERO,
        ..Scenario::new(nodes, *seed)
    }))
}

fn check_all(scenarios: impl IntoIterator<Item = Scenario>) -> Vec<Report> {
    let scenarios: Vec<Scenario> = scenarios.into_iter().collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let reports = sweep(&scenarios, threads, |scenario| simulate(scenario, 1));
    let mut failed = String::new();
    for report in reports.iter().filter(|report| !report.passed) {
        failed.push_str(&format!("{report}\nreproduce: {}\n\n", report.command));
    }
    assert!(failed.is_empty(), "\n{failed}");
    reports
}

#[test]
fn a_clean_network_forms_one_ring() {
    for report in check(NODES, &seeds(), "", "none") {
        assert_eq!(report.guest.duplicates, 0, "{report}");
        assert_eq!(report.probes.packets_repeated, 0, "{report}");
    }
}

#[test]
fn a_lossy_network_forms_one_ring_and_heals_it_when_a_fifth_is_killed() {
    check(NODES, &seeds(), "loss=5%,kill=20%", "none");
}

#[test]
fn domains_behind_port_restricted_translators_form_one_ring() {
    let seeds: Vec<u64> = seeds().into_iter().take(5).collect();
    check(
        60,
        &seeds,
        "loss=1%,jitter=20ms,dup=1%",
        "none=1,port-restricted=3",
    );
}

#[test]
fn neighbours_that_cannot_meet_find_a_common_relay() {
    let seeds: Vec<u64> = seeds().into_iter().take(3).collect();
    check(100, &seeds, "", "none=1,port-restricted=3,symmetric=6");
    let mix = "none=1,restricted=1,port-restricted=3,symmetric=2";
    check(60, &seeds, "loss=2%,kill=20%", mix);
}

#[test]
fn neighbours_that_nobody_near_can_relay_for_take_a_public_relay() {
    // Of seed 3 two neighbours had no node in common that either knew of, for a minute.
    let seeds: Vec<u64> = seeds().into_iter().skip(2).take(1).collect();
    let mix = "none=1,port-restricted=3,symmetric=1";
    for report in check(150, &seeds, "loss=1%", mix) {
        assert!(report.formed_s.is_some_and(|took| took <= 30.0), "{report}");
    }
}

#[test]
fn every_address_has_one_holder_again_and_no_revoked_node_a_session() {
    let seeds: Vec<u64> = seeds().into_iter().take(2).collect();
    let crowded = |faults: &str| {
        let faults: Faults = faults.parse().expect("the schedule is valid");
        move |seed: &u64| Scenario {
            faults: faults.clone(),
            nat: "none=1,port-restricted=3"
                .parse()
                .expect("the mix is valid"),
            idle: Duration::ZERO,
            crypto: Crypto::StandIn,
            prefix: 25,
            ..Scenario::new(60, *seed)
        }
    };
    check_all(seeds.iter().map(crowded("loss=1%,churn=3%:20s,revoke=4%")));
    check_all(
        seeds
            .iter()
            .map(crowded("partition=50%:240s,restart=30%:20s,revoke=3%@100s")),
    );
    for report in check(150, &seeds, "revoke=0.5%", "none") {
        assert!(report.cut_off_s.is_some_and(|took| took <= 5.0), "{report}");
    }
}

#[test]
fn a_ring_cut_in_halves_is_one_again_within_ten_seconds() {
    let scenario = Scenario {
        crypto: Crypto::StandIn,
        ..Scenario::new(300, 1)
    };
    for report in check_all([Scenario {
        faults: "partition=50%:30s".parse().expect("the schedule is valid"),
        ..scenario
    }]) {
        assert!(report.healed_s.is_some_and(|took| took <= 10.0), "{report}");
        assert!(report.hops.mean <= 3.5, "{report}");
        assert!(report.idle_bytes_per_s.mean <= 1000.0, "{report}");
    }
}

#[test]
fn nodes_that_are_paused_or_move_come_back() {
    let seeds: Vec<u64> = seeds().into_iter().take(3).collect();
    let mix = "none=1,port-restricted=2";
    check(60, &seeds, "loss=1%,pause=20%:40s,move=20%", mix);
    check(60, &seeds, "pause=30%:3s,move=10%@20s,dup=1%", "none");
}

#[test]
fn a_run_is_the_same_on_any_number_of_threads() {
    for (faults, nat) in [
        (
            "loss=5%,dup=2%,jitter=30ms,kill=20%,rebind=50%",
            "none,full-cone,port-restricted,symmetric",
        ),
        ("pause=20%:5s,move=20%,churn=5%:3s", "none=1,udp-blocked=1"),
        ("partition=50%:5s,storm=20%@3s:3s,restart=10%:3s", "none"),
    ] {
        let scenario = Scenario {
            faults: faults.parse().expect("the schedule is valid"),
            nat: nat.parse().expect("the mix is valid"),
            idle: Duration::from_secs(1),
            crypto: Crypto::StandIn,
            ..Scenario::new(60, 3)
        };
        let alone = simulate(&scenario, 1);
        assert!(alone.passed, "{alone}");
        assert_eq!(simulate(&scenario, 2), alone);
    }
}

#[test]
fn two_runs_of_one_scenario_are_the_same_run() {
    let text = "loss=5%,dup=2%,jitter=30ms,kill=20%";
    let first = check(40, &[7], text, "none,full-cone,port-restricted");
    let second = check(40, &[7], text, "none,full-cone,port-restricted");
    assert_eq!(first, second);
    let other = check(40, &[8], text, "none,full-cone,port-restricted");
    assert_ne!(first[0].trace, other[0].trace);
}
