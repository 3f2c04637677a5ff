//! The image boots by each firmware, behind a NAT, and joins a pool with a public seed.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use wow_builder::definition::Definition;
use wow_builder::disk::vmdk;
use wow_builder::host::Tether;
use wow_builder::manifest::Format;
use wow_builder::ova;
use wow_builder::qemu::{Accelerator, Emulator, Firmware, Hardware, ImageFiles, Machine};
use wow_lab::progress::Progress;
use wow_lab::report::{nodes_table, pairs_table};
use wow_lab::topology::Topology;
use wow_lab::vms::{Setup, VmTestbed};
use wow_lab::{boots, experiment, interrupt};

use support::path;

/// Under the translator, with other machines on the same cores.
const JOIN_LIMIT: Duration = Duration::from_secs(240);

/// The appliance bounds its own shutdown to less.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);

/// A machine to boot the image on.
struct Case {
    name: &'static str,
    machine: Machine,
    hardware: Hardware,
    firmware: Firmware,
    memory_mib: u32,
}

const DIRECT: Case = Case {
    name: "direct",
    machine: Machine::Q35,
    hardware: Hardware::Virtio,
    firmware: Firmware::Direct,
    memory_mib: 64,
};

/// The image as a CD-ROM.
fn disc() -> ImageFiles {
    as_file("disc.iso", Format::Iso)
}

/// The image as one of its other files.
fn as_file(name: &str, disk_format: Format) -> ImageFiles {
    ImageFiles {
        disk: path("WOW_TEST_IMAGE").join(name),
        disk_format,
        ..support::built()
    }
}

fn check(case: &Case, image: ImageFiles) {
    interrupt::install().unwrap();
    let logs = path("WOW_TEST_LOGS");
    let emulator = Emulator::find().unwrap();
    let accelerator = Accelerator::probe(&emulator, &logs).unwrap();
    let setup = Setup {
        tools: support::tools(),
        emulator,
        accelerator,
        image,
        machine: case.machine,
        hardware: case.hardware,
        firmware: case.firmware,
        memory_mib: case.memory_mib,
        topology: Topology::seed_and_nated(1),
        logs: logs.join(case.name),
        tether: Tether::Tied,
        more: Vec::new(),
    };
    let mut bed = VmTestbed::start(&setup).unwrap();
    let nodes = bed.nodes().to_vec();
    let joined =
        experiment::join(&nodes, JOIN_LIMIT, &|_| (), &mut || bed.check_running()).unwrap();
    let pairs = experiment::ping_all(&nodes, &joined, 3, &|_| ()).unwrap();
    assert_eq!(pairs.len(), 2);
    println!("{}\n{}", nodes_table(&joined), pairs_table(&pairs));
    assert!(
        pairs.iter().all(|pair| pair.answered()),
        "logs: {}",
        bed.logs().display()
    );
    // microvm runs without ACPI, so it has no power button.
    if case.machine == Machine::Q35 {
        bed.power_off(POWER_OFF_LIMIT).unwrap();
    }
}

#[test]
fn started_directly_it_joins_in_64_mb() {
    check(&DIRECT, support::built());
}

#[test]
fn started_on_microvm_it_joins_in_64_mb() {
    let case = Case {
        name: "microvm",
        machine: Machine::Microvm,
        ..DIRECT
    };
    check(&case, support::built());
}

#[test]
fn started_by_bios_with_plain_hardware_it_joins_in_64_mb() {
    let case = Case {
        name: "bios",
        firmware: Firmware::Bios,
        hardware: Hardware::Plain,
        ..DIRECT
    };
    check(&case, support::built());
}

#[test]
fn started_from_qcow2_it_joins_in_64_mb() {
    let case = Case {
        name: "qcow2",
        firmware: Firmware::Bios,
        ..DIRECT
    };
    check(&case, as_file("disk.qcow2", Format::Qcow2));
}

#[test]
fn started_by_uefi_it_joins() {
    let case = Case {
        name: "uefi",
        firmware: Firmware::Uefi,
        // The firmware itself needs more than the appliance.
        memory_mib: 256,
        ..DIRECT
    };
    check(&case, support::built());
}

#[test]
fn started_from_a_cd_rom_by_bios_it_joins_in_64_mb() {
    let case = Case {
        name: "disc-bios",
        firmware: Firmware::Bios,
        ..DIRECT
    };
    check(&case, disc());
}

#[test]
fn started_from_a_cd_rom_by_uefi_with_vmwares_hardware_it_joins() {
    let case = Case {
        name: "disc-uefi",
        firmware: Firmware::Uefi,
        hardware: Hardware::Vmware,
        memory_mib: 256,
        ..DIRECT
    };
    check(&case, disc());
}

#[test]
fn one_that_boots_again_and_again_joins_each_time() {
    interrupt::install().unwrap();
    let logs = path("WOW_TEST_LOGS");
    let emulator = Emulator::find().unwrap();
    let plan = boots::Plan {
        tools: support::tools(),
        accelerator: Accelerator::probe(&emulator, &logs).unwrap(),
        emulator,
        image: support::built(),
        ways: boots::WAYS[..1].to_vec(),
        runs: 2,
        logs: &logs.join("boots"),
    };
    let rows = boots::run(&plan, &Progress::to_stderr().start("boots")).unwrap();
    println!("{}", boots::table(&rows));
    let [row] = &rows[..] else {
        panic!("one way was asked for: {rows:?}");
    };
    assert_eq!(row.boots.len(), 2);
    assert_ne!(row.boots[0].id, row.boots[1].id, "each boot is a new node");
}

/// Packs the disk as an OVA and takes it out again with programs that know nothing of ours.
fn through_ova(raw: &Path, directory: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Definition::Appliance(definition) = Definition::load(&root, "router").unwrap() else {
        panic!("the router is an appliance");
    };
    let (vmdk, archive) = (directory.join("vmdk"), directory.join("machine.ova"));
    vmdk::convert(raw, &vmdk).unwrap();
    let contents = ova::Contents {
        name: &definition.name,
        machine: &definition.machine,
        vmdk: &vmdk,
        capacity_bytes: raw.metadata().unwrap().len(),
    };
    ova::write(&contents, &archive).unwrap();
    let run = |program: &str, arguments: &[&OsStr]| {
        let mut command = Command::new(program);
        let status = command.args(arguments).current_dir(directory).status();
        assert!(status.unwrap().success(), "{command:?}");
    };
    run("tar", &["-xf".as_ref(), archive.as_ref()]);
    run("sha256sum", &["--check".as_ref(), "router.mf".as_ref()]);
    let disk = directory.join("router-disk1.vmdk");
    let formats = ["compare", "-f", "raw", "-F", "vmdk"].map(OsStr::new);
    let disks = [raw.as_os_str(), disk.as_os_str()];
    run("qemu-img", &[&formats[..], &disks].concat());
    disk
}

#[test]
fn out_of_an_ova_with_vmwares_hardware_it_joins() {
    let directory = tempfile::tempdir().unwrap();
    let image = support::built();
    let disk = through_ova(&image.disk, directory.path());
    let case = Case {
        name: "ova",
        firmware: Firmware::Bios,
        hardware: Hardware::Vmware,
        ..DIRECT
    };
    let image = ImageFiles {
        disk,
        disk_format: Format::Vmdk,
        ..image
    };
    check(&case, image);
}
