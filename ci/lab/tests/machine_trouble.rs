//! What goes wrong around a running appliance is named while it lasts and no longer: state disks that are pulled,
//! full, failing or somebody else's, configuration disks that are broken or contradict, a network card that disappears.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wow_builder::qemu::qmp::Qmp;
use wow_builder::qemu::{Backend, Firmware, Hardware, Nic, Vm, VmSpec};
use wow_lab::control::Control;
use wow_lab::interrupt;

use support::machine::{LIMIT, POWER_OFF_LIMIT, Place, fat, free_port, run, seed, value};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(200);

/// A running appliance and what it is asked by.
struct Bed {
    vm: Vm,
    qmp: Qmp,
    control: PathBuf,
}

impl Bed {
    /// Of a machine whose node runs, or will soon.
    fn of(place: &Place, mut vm: Vm) -> Self {
        let qmp = place.qmp(&mut vm);
        let control = place.private("control");
        let mut bed = Bed { vm, qmp, control };
        bed.wait("the node", |bed| bed.status());
        bed
    }

    fn wait<T>(&mut self, what: &str, mut look: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            self.vm.check_running().unwrap();
            interrupt::check().unwrap();
            assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
            std::thread::sleep(PAUSE);
        }
    }

    fn status(&self) -> Option<Value> {
        let mut control = Control::connect(&self.control).ok()?;
        control.ask(json!({"op": "status"}), LIMIT).ok()
    }

    /// What is wrong by the machine's own word; its node has nobody to join.
    fn trouble(&self) -> Option<String> {
        let status = self.status()?;
        let all = status["trouble"].as_array()?;
        let told = all.iter().filter_map(Value::as_str);
        let told = told.filter(|sentence| !sentence.contains("no seed is known"));
        Some(told.collect::<Vec<_>>().join("\n"))
    }

    fn wait_named(&mut self, words: &str) {
        let mut last = String::new();
        self.wait(words, |bed| {
            let trouble = bed.trouble()?;
            if trouble != last {
                println!("{words:?}? {trouble:?}");
                last.clone_from(&trouble);
            }
            trouble.contains(words).then_some(())
        });
    }

    fn wait_well(&mut self) {
        self.wait("no trouble", |bed| bed.trouble()?.is_empty().then_some(()));
    }

    fn pull(&mut self, id: &str) {
        self.qmp.detach_scsi_disk(id).unwrap();
        // The disk lives on until the guest's last request has ended.
        self.wait("the disk's end", |bed| {
            bed.qmp.forget_disk(id).is_ok().then_some(())
        });
    }
}

#[test]
fn what_goes_wrong_around_a_node_is_named_until_it_is_over() {
    let place = Place::new("machine-trouble");
    let private = |name: &str| place.private(name);
    let spec = VmSpec {
        // Its disks' controller takes more of them while the machine runs.
        hardware: Hardware::Vmware,
        firmware: Firmware::Bios,
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x02, 0x02],
            backend: Backend::User,
        }],
        fw_cfg: vec![
            value("ticket", place.ticket(&[])),
            place.value("name", "first"),
        ],
        ..place.spec("machine-trouble")
    };
    let vm = place.start(&spec);
    let mut bed = Bed::of(&place, vm);
    bed.wait_well();

    // An empty disk is taken into use.
    let own = fat(place.directory.path(), "own", "WOW-STATE", &[]);
    bed.qmp.attach_scsi_disk("own", &own, true).unwrap();
    bed.wait("the identity on the disk", |_| {
        let listed = run("mdir", &["-b", "-i", own.to_str().unwrap(), "::"]);
        listed.to_lowercase().contains("certificate").then_some(())
    });
    bed.pull("own");
    bed.wait_named("the state's disk");
    bed.qmp.attach_scsi_disk("own", &own, true).unwrap();
    bed.wait_well();
    bed.pull("own");

    // Another's disk is left alone, a full one and one that fails are named.
    let theirs = [("pool", &b"0123 office\n"[..]), ("identity", b"not ours")];
    let theirs = fat(place.directory.path(), "theirs", "WOW-STATE", &theirs);
    bed.qmp.attach_scsi_disk("theirs", &theirs, true).unwrap();
    bed.wait_named("another pool, office");
    bed.pull("theirs");
    let filled = fat(place.directory.path(), "filled", "WOW-STATE", &[]);
    let shown = filled.to_str().unwrap();
    let free = run("mdir", &["-i", shown, "::"]);
    let free = free
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_suffix(" bytes free"));
    let free: usize = free.unwrap().replace(' ', "").parse().unwrap();
    std::fs::write(private("filling"), vec![0; free]).unwrap();
    run(
        "mcopy",
        &["-i", shown, private("filling").to_str().unwrap(), "::"],
    );
    bed.qmp.attach_scsi_disk("filled", &filled, true).unwrap();
    bed.wait_named("No space left");
    bed.pull("filled");
    bed.wait_named("the state's disk");
    let failing = fat(place.directory.path(), "failing", "WOW-STATE", &[]);
    bed.qmp
        .attach_failing_scsi_disk("failing", &failing)
        .unwrap();
    bed.wait_named("this machine's state is not kept");
    bed.pull("failing");
    bed.qmp.attach_scsi_disk("own", &own, true).unwrap();
    bed.wait_well();

    // Configuration that cannot be read, and that contradicts what the node runs with.
    let broken = fat(
        place.directory.path(),
        "broken",
        "WOW",
        &[("ticket", b"\xff\xfe")],
    );
    bed.qmp.attach_scsi_disk("broken", &broken, false).unwrap();
    bed.wait_named("(FAT, WOW), ticket: is no text");
    bed.pull("broken");
    bed.wait_well();
    let other = [("wow.toml", &b"name = \"second\"\n"[..])];
    let other = fat(place.directory.path(), "other", "WOW", &other);
    bed.qmp.attach_scsi_disk("other", &other, false).unwrap();
    bed.wait_named("name from disk");
    bed.pull("other");
    bed.wait_well();

    let Bed { mut vm, qmp, .. } = bed;
    // The machine's power button is on the same line.
    drop(qmp);
    assert!(vm.power_off(POWER_OFF_LIMIT));
}

#[test]
fn a_network_card_that_disappears_is_named_until_there_is_one_again() {
    let place = Place::new("machine-card");
    let port = free_port();
    let ticket = place.ticket(&[format!("10.0.2.2:{port}")]);
    let wow = support::tools().wow;
    let _seed = seed(&wow, place.directory.path(), port, &[]);
    let spec = VmSpec {
        fw_cfg: vec![value("ticket", ticket)],
        ports: 2,
        ..place.spec("machine-card")
    };
    let vm = place.start(&spec);
    let mut bed = Bed::of(&place, vm);
    // It comes up without any, and takes the first that is put in.
    bed.wait_named("there is no network card");
    for (round, port) in [0, 1, 0].into_iter().enumerate() {
        // Another card in another port, and again in the first one.
        let id = format!("card{round}");
        let mac = format!("52:54:00:77:05:0{round}");
        bed.qmp.attach_card(&id, port, &mac).unwrap();
        bed.wait_well();
        bed.wait("the pool", |bed| {
            let status = bed.status()?;
            let is_joined = status["joined"] == true && status["peers"] == 1;
            is_joined.then_some(())
        });
        bed.qmp.detach_card(&id).unwrap();
        bed.wait("the card's end", |bed| bed.qmp.forget_card(&id).ok());
        bed.wait_named("there is no network card");
    }
    let Bed { mut vm, qmp, .. } = bed;
    drop(qmp);
    assert!(vm.power_off(POWER_OFF_LIMIT));
}
