//! Ordinary machines behind two appliances: they get addresses, reach each other and everything of the pool, and keep
//! their addresses when the appliance comes back. Needs root.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use wow_builder::host::Tether;
use wow_builder::qemu::{Accelerator, Emulator, Firmware, Hardware, Machine};
use wow_lab::command::wait_until;
use wow_lab::lan::{self, Lan};
use wow_lab::namespaces::Namespaces;
use wow_lab::topology::{CORE, Topology};
use wow_lab::vms::{More, Setup, VmTestbed};
use wow_lab::{experiment, inside, interrupt};

use support::path;

/// Under the translator, with other machines on the same cores.
const LIMIT: Duration = Duration::from_secs(240);

/// Many superpackets.
const STREAM_BYTES: usize = 4 << 20;

/// The pool's control address: the machines' gateway.
const GATEWAY: &str = "10.128.0.1";

fn setup(name: &str, hardware: Hardware, topology: Topology, more: Vec<More>) -> Setup {
    interrupt::install().unwrap();
    let logs = path("WOW_TEST_LOGS");
    let emulator = Emulator::find().unwrap();
    Setup {
        tools: support::tools(),
        accelerator: Accelerator::probe(&emulator, &logs).unwrap(),
        emulator,
        image: support::built(),
        machine: Machine::Q35,
        hardware,
        firmware: Firmware::Direct,
        memory_mib: 64,
        topology,
        logs: logs.join(name),
        tether: Tether::Tied,
        more,
    }
}

fn more(place: &str, lan: &Lan, guest: &str) -> More {
    More {
        place: place.into(),
        tap: Some(lan.tap().into()),
        settings: vec![("guest", guest.into())],
        disks: Vec::new(),
    }
}

/// Waits until the nodes are in the pool.
fn join(bed: &mut VmTestbed, nodes: std::ops::Range<usize>) -> Vec<wow_lab::report::Joined> {
    let nodes = bed.nodes()[nodes].to_vec();
    experiment::join(&nodes, LIMIT, &|_| (), &mut || bed.check_running()).unwrap()
}

fn status(bed: &VmTestbed, node: usize) -> Value {
    let client = &bed.nodes()[node].client;
    // A busy machine may not answer the first time.
    wait_until("a status", LIMIT, || Ok(client.raw_status().ok())).unwrap()
}

/// A stream there and back, which must arrive as it was sent.
fn check_stream(from: &lan::Machine, to: &lan::Machine, address: IpAddr) {
    let (told, port) = std::sync::mpsc::channel();
    let server = inside::spawn(&to.space, move || {
        let listener = TcpListener::bind((address, 0))?;
        told.send(listener.local_addr()?)?;
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut bytes = vec![0; STREAM_BYTES];
        stream.read_exact(&mut bytes)?;
        Ok(stream.write_all(&bytes)?)
    });
    let server = server.unwrap();
    let at: SocketAddr = port.recv_timeout(LIMIT).unwrap();
    let client = inside::spawn(&from.space, move || -> Result<_> {
        let mut stream = TcpStream::connect_timeout(&at, LIMIT).context("connect")?;
        stream.set_read_timeout(Some(LIMIT))?;
        let words = (0..STREAM_BYTES as u32 / 4).map(|n| n.wrapping_mul(2_654_435_761));
        let sent: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        stream.write_all(&sent)?;
        let mut came = Vec::new();
        stream.read_to_end(&mut came)?;
        Ok(came == sent)
    });
    assert!(
        client.unwrap().join().unwrap().unwrap(),
        "changed on the way"
    );
    server.join().unwrap().unwrap();
}

