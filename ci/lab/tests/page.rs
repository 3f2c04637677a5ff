//! The status page in a real browser, against a running pool of real routers in network namespaces.
//! Run by `cargo xtask test`, as root; what was seen is in `target/test/page`.

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use wow_lab::browser::{Browser, Look, Page};
use wow_lab::command::wait_until;
use wow_lab::experiment::{self, Node};
use wow_lab::namespaces::NamespaceTestbed;
use wow_lab::topology::{CORE, Topology};
use wow_lab::{Tools, interrupt};

use support::path;

const LIMIT: Duration = Duration::from_secs(120);
const URL: &str = "http://10.128.0.1/";

const DESK: Look = Look {
    width: 1280,
    height: 1120,
    dark: false,
    phone: false,
};
const PHONE: Look = Look {
    width: 390,
    height: 2300,
    dark: false,
    phone: true,
};

fn tools() -> Tools {
    interrupt::install().unwrap();
    support::tools()
}

/// The page as drawn: rows of the table by name, with their path.
const ROWS: &str = "Object.fromEntries([...document.querySelectorAll('#peers tr')].map((row) => \
                    [row.cells[0].firstChild.data, row.cells[1].innerText]))";

/// The ring as drawn: nodes, what names one, labels, and how far a label keeps others away, in the drawing's units.
const DOTS: &str = "document.querySelectorAll('#ring circle.node')";
const NAME: &str = "(dot) => dot.textContent.split(',')[0]";
const LABELS: &str = "document.querySelectorAll('#ring text')";
const LABEL_ROOM: u32 = 12;

fn drawn(page: &mut Page<'_>, times: u32) {
    let expression = format!("Number(document.body?.dataset.drawn) >= {times}");
    page.wait("the page is drawn", &expression, LIMIT).unwrap();
}

fn text(page: &mut Page<'_>, selector: &str) -> String {
    let expression = format!("document.querySelector('{selector}').innerText");
    let text = page.evaluate(&expression).unwrap();
    text.as_str().expect("text").to_owned()
}

/// What `wow peers` says: each name's path.
fn paths(node: &Node) -> BTreeMap<String, String> {
    let peers = node.client.raw_peers().unwrap();
    let peers = peers.as_array().unwrap().iter();
    peers
        .map(|peer| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            (text(&peer["name"]), text(&peer["path"]["kind"]))
        })
        .collect()
}

fn screenshots(page: &mut Page<'_>, logs: &Path, name: &str) {
    for (kind, look) in [
        ("light", DESK),
        ("dark", Look { dark: true, ..DESK }),
        ("phone", PHONE),
    ] {
        page.look(look).unwrap();
        let overflows = "document.documentElement.scrollWidth > innerWidth";
        assert_eq!(page.evaluate(overflows).unwrap(), false, "{name}, {kind}");
        let file = logs.join(format!("{name}-{kind}.png"));
        page.screenshot(&file).unwrap();
        println!("{}", file.display());
    }
    page.look(DESK).unwrap();
}

