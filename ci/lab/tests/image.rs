//! The image boots by each firmware, behind a NAT, and joins a pool with a public seed.
//!
//! `cargo xtask test` runs these: it builds what they need and says where it is.

mod support;

use std::time::Duration;

use wow_builder::host::Tether;
use wow_builder::qemu::{Accelerator, Emulator, Firmware, ImageFiles, Machine};
use wow_lab::report::{nodes_table, pairs_table};
use wow_lab::topology::Topology;
use wow_lab::vms::{Setup, VmTestbed};
use wow_lab::{experiment, interrupt};

use support::path;

/// Under the translator, with other machines on the same cores.
const JOIN_LIMIT: Duration = Duration::from_secs(240);

/// The appliance bounds its own shutdown to less.
const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);

fn check(name: &str, machine: Machine, firmware: Firmware, memory_mib: u32) {
    interrupt::install().unwrap();
    let logs = path("WOW_TEST_LOGS");
    let emulator = Emulator::find().unwrap();
    let accelerator = Accelerator::probe(&emulator, &logs).unwrap();
    let image = path("WOW_TEST_IMAGE");
    let setup = Setup {
        tools: support::tools(),
        emulator,
        accelerator,
        image: ImageFiles {
            kernel: image.join("bzImage"),
            loader: None,
            disk: image.join("disk.raw"),
            own_disk: false,
        },
        machine,
        firmware,
        memory_mib,
        topology: Topology::seed_and_nated(1),
        logs: logs.join(name),
        tether: Tether::Tied,
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
    if machine == Machine::Q35 {
        bed.power_off(POWER_OFF_LIMIT).unwrap();
    }
}

#[test]
fn started_directly_it_joins_in_64_mb() {
    check("direct", Machine::Q35, Firmware::Direct, 64);
}

#[test]
fn started_on_microvm_it_joins_in_64_mb() {
    check("microvm", Machine::Microvm, Firmware::Direct, 64);
}

#[test]
fn started_by_bios_it_joins_in_64_mb() {
    check("bios", Machine::Q35, Firmware::Bios, 64);
}

#[test]
fn started_by_uefi_it_joins() {
    // The firmware itself needs more than the appliance.
    check("uefi", Machine::Q35, Firmware::Uefi, 256);
}
