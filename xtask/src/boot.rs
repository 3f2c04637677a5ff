//! `cargo xtask boot IMAGE`: one machine with its serial console on this terminal.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wow_builder::disk::sparse;
use wow_builder::host::{Purpose, Tether};
use wow_builder::qemu::{Backend, Firmware, FwCfg, Nic, Serial, Uefi, Vm, VmSpec};
use wow_lab::run_dir::RunDir;

use crate::cargo;
use crate::router::{self, MachineArguments};

/// What to boot, and how.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The image: a name under `images/`, such as router or workstation.
    image: String,
    #[command(flatten)]
    machine: MachineArguments,
    /// The pool's ticket, as `wow pool ticket` writes it. Without one the machine waits for it.
    #[arg(long)]
    ticket: Option<PathBuf>,
    /// The node's name.
    #[arg(long)]
    name: Option<String>,
    /// Words for the kernel's command line, such as `wow.log=debug` (firmware direct alone).
    #[arg(long, allow_hyphen_values = true)]
    append: Vec<String>,
    /// How large a Debian image's disk is made for this machine, such as 20G; the root grows with it.
    #[arg(long, value_name = "SIZE", default_value = "8G", value_parser = router::parse_memory)]
    disk: u32,
    /// Boot the image's CD-ROM, by BIOS unless UEFI is asked for. The machine has no disk.
    #[arg(long, conflicts_with = "disk")]
    disc: bool,
    /// Keep the machine's disk, sockets and console log when it has ended.
    #[arg(long)]
    keep: bool,
}

/// Runs the machine until it ends.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    arguments.machine.check()?;
    router::ensure_packages(&[Purpose::Boot])?;
    let mut built = match arguments.disc {
        true => router::build_disc(&arguments.image, &[])?,
        false => router::build(&arguments.image)?,
    };
    let target = cargo::metadata()?.target_directory.into_std_path_buf();
    let (emulator, choice) = arguments.machine.emulator(&target)?;
    // The machine itself ends with us either way.
    let files = if arguments.keep {
        Tether::Free
    } else {
        Tether::Tied
    };
    let dir = RunDir::new(&target.join("boot"), files)?;
    if built.files.loader.is_some() && !arguments.disc {
        let disk = dir.private("disk.raw");
        sparse::copy_file(&built.files.disk, &disk, u64::from(arguments.disk) << 20)
            .with_context(|| format!("cannot make the machine's disk {}", disk.display()))?;
        built.files.disk = disk;
        built.files.own_disk = true;
    }
    let spec = spec(arguments, built, &dir)?;
    eprintln!(
        "{} boots on {} by {}",
        spec.name, spec.machine, spec.firmware
    );
    eprintln!("Ctrl-A x ends the machine, Ctrl-A c opens QEMU's monitor, Ctrl-A h helps");
    if let Some(control) = &spec.control {
        let wow = router::wow(&target)?;
        eprintln!(
            "ask it with: {} status --socket {}",
            wow.display(),
            control.display()
        );
    }
    let log = dir.log("qemu.log");
    let mut vm = Vm::start(&emulator, choice.accelerator, &spec, &log, Tether::Tied)?;
    let status = vm.wait()?;
    if arguments.keep {
        eprintln!("console log: {}", dir.log("console.log").display());
        eprintln!(
            "disk, sockets and firmware variables: {}",
            dir.keep().display()
        );
    }
    if !status.success() {
        bail!("QEMU ended with {status}");
    }
    Ok(ExitCode::SUCCESS)
}

fn spec(arguments: &Arguments, built: router::Built, dir: &RunDir) -> Result<VmSpec> {
    let name = arguments
        .name
        .clone()
        .unwrap_or_else(|| arguments.image.clone());
    let debian = built.files.loader.is_some();
    let mut fw_cfg = Vec::new();
    if let Some(ticket) = &arguments.ticket {
        let file = ticket
            .canonicalize()
            .with_context(|| format!("cannot find the ticket {}", ticket.display()))?;
        fw_cfg.push(FwCfg {
            name: "opt/wow/ticket".into(),
            file,
        });
    }
    if let Some(name) = &arguments.name {
        let file = dir.private("name");
        std::fs::write(&file, name)?;
        fw_cfg.push(FwCfg {
            name: "opt/wow/name".into(),
            file,
        });
    }
    let firmware = match arguments.machine.firmware {
        Firmware::Direct if arguments.disc => Firmware::Bios,
        firmware => firmware,
    };
    Ok(VmSpec {
        name,
        machine: arguments.machine.machine,
        hardware: arguments.machine.hardware,
        firmware,
        image: built.files,
        uefi: match firmware {
            Firmware::Uefi => Uefi::prepare(&dir.private("vars"))?,
            Firmware::Direct | Firmware::Bios => None,
        },
        memory_mib: arguments.machine.memory_mib(debian),
        cpus: if debian { 2 } else { 1 },
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x01, 0x01],
            backend: Backend::User,
        }],
        disks: Vec::new(),
        serial: Serial::Terminal {
            log: arguments.keep.then(|| dir.log("console.log")),
        },
        control: Some(dir.private("sock")),
        qmp: Some(dir.private("qmp")),
        fw_cfg,
        append: arguments.append.clone(),
        reboots: true,
        incoming: None,
        ports: 0,
        rtc: None,
    })
}