#[test]
fn the_page_shows_a_running_pool_and_follows_it() {
    let tools = tools();
    let logs = path("WOW_TEST_LOGS").join("page");
    let topology = Topology::seed_and_nated(3);
    let mut bed = NamespaceTestbed::start(&tools, &topology, &logs).unwrap();
    let nodes = bed.nodes().to_vec();
    let joined = experiment::join(&nodes, LIMIT, &|_| (), &mut || bed.check_running()).unwrap();
    let pairs = experiment::ping_all(&nodes, &joined, 3, &|_| ()).unwrap();
    assert!(pairs.iter().all(|pair| pair.answered()));
    let own = &nodes[1];
    let status = own.client.status().unwrap();

    let mut browser = Browser::start(bed.space(1), &logs.join("browser.log")).unwrap();
    let mut page = browser.open(URL).unwrap();
    page.look(DESK).unwrap();
    // By itself, some times.
    drawn(&mut page, 4);
    assert_eq!(page.evaluate("document.title").unwrap(), "a – lab");
    assert_eq!(text(&mut page, "h1"), "a in lab");
    assert!(text(&mut page, "#state").starts_with("In the pool for"));
    let facts = text(&mut page, "#node");
    for fact in [
        status.addresses.v4.to_string(),
        status.addresses.v6.to_string(),
        status.id,
    ] {
        assert!(facts.contains(&fact), "{facts}");
    }
    assert!(text(&mut page, "#leases").contains(&status.addresses.v4.to_string()));
    assert!(text(&mut page, "#log").contains("joined"));
    assert!(text(&mut page, "#rate-out").ends_with("/s"));
    assert_eq!(
        page.evaluate("document.querySelector('#trouble').hidden")
            .unwrap(),
        true
    );

    // The neighbours are those that the command line tells, by the same paths.
    let shown = page.evaluate(ROWS).unwrap();
    let known = paths(own);
    assert_eq!(known.len(), 3);
    for (name, path) in &known {
        let shown = shown[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} in {shown}"));
        assert_eq!(&shown.to_lowercase(), path, "{name}");
    }
    let round_trips = page.evaluate("[...document.querySelectorAll('#peers tr')].every((row) => / ms$/.test(row.cells[2].innerText))");
    assert_eq!(round_trips.unwrap(), true);
    let places = format!("{DOTS}.length");
    assert_eq!(page.evaluate(&places).unwrap(), 4);
    assert_eq!(
        page.evaluate("document.querySelectorAll('#ring path.link').length")
            .unwrap(),
        3
    );
    let names = page.evaluate(&format!("[...{DOTS}].map({NAME}).sort()"));
    assert_eq!(names.unwrap(), serde_json::json!(["a", "b", "c", "seed"]));
    let labels = format!("[...{LABELS}].map((label) => label.textContent)");
    let labelled = page.evaluate(&format!("{labels}.includes('a')"));
    assert_eq!(labelled.unwrap(), true);
    // Ids are random: a node without a label lies beside one that has its own there.
    let crowded = format!(
        "[...{DOTS}].every((dot) => [...{DOTS}].some((other) => {labels}.includes(({NAME})(other)) \
         && Math.hypot(dot.cx.baseVal.value - other.cx.baseVal.value, \
         dot.cy.baseVal.value - other.cy.baseVal.value) < {LABEL_ROOM}))"
    );
    assert_eq!(page.evaluate(&crowded).unwrap(), true);
    screenshots(&mut page, &logs, "pool");

    // A node that goes is gone from the page, without anybody touching it.
    bed.kill("c").unwrap();
    let gone = format!("!('c' in ({ROWS})) && {places} === 3");
    page.wait("the lost node leaves the page", &gone, LIMIT)
        .unwrap();
    assert_eq!(page.complaints(), [""; 0]);
    bed.check_running().unwrap();
}

/// Peers of the node whose page is measured.
const PEERS: usize = 40;
const LOADS: usize = 9;

#[test]
fn a_page_with_forty_peers_is_painted_with_all_of_them() {
    let tools = tools();
    let logs = path("WOW_TEST_LOGS").join("page-forty");
    let mut topology = Topology::seed_and_empty(1);
    for number in 1..=PEERS {
        topology.add(&format!("node-{number}"), CORE);
    }
    let mut bed = NamespaceTestbed::start(&tools, &topology, &logs).unwrap();
    let nodes = bed.nodes().to_vec();
    let joined = experiment::join(&nodes, LIMIT, &|_| (), &mut || bed.check_running()).unwrap();
    let own = &nodes[0];
    // A session that nobody uses is closed; one that carried something stays for a minute.
    let use_all = || {
        wait_until("the seed has a session with everybody", LIMIT, || {
            for other in joined.iter().filter(|other| other.name != own.name) {
                own.client.ping(&other.name, 1)?;
            }
            Ok((paths(own).len() == PEERS).then_some(()))
        })
    };
    use_all().unwrap();

    let mut browser = Browser::start(bed.space(0), &logs.join("browser.log")).unwrap();
    let mut page = browser.open(URL).unwrap();
    page.look(DESK).unwrap();
    drawn(&mut page, 1);
    let mut painted = Vec::new();
    for load in 0..LOADS {
        use_all().unwrap();
        page.go(&format!("{URL}?{load}")).unwrap();
        let there = format!(
            "location.search === '?{load}' && performance.getEntriesByName('first-contentful-paint').length === 1"
        );
        page.wait("the page is painted", &there, LIMIT).unwrap();
        // What was painted had its data with it: nothing had been fetched.
        let rows = page.evaluate("document.querySelectorAll('#peers tr').length");
        assert_eq!(rows.unwrap(), PEERS as u64);
        let paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime";
        painted.push(page.evaluate(paint).unwrap().as_f64().unwrap());
    }
    painted.sort_by(f64::total_cmp);
    println!(
        "first paint with {PEERS} peers, {LOADS} loads: median {:.0} ms, {:.0} to {:.0} ms (goal: 200 ms)",
        painted[LOADS / 2],
        painted[0],
        painted[LOADS - 1]
    );
    drawn(&mut page, 3);
    screenshots(&mut page, &logs, "forty");
    assert_eq!(page.complaints(), [""; 0]);
}
