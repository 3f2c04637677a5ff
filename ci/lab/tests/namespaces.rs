//! Real routers in network namespaces behind emulated NATs form a pool and carry their hosts'
//! packets. Run by `cargo xtask test`, as root.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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

/// What a server answers to a question from inside a namespace: alarm, stratum, and by how many seconds its clock is
/// off this one's.
fn ask_time(space: &str, server: IpAddr) -> Option<(u8, u8, f64)> {
    const NTP_TO_UNIX: f64 = 2_208_988_800.0;
    let asked = wow_lab::inside::spawn(space, move || {
        let any: IpAddr = match server {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.connect((server, 123))?;
        let mut question = [0; 48];
        question[0] = 4 << 3 | 3;
        question[40..].copy_from_slice(b"a number");
        socket.send(&question)?;
        let mut answer = [0; 100];
        let length = socket.recv(&mut answer)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        anyhow::ensure!(length == question.len(), "{length} bytes");
        anyhow::ensure!(answer[24..32] == question[40..], "another's answer");
        let sent = u64::from_be_bytes(answer[40..48].try_into()?);
        let time = sent as f64 / 2f64.powi(32) - NTP_TO_UNIX;
        Ok((answer[0] >> 6, answer[1], time - now))
    });
    asked.unwrap().join().unwrap().ok()
}

#[test]
fn members_and_their_hosts_get_a_nodes_time_and_what_it_is_worth() {
    let tools = tools();
    let logs = path("WOW_TEST_LOGS").join("time");
    let topology = Topology::seed_and_nated(2);
    let bed = NamespaceTestbed::prepare(&tools, &topology, &logs).unwrap();
    let gives = ["always", "host", "never"];
    let started = gives.iter().enumerate().map(|(place, give)| {
        let name = &topology.places[place].name;
        let options = ["--give-time", give];
        bed.launcher(place).launch_with(name, &options).unwrap()
    });
    let (routers, nodes): (Vec<_>, Vec<_>) = started.unzip();
    experiment::join(&nodes, JOIN_LIMIT, &|_| (), &mut || Ok(())).unwrap();
    let status = |node: usize| nodes[node].client.raw_status().unwrap();
    // Whether this very kernel's clock is kept is the host's to say.
    let kept = status(1)["clock"]["stratum"].as_u64();
    let expected = [Some((0, 3)), Some(kept.map_or((3, 0), |_| (0, 3))), None];
    let control: IpAddr = "10.128.0.1".parse().unwrap();
    for (node, expected) in expected.into_iter().enumerate() {
        let addresses = &status(node)["addresses"];
        let [v4, v6] = ["v4", "v6"].map(|family| addresses[family].as_str().unwrap());
        let asker = (node + 1) % nodes.len();
        let servers =
            [(asker, v4), (asker, v6), (node, v4)].map(|(from, to)| (from, to.parse().unwrap()));
        for (from, server) in servers.into_iter().chain([(node, control)]) {
            let Some(expected) = expected else {
                assert_eq!(ask_time(bed.space(from), server), None, "{server}");
                continue;
            };
            let answered = wow_lab::command::wait_until("an answer", JOIN_LIMIT, || {
                Ok(ask_time(bed.space(from), server))
            });
            let (alarm, stratum, off) = answered.unwrap();
            println!("{server} to node {from}: alarm {alarm}, stratum {stratum}, {off:.6} s");
            assert_eq!((alarm, stratum), expected, "{server}");
            // One machine, one clock: what is between is the way and the scheduler.
            assert!(off.abs() < 1.0, "{server}: {off} s");
        }
    }
    drop(routers);
}
