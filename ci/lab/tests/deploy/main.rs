//! `cargo xtask deploy` against real OpenSSH servers, each a host of its own in namespaces. Run by
//! `cargo xtask test`, as root.

mod bed;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use wow_builder::bundle;

use bed::Bed;

/// Where a sliver's user has everything.
const BASE: &str = "/home/slice/.wow";

/// Whether the node's processes are there: those of the start script and of the program.
const PROCESSES: &str = r"grep -lzE '(wow-node|wow)$' /proc/[0-9]*/cmdline 2>/dev/null | wc -l";

/// A path that `cargo xtask test` tells.
fn path(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    value
        .unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test`"))
        .into()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
}

/// A bundle of this program in `directory`.
fn bundle_of(directory: &Path, program: Vec<u8>) -> PathBuf {
    std::fs::create_dir_all(directory).unwrap();
    bundle::write(repository(), directory, program).unwrap().tar
}

fn wow() -> Vec<u8> {
    std::fs::read(path("WOW_TEST_WOW")).unwrap()
}

/// The hosts of a result, in the list's order.
fn hosts(all: &Value) -> &Vec<Value> {
    all["hosts"].as_array().unwrap()
}

/// How many hosts ended in each way.
fn counts(all: &Value) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for host in hosts(all) {
        *counts.entry(host["ended"].as_str().unwrap()).or_default() += 1;
    }
    counts
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn of_a_dozen_hosts_two_are_broken_stop_nobody_and_are_resumed() {
    let names = [
        "s1", "s2", "s3", "s4", "s5", "cron1", "noisy1", "s6", "root1", "s7", "full1", "mute1",
    ];
    let mut bed = Bed::start(&names);
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle_of(dir.path(), wow());
    let ticket = bed.secret("lab.ticket");
    let deploy = ["--ticket", text(&ticket), "--bundle", text(&bundle)];

    let first = bed.deploy(&deploy);
    assert_eq!(
        counts(&first),
        [("failed", 2), ("installed", 10)].into(),
        "{first:#}"
    );
    let (full, mute) = (&hosts(&first)[10], &hosts(&first)[11]);
    assert!(full["error"].as_str().unwrap().contains(BASE), "{full:#}");
    assert!(
        full["remedy"].as_str().unwrap().contains("room"),
        "{full:#}"
    );
    // Whether ssh gives up or its time is over.
    let error = mute["error"].as_str().unwrap();
    let hangs = ["not responding", "timed out", "no answer"];
    assert!(hangs.iter().any(|words| error.contains(words)), "{mute:#}");
    let boot = |n: usize| hosts(&first)[n]["boot"].as_str();
    assert_eq!((boot(0), boot(5)), (Some("none"), Some("cron")));
    let mut ids: Vec<_> = hosts(&first)
        .iter()
        .filter_map(|host| host["id"].as_str())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10, "each has an identity of its own");
    // With root and /dev/net/tun the host itself is in the pool.
    let address = hosts(&first)[8]["address"].as_str().unwrap();
    bed.ok(
        "root1",
        &format!("grep -q wow0: /proc/net/dev && grep -qF {address} /proc/net/fib_trie"),
    );

    let secret = std::fs::read_to_string(&ticket).unwrap();
    for host in ["s1", "noisy1"] {
        assert_eq!(bed.ok(host, &format!("stat -c %a {BASE}/ticket")), "600");
        let lines = bed.ok(host, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
        assert!(
            lines.contains("wow-node run") && !lines.contains(secret.trim()),
            "{lines}"
        );
    }

    bed.order("heal", "full1");
    bed.order("heal", "mute1");
    let second = bed.deploy(&deploy);
    assert_eq!(
        counts(&second),
        [("installed", 2), ("unchanged", 10)].into(),
        "{second:#}"
    );
    let third = bed.deploy(&["--status"]);
    assert_eq!(counts(&third), [("joined", 12)].into(), "{third:#}");

    let gone = bed.deploy(&["--remove"]);
    assert_eq!(counts(&gone), [("removed", 12)].into(), "{gone:#}");
    let whole = bed.deploy(&deploy);
    assert_eq!(counts(&whole), [("installed", 12)].into(), "{whole:#}");
    println!("12 hosts in {} ms", whole["took_ms"]);
}

#[test]
fn an_upgrade_keeps_the_node_and_one_that_does_not_join_is_taken_back() {
    let names = ["s1", "cron1", "root1"];
    let bed = Bed::start(&names);
    let dir = tempfile::tempdir().unwrap();
    let one = bundle_of(&dir.path().join("1"), wow());
    // A program that is another to the byte and the same to the kernel.
    let two = bundle_of(&dir.path().join("2"), [wow(), b"2".to_vec()].concat());
    let broken = b"#!/bin/sh\ncase $1 in --version) ;; *) echo broken; exit 1 ;; esac\n";
    let broken = bundle_of(&dir.path().join("3"), broken.to_vec());
    let ticket = bed.secret("lab.ticket");

    let first = bed.deploy(&["--ticket", text(&ticket), "--bundle", text(&one)]);
    assert_eq!(counts(&first), [("installed", 3)].into(), "{first:#}");
    let second = bed.deploy(&["--bundle", text(&two)]);
    assert_eq!(counts(&second), [("upgraded", 3)].into(), "{second:#}");
    for (before, after) in hosts(&first).iter().zip(hosts(&second)) {
        assert_eq!(after["previous"], before["version"]);
        assert_ne!(after["version"], before["version"]);
        assert_eq!(
            (&after["id"], &after["address"]),
            (&before["id"], &before["address"])
        );
    }
    let third = bed.deploy(&["--bundle", text(&broken), "--join-timeout", "15"]);
    assert_eq!(counts(&third), [("failed", 3)].into(), "{third:#}");
    for (host, before) in hosts(&third).iter().zip(hosts(&second)) {
        let error = host["error"].as_str().unwrap();
        assert!(
            error.contains("broken") && error.contains("runs as it did before"),
            "{error}"
        );
        assert_eq!(host["version"], before["version"]);
    }
    // A ticket for a pool that is nowhere: the node keeps the one that it had.
    let nowhere = ["192.0.2.1:9".to_owned()];
    let other =
        wow_lab::pool::create(&path("WOW_TEST_WOW"), dir.path(), "other", &nowhere).unwrap();
    let other = bed.deploy(&[
        "--bundle",
        text(&two),
        "--ticket",
        text(&other),
        "--join-timeout",
        "15",
    ]);
    assert_eq!(counts(&other), [("failed", 3)].into(), "{other:#}");
    let error = hosts(&other)[0]["error"].as_str().unwrap();
    assert!(error.contains("runs as it did before"), "{error}");
    let port = bed.deploy(&["--bundle", text(&two), "--listen", "0.0.0.0:4001"]);
    assert_eq!(counts(&port), [("restarted", 3)].into(), "{port:#}");
    bed.ok("s1", "grep -q ' 00000000:0FA1 ' /proc/net/udp");
    let kept = bed.deploy(&["--bundle", text(&two)]);
    assert_eq!(counts(&kept), [("unchanged", 3)].into(), "{kept:#}");
    let back = bed.deploy(&["--rollback"]);
    assert_eq!(counts(&back), [("rolled-back", 3)].into(), "{back:#}");
    for (host, before) in hosts(&back).iter().zip(hosts(&first)) {
        assert_eq!(
            (&host["version"], &host["id"]),
            (&before["version"], &before["id"])
        );
    }
    assert_eq!(counts(&bed.deploy(&["--status"])), [("joined", 3)].into());

    let gone = bed.deploy(&["--remove"]);
    assert_eq!(counts(&gone), [("removed", 3)].into(), "{gone:#}");
    for host in names {
        let left = bed.ok(
            host,
            "ls -d /home/slice/.wow /root/.wow /opt/wow 2>/dev/null; true",
        );
        assert_eq!(left, "", "{host}");
        // The one that writes the log ends after the node whose words it waits for.
        bed.until(host, &format!("test $({PROCESSES}) = 0"));
        let jobs = bed.ok(host, "cat /var/spool/cron/crontabs/* 2>/dev/null; true");
        assert!(!jobs.contains("wow"), "{host}: {jobs}");
    }
    assert_eq!(counts(&bed.deploy(&["--status"])), [("absent", 3)].into());
    assert_eq!(counts(&bed.deploy(&["--remove"])), [("absent", 3)].into());
}

#[test]
fn a_pool_whose_seed_is_among_the_hosts_begins_by_itself() {
    let bed = Bed::start(&["s1", "s2", "s3"]);
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle_of(dir.path(), wow());
    let seeds = ["192.0.2.11:4001".to_owned()];
    let ticket = wow_lab::pool::create(&path("WOW_TEST_WOW"), dir.path(), "slice", &seeds).unwrap();
    let deploy = [
        "--ticket",
        text(&ticket),
        "--bundle",
        text(&bundle),
        "--listen",
        "0.0.0.0:4001",
    ];
    let all = bed.deploy(&deploy);
    assert_eq!(counts(&all), [("installed", 3)].into(), "{all:#}");
    bed.until(
        "s1",
        &format!("test $(WOW_HOME={BASE} {BASE}/current/wow-node peers --json | grep -o '\"id\"' | wc -l) -ge 2"),
    );

    // Hosts without a device in the pool: a service of theirs is reached from it, and their programs reach it.
    let ways = [
        "--bundle",
        text(&bundle),
        "--guest",
        "none",
        "--listen",
        "0.0.0.0:4001",
        "--forward",
        "pool:2222=127.0.0.1:22",
        "--forward",
        "127.0.0.1:7022=s1:2222",
    ];
    let all = bed.deploy(&ways);
    assert_eq!(all["bad"], 0, "{all:#}");
    let banner = "exec 3<>/dev/tcp/127.0.0.1/7022 && head -c 4 <&3 | grep -q SSH-";
    bed.until("s2", &format!("bash -c '{banner}'"));
}

#[test]
fn a_node_that_dies_and_one_whose_host_boots_come_back() {
    let mut bed = Bed::start(&["s1", "cron1"]);
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle_of(dir.path(), wow());
    let ticket = bed.secret("lab.ticket");
    let all = bed.deploy(&["--ticket", text(&ticket), "--bundle", text(&bundle)]);
    assert_eq!(all["bad"], 0, "{all:#}");

    let pid = format!("{BASE}/run/wow.pid");
    let before = bed.ok("s1", &format!("cat {pid}"));
    bed.ok("s1", &format!("kill -9 {before}"));
    bed.until("s1", &format!("test $(cat {pid}) != {before} && {BASE}/current/wow --socket {BASE}/run/control.sock wait"));

    // Without its loop the node runs on, but nobody would start it again.
    bed.ok("s1", &format!("kill -9 $(cat {BASE}/run/pid)"));
    let orphan = bed.ok("s1", &format!("cat {pid}"));
    let again = bed.deploy(&["--bundle", text(&bundle)]);
    assert_eq!(
        counts(&again),
        [("restarted", 1), ("unchanged", 1)].into(),
        "{again:#}"
    );
    // Its entry stays until the host's process 1 has taken note.
    bed.until("s1", &format!("! grep -qs . /proc/{orphan}/cmdline"));

    bed.order("kill", "cron1");
    bed.order("boot", "cron1");
    bed.until(
        "cron1",
        &format!("{BASE}/current/wow --socket {BASE}/run/control.sock wait"),
    );
    assert_eq!(counts(&bed.deploy(&["--status"])), [("joined", 2)].into());
}

#[test]
fn a_host_gets_nothing_while_its_key_is_unknown_or_another() {
    let bed = Bed::start(&["s1", "s2"]);
    let dir = tempfile::tempdir().unwrap();
    let bundle = bundle_of(dir.path(), wow());
    let (ticket, known) = (bed.secret("lab.ticket"), bed.secret("known_hosts"));
    let deploy = ["--ticket", text(&ticket), "--bundle", text(&bundle)];
    let keys = std::fs::read_to_string(&known).unwrap();
    let nothing = |host: &str| assert_eq!(bed.ok(host, "ls -A /home/slice"), ".ssh");

    std::fs::write(&known, "").unwrap();
    let unknown = bed.deploy(&deploy);
    assert_eq!(counts(&unknown), [("failed", 2)].into(), "{unknown:#}");
    let remedy = hosts(&unknown)[0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("--accept-new"), "{remedy}");
    nothing("s1");

    // The first has the second's key, the second none.
    let key = keys.lines().nth(1).unwrap().split_once(' ').unwrap().1;
    std::fs::write(&known, format!("192.0.2.11 {key}\n")).unwrap();
    let changed = bed.deploy(&[&deploy[..], &["--accept-new"]].concat());
    assert_eq!(
        counts(&changed),
        [("failed", 1), ("installed", 1)].into(),
        "{changed:#}"
    );
    let remedy = hosts(&changed)[0]["remedy"].as_str().unwrap();
    assert!(remedy.contains("ask its owner"), "{remedy}");
    nothing("s1");
}

#[test]
fn skopeo_reads_the_image_as_oci_and_as_dockers_and_its_program_runs() {
    let dir = tempfile::tempdir_in(path("WOW_TEST_HOST").join("tmp")).unwrap();
    let written = bundle::write(repository(), dir.path(), wow()).unwrap();
    let inside = |path: &Path| {
        format!(
            "/{}",
            path.strip_prefix(crate::path("WOW_TEST_HOST"))
                .unwrap()
                .display()
        )
    };
    let skopeo = |words: &[&str]| {
        let output = Command::new("chroot")
            .arg(path("WOW_TEST_HOST"))
            .args(["skopeo", "--insecure-policy"])
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "skopeo {words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for kind in ["oci-archive", "docker-archive"] {
        let from = format!("{kind}:{}", inside(&written.oci));
        let facts: Value = serde_json::from_str(&skopeo(&["inspect", &from])).unwrap();
        assert_eq!(
            (&facts["Architecture"], &facts["Os"]),
            (&"amd64".into(), &"linux".into())
        );
        let to = dir.path().join(kind);
        skopeo(&["copy", &from, &format!("dir:{}", inside(&to))]);
    }
    let manifest = std::fs::read(dir.path().join("oci-archive/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap();
    let layer = dir
        .path()
        .join("oci-archive")
        .join(digest.strip_prefix("sha256:").unwrap());
    let root = dir.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(layer)
        .arg("-C")
        .arg(&root)
        .status();
    assert!(unpacked.unwrap().success());
    let output = Command::new("chroot")
        .arg(&root)
        .args(["/wow", "--version"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn under_systemd_the_node_is_a_hardened_service() {
    let mut bed = Bed::start(&["unit1"]);
    let dir = tempfile::tempdir().unwrap();
    let one = bundle_of(&dir.path().join("1"), wow());
    let two = bundle_of(&dir.path().join("2"), [wow(), b"2".to_vec()].concat());
    let ticket = bed.secret("lab.ticket");
    let first = bed.deploy(&["--ticket", text(&ticket), "--bundle", text(&one)]);
    let host = &hosts(&first)[0];
    assert_eq!(
        (&host["ended"], &host["manager"], &host["boot"]),
        (&"installed".into(), &"systemd".into(), &"systemd".into()),
        "{first:#}"
    );
    let address = host["address"].as_str().unwrap();
    bed.ok(
        "unit1",
        &format!("grep -q wow0: /proc/net/dev && grep -qF {address} /proc/net/fib_trie"),
    );
    let said = bed.run(
        "unit1",
        "systemd-analyze verify --man=no /etc/systemd/system/wow.service",
    );
    let said = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.contains("wow.service"), "{said}");
    // The lower the better: 9.6 is a service without any of it.
    let exposure = bed.ok(
        "unit1",
        "systemd-analyze security --no-pager wow.service | tail -n 1",
    );
    println!("{exposure}");
    bed.ok(
        "unit1",
        "systemd-analyze security --no-pager --threshold=25 wow.service",
    );

    let second = bed.deploy(&["--bundle", text(&two)]);
    assert_eq!(counts(&second), [("upgraded", 1)].into(), "{second:#}");
    assert_eq!(hosts(&second)[0]["id"], host["id"]);
    assert_eq!(
        counts(&bed.deploy(&["--rollback"])),
        [("rolled-back", 1)].into()
    );

    bed.order("kill", "unit1");
    bed.order("boot", "unit1");
    bed.until("unit1", "/opt/wow/current/wow wait");
    assert_eq!(counts(&bed.deploy(&["--remove"])), [("removed", 1)].into());
    bed.ok(
        "unit1",
        "! systemctl cat wow.service && ! [ -e /opt/wow ] && ! grep -q wow0 /proc/net/dev",
    );
    // A service of somebody else's by that name stays what it is.
    let other = "printf '[Service]\nExecStart=/bin/sleep 1d\n' >/etc/systemd/system/wow.service";
    bed.ok(
        "unit1",
        &format!("{other} && systemctl daemon-reload && systemctl start wow"),
    );
    let refused = bed.deploy(&["--ticket", text(&ticket), "--bundle", text(&one)]);
    assert_eq!(counts(&refused), [("failed", 1)].into(), "{refused:#}");
    bed.ok(
        "unit1",
        "systemctl is-active wow && systemctl cat wow | grep sleep && ! [ -e /opt/wow ]",
    );
}
