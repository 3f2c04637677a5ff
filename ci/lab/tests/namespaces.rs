//! Real routers in network namespaces behind emulated NATs form a pool and carry their hosts'
//! packets. Run by `cargo xtask test`, as root.

mod support;

use std::time::Duration;

use wow_lab::moves::Trouble;
use wow_lab::namespaces::NamespaceTestbed;
use wow_lab::progress::Progress;
use wow_lab::report::{join_table, moves_table};
use wow_lab::report::{nodes_table, pairs_table};
use wow_lab::topology::Topology;
use wow_lab::{Tools, experiment, interrupt, join, members, moves, planet};

use support::path;

const JOIN_LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_failure_is_told_although_a_backtrace_is_asked_for() {
    // What is released has no tables to make one by.
    let mut command = std::process::Command::new(path("WOW_TEST_WOW"));
    command
        .args(["--socket", "/nonexistent/wow", "status"])
        .env("RUST_BACKTRACE", "1");
    let said = command.output().unwrap();
    let error = String::from_utf8_lossy(&said.stderr);
    assert_eq!(said.status.code(), Some(1), "{error}");
    assert!(error.contains("/nonexistent/wow"), "{error}");
}

fn tools() -> Tools {
    interrupt::install().unwrap();
    support::tools()
}

fn check(name: &str, domains: u8) {
    let tools = tools();
    let logs = path("WOW_TEST_LOGS").join(name);
    let topology = Topology::seed_and_nated(domains);
    let mut bed = NamespaceTestbed::start(&tools, &topology, &logs).unwrap();
    let nodes = bed.nodes().to_vec();
    let joined =
        experiment::join(&nodes, JOIN_LIMIT, &|_| (), &mut || bed.check_running()).unwrap();
    let pairs = experiment::ping_all(&nodes, &joined, 3, &|_| ()).unwrap();
    let count = usize::from(domains) + 1;
    assert_eq!(pairs.len(), count * (count - 1));
    println!("{}\n{}", nodes_table(&joined), pairs_table(&pairs));
    assert!(
        pairs.iter().all(|pair| pair.answered()),
        "logs: {}",
        bed.logs().display()
    );
    // Port-restricted cones let every pair punch through.
    assert!(
        pairs.iter().all(|pair| pair.is_direct()),
        "logs: {}",
        bed.logs().display()
    );
    bed.check_running().unwrap();
}

#[test]
fn three_domains_behind_nats_reach_each_other() {
    check("namespaces", 3);
}

#[test]
fn routers_go_on_without_their_seed() {
    let tools = tools();
    let logs = path("WOW_TEST_LOGS").join("without-seed");
    let topology = Topology::seed_and_nated(3);
    let mut bed = NamespaceTestbed::start(&tools, &topology, &logs).unwrap();
    let nodes = bed.nodes().to_vec();
    let joined =
        experiment::join(&nodes, JOIN_LIMIT, &|_| (), &mut || bed.check_running()).unwrap();
    bed.kill("seed").unwrap();
    // Direct paths through both NATs carry on; a lost neighbour is healed around.
    let rest = bed.nodes().to_vec();
    let known: Vec<_> = joined
        .into_iter()
        .filter(|joined| joined.name != "seed")
        .collect();
    wow_lab::command::wait_until("everyone answers without the seed", JOIN_LIMIT, || {
        let pairs = experiment::ping_all(&rest, &known, 1, &|_| ())?;
        Ok(pairs.iter().all(|pair| pair.answered()).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}; logs: {}", bed.logs().display()));
}

/// A small form of the paper's testbed: 12 public routers, one node in each of the six domains.
fn small_planet(name: &str) -> (NamespaceTestbed, Vec<members::Member>) {
    let topology = planet::topology(12, 6, 1).unwrap();
    let logs = path("WOW_TEST_LOGS").join(name);
    let mut bed = NamespaceTestbed::prepare(&tools(), &topology, &logs).unwrap();
    let task = Progress::to_stderr().start("testbed");
    let members = members::start(&mut bed, &task).unwrap();
    (bed, members)
}

#[test]
fn fresh_nodes_become_routable_and_meet_directly_where_theory_allows() {
    let (mut bed, members) = small_planet("join");
    let plan = join::Plan {
        trials: 6,
        parallel: 2,
        seed: 1,
    };
    let lanes = join::lanes(&bed).unwrap();
    let task = Progress::to_stderr().start("trials");
    let outcome = join::run(&plan, &lanes, &members, &task).unwrap();
    println!("{}", join_table(&outcome));
    let missing = outcome.routable.missing + outcome.direct.missing;
    assert_eq!(missing, 0, "logs: {}", bed.logs().display());
    bed.check_running().unwrap();
}

#[test]
fn tcp_goes_on_when_its_node_moves_and_when_the_direct_path_is_cut() {
    let (mut bed, members) = small_planet("move");
    let task = Progress::to_stderr().start("moves");
    for trouble in [Trouble::Move, Trouble::Cut] {
        let plan = moves::Plan {
            count: 1,
            trouble,
            seed: 1,
        };
        let outcome = moves::run(&plan, &mut bed, &members, &task).unwrap();
        println!("{}", moves_table(&outcome));
        assert_eq!(
            outcome.stall.missing,
            0,
            "{trouble:?}, logs: {}",
            bed.logs().display()
        );
    }
    bed.check_running().unwrap();
}
