//! A machine is updated to the other slot of its disk, and goes back from a version that does not join or does not
//! even start, by each firmware.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use wow_builder::disk::slots::TABLE_LBA;
use wow_builder::host::Guarded;
use wow_builder::mark::{self, Mark};
use wow_builder::qemu::qmp::Qmp;
use wow_builder::qemu::{Backend, Firmware, Hardware, ImageFiles, Nic, Uefi, Vm, VmSpec};

use support::machine::{POWER_OFF_LIMIT, Place, fat, free_port, seed, value, wait};
use support::path;

/// As long as a trial that shall succeed may take, and one that shall not: the node's start is in it.
const AMPLE: &str = "230s";
const SHORT: &str = "20s";

/// The state of a trial on the disk.
const TRIAL_OFFSET: u64 = TABLE_LBA * 512 + 10;

/// A machine, and the pool's seed on this host.
struct Bed {
    place: Place,
    wow: PathBuf,
    seed: Option<Guarded>,
    vm: Vm,
}

impl Bed {
    fn start(name: &str, firmware: Firmware, hardware: Hardware, memory_mib: u32) -> Self {
        let place = Place::new(&format!("update/{name}"));
        let (image, wow) = (path("WOW_TEST_IMAGE"), support::tools().wow);
        let port = free_port();
        // The guest reaches this host's loopback at this address of QEMU's network.
        let ticket = place.ticket(&[format!("10.0.2.2:{port}")]);
        let seed = seed(&wow, place.directory.path(), port, &[]);
        let disk = place.private("disk.raw");
        std::fs::copy(image.join("disk.raw"), &disk).unwrap();
        let uefi = (firmware == Firmware::Uefi).then(|| {
            let variables = Uefi::prepare(&place.private("variables")).unwrap();
            variables.expect("OVMF is installed with the other packages")
        });
        let usual = place.spec(&format!("update-{name}"));
        let spec = VmSpec {
            hardware,
            firmware,
            image: ImageFiles {
                disk,
                own_disk: true,
                ..usual.image
            },
            uefi,
            memory_mib,
            nics: vec![Nic {
                mac: [0x52, 0x54, 0x00, 0x77, 0x03, 0x01],
                backend: Backend::User,
            }],
            fw_cfg: vec![value("ticket", ticket)],
            reboots: true,
            ..usual
        };
        Self {
            vm: place.start(&spec),
            place,
            wow,
            seed: Some(seed),
        }
    }

    fn private(&self, name: &str) -> PathBuf {
        self.place.private(name)
    }

    fn qmp(&mut self) -> Qmp {
        let socket = self.private("qmp");
        self.wait("QEMU's socket", || Qmp::connect(&socket).ok())
    }

    /// Asks the machine.
    fn ask(&self, verb: &[&str]) -> Output {
        let mut command = Command::new(&self.wow);
        command
            .args(verb)
            .arg("--socket")
            .arg(self.private("control"));
        command.output().unwrap()
    }

    /// What `wow VERB --json` says, once it says what is looked for.
    fn until(&mut self, what: &str, verb: &[&str], looked_for: impl Fn(&Value) -> bool) -> Value {
        let (wow, control) = (self.wow.clone(), self.private("control"));
        self.wait(what, || {
            let mut command = Command::new(&wow);
            command
                .args(verb)
                .arg("--json")
                .arg("--socket")
                .arg(&control);
            let output = command.output().unwrap();
            let said = serde_json::from_slice::<Value>(&output.stdout).ok()?;
            looked_for(&said).then_some(said)
        })
    }

    /// Waits until `look` gives something.
    fn wait<T>(&mut self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        wait(what, &mut self.vm, look)
    }

    /// The image as another build would make it: the same kernel, padded, so that its version is another.
    fn next_image(&self, padding: usize) -> (PathBuf, String) {
        let built = std::fs::read(path("WOW_TEST_IMAGE").join("bzImage")).unwrap();
        let mut kernel = built[..built.len() - mark::BYTES].to_vec();
        kernel.resize(kernel.len() + padding, 0);
        let (image, mark) = mark::append(kernel, "router");
        let file = self.private(&format!("bzImage-{padding}"));
        std::fs::write(&file, image).unwrap();
        (file, text(&mark))
    }

    /// Updates to a kernel that cannot unpack itself, and waits until it has been booted; its version.
    fn try_dead_image(&mut self, reset: bool) -> String {
        let (file, _) = self.next_image(512);
        let mut kernel = std::fs::read(&file).unwrap();
        kernel.truncate(kernel.len() - mark::BYTES);
        let middle = kernel.len() / 2;
        kernel[middle..middle + 4096].fill(0x55);
        let (image, mark) = mark::append(kernel, "router");
        std::fs::write(&file, image).unwrap();
        let image = file.to_str().unwrap();
        let written = self.ask(&["update", image, "--within", AMPLE, "--no-wait"]);
        assert!(written.status.success(), "{}", said(&written));
        let disk = std::fs::File::open(self.private("disk.raw")).unwrap();
        self.wait("the trial's beginning", || {
            let mut trial = [0];
            disk.read_exact_at(&mut trial, TRIAL_OFFSET).unwrap();
            (trial == [2]).then_some(())
        });
        if reset {
            self.qmp().reset().unwrap();
        }
        text(&mark)
    }

