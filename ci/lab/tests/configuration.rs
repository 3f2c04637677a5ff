//! A machine without a configuration waits for one, and takes it from a disk that is attached while it runs.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use wow_builder::host::Tether;
use wow_builder::manifest::Format;
use wow_builder::qemu::qmp::Qmp;
use wow_builder::qemu::{
    Accelerator, Backend, Emulator, Firmware, Hardware, ImageFiles, Machine, Nic, Serial, Vm,
    VmSpec,
};
use wow_lab::interrupt;

use support::path;

/// Under the translator, with other machines on the same cores.
const LIMIT: Duration = Duration::from_secs(240);
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);

fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A floppy's worth of FAT with these files.
fn disk(directory: &Path, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let image = directory.join(format!("{name}.img"));
    let shown = image.to_str().unwrap();
    run(
        "mkfs.vfat",
        &["--invariant", "-n", "WOW", "-C", shown, "1440"],
    );
    for (file, content) in files {
        let source = directory.join(file);
        std::fs::write(&source, content).unwrap();
        run("mcopy", &["-i", shown, source.to_str().unwrap(), "::"]);
    }
    image
}

/// Waits until `look` gives something.
fn wait<T>(what: &str, vm: &mut Vm, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        vm.check_running().unwrap();
        interrupt::check().unwrap();
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_disk_attached_later_ends_the_wait_and_a_broken_one_is_named() {
    interrupt::install().unwrap();
    let logs = path("WOW_TEST_LOGS").join("configuration");
    std::fs::create_dir_all(&logs).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let private = |name: &str| directory.path().join(name);
    let (image, wow) = (path("WOW_TEST_IMAGE"), support::tools().wow);
    let emulator = Emulator::find().unwrap();
    let accelerator = Accelerator::probe(&emulator, &logs).unwrap();
    let console = logs.join("console.log");
    // What an earlier run wrote is not to be waited for.
    let _ = std::fs::remove_file(&console);
    let spec = VmSpec {
        name: "configuration".into(),
        machine: Machine::Q35,
        // Its disks' controller takes more of them while the machine runs.
        hardware: Hardware::Vmware,
        firmware: Firmware::Bios,
        image: ImageFiles {
            kernel: image.join("bzImage"),
            loader: None,
            disk: image.join("disk.raw"),
            disk_format: Format::Raw,
            own_disk: false,
        },
        uefi: None,
        memory_mib: 64,
        cpus: 1,
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x02, 0x01],
            backend: Backend::User,
        }],
        disks: Vec::new(),
        serial: Serial::Socket {
            path: private("serial"),
            log: console.clone(),
        },
        control: Some(private("control")),
        qmp: Some(private("qmp")),
        fw_cfg: Vec::new(),
        append: Vec::new(),
        reboots: false,
        incoming: None,
    };
    let messages = logs.join("qemu.log");
    let mut vm = Vm::start(
        &emulator,
        accelerator.accelerator,
        &spec,
        &messages,
        Tether::Tied,
    )
    .unwrap();
    let said = |words: &str| {
        let log = std::fs::read(&console).unwrap_or_default();
        String::from_utf8_lossy(&log).contains(words).then_some(())
    };
    wait("what it looks for", &mut vm, || {
        said("labelled WOW with the file wow.toml: ticket")
    });

    let broken = disk(directory.path(), "broken", &[("ticket", b"\xff\xfe")]);
    let mut qmp = Qmp::connect(&private("qmp")).unwrap();
    qmp.attach_scsi_disk("broken", &broken, false).unwrap();
    wait("the broken disk", &mut vm, || {
        said("(FAT, WOW), ticket: is no text")
    });

    run(
        &wow,
        &[
            "pool",
            "new",
            "lab",
            "--dir",
            directory.path().to_str().unwrap(),
        ],
    );
    run(
        &wow,
        &["pool", "ticket", private("lab.pool").to_str().unwrap()],
    );
    let ticket = std::fs::read(private("lab.ticket")).unwrap();
    let good = [
        ("ticket", &ticket[..]),
        ("wow.toml", b"name = \"from-disk\"\n"),
    ];
    let good = disk(directory.path(), "good", &good);
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
