//! The machines of a cluster: started, killed, started again.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use wow_builder::host::Tether;
use wow_builder::host::process::ProcessId;
use wow_builder::manifest::Format;
use wow_builder::qemu::{
    Backend, Firmware, FwCfg, Hardware, ImageFiles, Machine, Nic, Serial, Vm, VmSpec,
};

use super::record::{Member, Record};

/// How long a killed QEMU may take to go.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// What systemd in a guest looks for credentials by.
const TMPFILES_CREDENTIAL: &str = "opt/io.systemd.credentials/tmpfiles.extra";

/// The name of a machine's file with what [`TMPFILES_CREDENTIAL`] carries.
pub(super) const TMPFILES: &str = "tmpfiles";

/// Starts a machine from its disk, or from the CD-ROM.
pub fn boot(record: &mut Record, index: usize, tether: Tether) -> Result<Vm> {
    let name = record.members[index].name.clone();
    ensure!(!record.is_running(index), "{name} runs already");
    let cable = cable(record, &name);
    start(record, index, cable, None, tether)
}

/// Pulls a machine's plug.
pub fn kill(record: &Record, index: usize) -> Result<()> {
    let machine = &record.inventory.machines[index];
    let process = machine.process.as_ref();
    let Some(process) = process.filter(|process| process.is_alive()) else {
        bail!("{} does not run", machine.name);
    };
    ensure!(
        process.kill(KILL_LIMIT),
        "process {} of {} does not end",
        process.pid,
        machine.name
    );
    Ok(())
}

/// The socket at which the emulator looks for a machine's network card.
pub(super) fn cable(record: &Record, name: &str) -> PathBuf {
    record.inventory.private_dir.join(format!("{name}.net"))
}

/// The private file of a machine's next QEMU, so that two can be there at once.
pub(super) fn next_file(record: &Record, index: usize, kind: &str) -> PathBuf {
    let member = &record.members[index];
    let file = format!("{}.{}.{kind}", member.name, member.generation + 1);
    record.inventory.private_dir.join(file)
}

/// Starts the next QEMU of a machine, and notes it in the record.
pub(super) fn start(
    record: &mut Record,
    index: usize,
    cable: PathBuf,
    incoming: Option<PathBuf>,
    tether: Tether,
) -> Result<Vm> {
    let [qmp, control, console] =
        ["qmp", "sock", "serial"].map(|kind| next_file(record, index, kind));
    let generation = record.members[index].generation + 1;
    let member = &record.members[index];
    let image = image(record, member);
    let log = |kind: &str| {
        let file = format!("{}.{generation}.{kind}.log", member.name);
        record.inventory.logs.join(file)
    };
    let spec = VmSpec {
        name: member.name.clone(),
        machine: Machine::Q35,
        hardware: Hardware::Virtio,
        firmware: match image.disk_format {
            Format::Iso => Firmware::Bios,
            _ => Firmware::Direct,
        },
        image,
        uefi: None,
        memory_mib: member.memory_mib,
        cpus: member.cpus,
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x02, member.number],
            backend: Backend::Stream(cable),
        }],
        disks: Vec::new(),
        serial: Serial::Socket {
            path: console.clone(),
            log: log("console"),
        },
        control: Some(control.clone()),
        qmp: Some(qmp.clone()),
        fw_cfg: values(record, member),
        append: Vec::new(),
        reboots: member.disk.is_some(),
        incoming,
        ports: 0,
        rtc: None,
    };
    let messages = log("qemu");
    let vm = Vm::start(
        &record.emulator,
        record.accelerator,
        &spec,
        &messages,
        tether,
    )
    .with_context(|| format!("cannot start {}", spec.name))?;
    let machine = &mut record.inventory.machines[index];
    machine.process = ProcessId::of(vm.pid());
    machine.console = console;
    machine.control = control;
    let member = &mut record.members[index];
    member.generation = generation;
    member.qmp = qmp;
    Ok(vm)
}

fn image(record: &Record, member: &Member) -> ImageFiles {
    match (&member.disk, &member.role) {
        (Some(disk), _) => ImageFiles {
            disk: disk.clone(),
            own_disk: true,
            ..record.workstation.clone()
        },
        (None, Some(_)) => record.workstation.clone(),
        (None, None) => record.seed.clone(),
    }
}

fn values(record: &Record, member: &Member) -> Vec<FwCfg> {
    let private = &record.inventory.private_dir;
    let ticket = member.role.as_deref().unwrap_or(super::SEED_ROLE);
    let mut values = vec![
        FwCfg {
            name: "opt/wow/ticket".into(),
            file: private.join(format!("{ticket}.ticket")),
        },
        FwCfg {
            name: "opt/wow/name".into(),
            file: private.join(format!("{}.name", member.name)),
        },
    ];
    if member.role.is_some() {
        values.push(FwCfg {
            name: TMPFILES_CREDENTIAL.into(),
            file: private.join(TMPFILES),
        });
    }
    values
}
