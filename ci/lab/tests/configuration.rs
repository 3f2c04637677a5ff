//! A machine without a configuration waits for one, and takes it from a disk that is attached while it runs.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::process::Command;

use serde_json::Value;
use wow_builder::qemu::qmp::Qmp;
use wow_builder::qemu::{Backend, Firmware, Hardware, Nic, VmSpec};

use support::machine::{POWER_OFF_LIMIT, Place, fat, wait};

#[test]
fn a_disk_attached_later_ends_the_wait_and_a_broken_one_is_named() {
    let place = Place::new("configuration");
    let private = |name: &str| place.private(name);
    let wow = support::tools().wow;
    let console = place.console();
    let spec = VmSpec {
        // Its disks' controller takes more of them while the machine runs.
        hardware: Hardware::Vmware,
        firmware: Firmware::Bios,
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x02, 0x01],
            backend: Backend::User,
        }],
        ..place.spec("configuration")
    };
    let mut vm = place.start(&spec);
    let said = |words: &str| {
        let log = std::fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(words).then_some(())
    };
    wait("what it looks for", &mut vm, || {
        said("labelled WOW with the file wow.toml: ticket")
    });

    let broken = fat(
        place.directory.path(),
        "broken",
        "WOW",
        &[("ticket", b"\xff\xfe")],
    );
    let mut qmp = Qmp::connect(&private("qmp")).unwrap();
    qmp.attach_scsi_disk("broken", &broken, false).unwrap();
    wait("the broken disk", &mut vm, || {
        said("(FAT, WOW), ticket: is no text")
    });

    let ticket = std::fs::read(place.ticket(&[])).unwrap();
    let good = [
        ("ticket", &ticket[..]),
        ("wow.toml", b"name = \"from-disk\"\n"),
    ];
    let good = fat(place.directory.path(), "good", "WOW", &good);
    qmp.attach_scsi_disk("good", &good, false).unwrap();
    drop(qmp);
    let control = private("control");
    let ask = |verb: &[&str]| {
        let mut command = Command::new(&wow);
        command
            .args(verb)
            .arg("--json")
            .arg("--socket")
            .arg(&control);
        let output = command.output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).ok()
    };
    let status = wait("the node", &mut vm, || ask(&["status"]));
    assert_eq!(status["name"], "from-disk");
    let trouble = status["trouble"].to_string();
    assert!(trouble.contains("(FAT, WOW), ticket"), "{trouble}");
    let report = wait("the report", &mut vm, || ask(&["config", "show"]));
    let settings = report["settings"].as_array().unwrap();
    let of = |key: &str| {
        settings
            .iter()
            .find(|setting| setting["key"] == key)
            .unwrap()
    };
    assert_eq!(of("ticket")["value"], Value::Null, "a secret");
    for key in ["ticket", "name"] {
        let from = of(key)["from"].as_str().unwrap();
        assert!(from.starts_with("disk sd"), "{from}");
    }
    wait("the screen's summary", &mut vm, || {
        said("wow: from-disk of the pool lab: joined")
    });
    assert!(vm.power_off(POWER_OFF_LIMIT));
}