    fn slots(&mut self, what: &str, looked_for: impl Fn(&Value) -> bool) -> Value {
        self.until(what, &["update", "--status"], looked_for)
    }

    fn joined(&mut self) -> Value {
        self.until("joining", &["status"], |status| status["joined"] == true)
    }
}

fn text(mark: &Mark) -> String {
    let version = mark.version();
    let version = version.split(|byte| *byte == 0).next().unwrap();
    String::from_utf8(version.to_vec()).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn by_bios_an_update_stays_with_the_nodes_id_and_those_that_do_not_join_go_back() {
    let mut bed = Bed::start("bios", Firmware::Bios, Hardware::Vmware, 64);
    // There before the kernel is, and while the machine restarts.
    let state = fat(bed.place.directory.path(), "state", "WOW-STATE", &[]);
    bed.qmp().attach_scsi_disk("state", &state, true).unwrap();
    let before = bed.joined();
    let slots = bed.slots("the slots", |_| true);
    assert_eq!(
        (&slots["running"], &slots["state"]),
        (&"a".into(), &"settled".into())
    );
    assert_eq!(slots["b"], Value::Null);
    let first = slots["a"].as_str().unwrap().to_owned();

    // It halts, and somebody presses the button.
    let dead = bed.try_dead_image(true);
    let slots = bed.slots("the earlier version", |slots| slots["state"] == "died");
    assert_eq!(
        (&slots["running"], &slots["b"]),
        (&"a".into(), &dead.into())
    );
    assert_eq!(before["id"], bed.joined()["id"]);

    let (image, version) = bed.next_image(512);
    assert_ne!(first, version);
    let updated = bed.ask(&["update", image.to_str().unwrap(), "--within", AMPLE]);
    assert!(updated.status.success(), "{}", said(&updated));
    assert!(
        said(&updated).contains("has joined and stays"),
        "{}",
        said(&updated)
    );
    let slots = bed.slots("the slots", |_| true);
    assert_eq!(
        (&slots["running"], &slots["default"]),
        (&"b".into(), &"b".into())
    );
    assert_eq!(
        (&slots["a"], &slots["b"]),
        (&first.into(), &version.clone().into())
    );
    let after = bed.joined();
    assert_eq!(
        before["id"], after["id"],
        "the state partition keeps the node"
    );

    // Nobody is there to be joined by.
    drop(bed.seed.take());
    let (image, lonely) = bed.next_image(1024);
    let updated = bed.ask(&["update", image.to_str().unwrap(), "--within", SHORT]);
    assert_eq!(updated.status.code(), Some(1), "{}", said(&updated));
    let told = format!("the update to version {lonely} did not join within 20s");
    assert!(said(&updated).contains(&told), "{}", said(&updated));
    let slots = bed.slots("the slots", |_| true);
    assert_eq!(
        (&slots["running"], &slots["state"]),
        (&"b".into(), &"too_late".into())
    );
    assert_eq!(
        (&slots["a"], &slots["b"]),
        (&lonely.into(), &version.into())
    );
    bed.until("the trouble", &["status"], |status| {
        status["trouble"].to_string().contains(&told)
    });
    assert!(bed.vm.power_off(POWER_OFF_LIMIT));
}

#[test]
fn by_uefi_a_kernel_that_never_starts_goes_back_and_another_one_stays() {
    let mut bed = Bed::start("uefi", Firmware::Uefi, Hardware::Virtio, 256);
    bed.joined();
    let wrong = bed.ask(&["update", bed.wow.to_str().unwrap()]);
    assert!(said(&wrong).contains("no Linux kernel"), "{}", said(&wrong));

    // Its own code notices that it cannot be unpacked, and returns to the loader.
    let version = bed.try_dead_image(false);
    let slots = bed.slots("the earlier version", |slots| slots["state"] == "died");
    assert_eq!(
        (&slots["running"], &slots["b"]),
        (&"a".into(), &version.into())
    );

    let (image, version) = bed.next_image(1024);
    let updated = bed.ask(&["update", image.to_str().unwrap(), "--within", AMPLE]);
    assert!(updated.status.success(), "{}", said(&updated));
    let slots = bed.slots("the slots", |_| true);
    assert_eq!(
        (&slots["running"], &slots["state"]),
        (&"b".into(), &"settled".into())
    );
    assert_eq!(slots["b"], version);
    assert!(bed.vm.power_off(POWER_OFF_LIMIT));
}