fn state_disk(file: &Path) {
    let mut command = Command::new("mkfs.vfat");
    let file = file.to_str().unwrap();
    command.args(["--invariant", "-n", "WOW-STATE", "-C", file, "8192"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// What a machine of the LAN is promised by the pool's services.
fn check_services(machine: &lan::Machine, names: &[(&str, &str)]) {
    machine.ping(GATEWAY).unwrap();
    for (name, address) in names {
        let asked = machine
            .run(&["busybox", "nslookup", name, GATEWAY])
            .unwrap();
        let said = asked.success(&format!("nslookup {name}")).unwrap();
        assert!(said.contains(address), "{name}: {said}");
    }
    let url = format!("http://{GATEWAY}/");
    let fetched = machine.run(&["busybox", "wget", "-q", "-O", "-", &url]);
    let page = fetched.unwrap().success("wget").unwrap();
    assert!(page.starts_with("<!doctype html>"), "{page:.200}");
}

#[test]
fn behind_two_appliances_they_work_and_keep_their_addresses_when_one_boots_again() {
    let directory = tempfile::tempdir().unwrap();
    let mut namespaces = Namespaces::new().unwrap();
    let mut lan = |name, number, machines: &[&str]| {
        Lan::new(&mut namespaces, name, number, machines, directory.path()).unwrap()
    };
    let (near, far) = (lan("near", 0, &["ann", "eve"]), lan("far", 1, &["bob"]));
    let disk = directory.path().join("state");
    state_disk(&disk);
    let packet = More {
        disks: vec![disk],
        ..more("a", &near, "packet")
    };
    let setup = setup(
        "guests",
        Hardware::Virtio,
        Topology::seed_and_nated(1),
        vec![packet, more("seed", &far, "virtio")],
    );
    let mut bed = VmTestbed::start(&setup).unwrap();
    near.plug().unwrap();
    far.plug().unwrap();
    let joined = join(&mut bed, 0..2);
    let (first, second) = (status(&bed, 1), status(&bed, 0));
    assert_eq!(first["guest"], "packet eth1");
    // The card is driven from the router: nothing was missing.
    assert_eq!(second["guest"], "virtio eth1");
    assert_eq!(second["trouble"], serde_json::json!([]));

    let [ann, eve, bob] = [&near.machines[0], &near.machines[1], &far.machines[0]];
    let told = ann.ask("ann").unwrap();
    assert_eq!(told.get("router"), Some(GATEWAY));
    let address = told.get("ip").unwrap().to_owned();
    let bobs = bob.ask("bob").unwrap().get("ip").unwrap().to_owned();
    let eves = eve.ask("eve").unwrap().get("ip").unwrap().to_owned();
    let seed = joined[0].v4.to_string();
    check_services(
        ann,
        &[
            ("bob.demo.internal", &bobs),
            ("eve.demo.internal", &eves),
            ("seed.demo.internal", &seed),
        ],
    );
    check_services(bob, &[("ann.demo.internal", &address)]);
    for address in [&bobs, &eves, &seed, &joined[1].v4.to_string()] {
        ann.ping(address).unwrap();
    }
    // The far node by IPv6, from the address that goes with the lease.
    let own = status(&bed, 1)["lan"].clone();
    let own = own
        .as_array()
        .unwrap()
        .iter()
        .find(|guest| guest["name"] == "ann");
    let v6 = own.unwrap()["v6"].as_str().unwrap().to_owned();
    let add = ["ip", "addr", "add", &format!("{v6}/128"), "dev", "eth0"];
    ann.run(&add).unwrap().success("ip addr").unwrap();
    ann.ping(&joined[0].v6.to_string()).unwrap();
    check_stream(ann, bob, bobs.parse().unwrap());
    check_stream(bob, ann, address.parse().unwrap());

    // Back after a while it has what it had.
    eve.run(&["ip", "-4", "addr", "flush", "dev", "eth0"])
        .unwrap();
    assert_eq!(eve.ask("eve").unwrap().get("ip"), Some(&*eves));

    // The appliance loses its power. Its disk knows the guests, who need not ask.
    bed.boot_again(&setup, 1).unwrap();
    near.plug().unwrap();
    let again = join(&mut bed, 1..2);
    assert_eq!(again[0].id, joined[1].id);
    ann.ping(&bobs).unwrap();
    assert_eq!(ann.ask("ann").unwrap().get("ip"), Some(&*address));
    check_stream(bob, ann, address.parse().unwrap());
}

#[test]
fn a_card_that_is_not_virtios_is_served_by_a_packet_socket_and_that_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut namespaces = Namespaces::new().unwrap();
    let machines = ["cat"];
    let lan = Lan::new(&mut namespaces, "plain", 2, &machines, directory.path()).unwrap();
    let mut topology = Topology::seed_and_empty(0);
    topology.add("c", CORE);
    let setup = setup(
        "guests-fallback",
        Hardware::Plain,
        topology,
        vec![more("c", &lan, "virtio")],
    );
    let mut bed = VmTestbed::start(&setup).unwrap();
    lan.plug().unwrap();
    join(&mut bed, 0..2);
    let told = status(&bed, 1)["trouble"].to_string();
    assert!(
        told.contains("served by a packet socket") && told.contains("no virtio network card"),
        "{told}"
    );
    let cat = &lan.machines[0];
    cat.ask("cat").unwrap();
    check_services(cat, &[("seed.demo.internal", "10.")]);
    wait_until("the guest is listed", LIMIT, || {
        let status = bed.nodes()[1].client.raw_status()?;
        Ok((status["lan"][0]["name"] == "cat").then_some(()))
    })
    .unwrap();
}
