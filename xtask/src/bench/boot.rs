//! `cargo xtask bench boot`: how long the router's image takes from power-on to the pool.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use serde::Serialize;
use wow_builder::host::Purpose;
use wow_builder::qemu::{Firmware, ImageFiles};
use wow_lab::boots::{self, Plan, Row, WAYS, Way};
use wow_lab::progress::Progress;
use wow_lab::{Tools, interrupt};

use crate::router::{self, Accel, MachineArguments};
use crate::{cargo, image};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Ways to boot, separated by commas: microvm-direct, q35-direct, q35-bios, q35-uefi. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = parse_way)]
    only: Vec<Way>,
    /// How often each boots.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// What executes the guests: auto tries kvm with a tiny guest, and falls back to tcg.
    #[arg(long, default_value = "auto", value_parser = router::parse_accelerator)]
    accel: Accel,
    /// A kernel to start directly instead of the one built now, to compare with it.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// All that is written as JSON.
#[derive(Serialize)]
struct Report {
    accelerator: String,
    processors: usize,
    kernel_bytes: u64,
    rows: Vec<Row>,
}

fn parse_way(text: &str) -> Result<Way, String> {
    let name = |way: &Way| way.name().replace(' ', "-");
    let found = WAYS.into_iter().find(|way| name(way) == text);
    found.ok_or_else(|| format!("there are {}", WAYS.map(|way| name(&way)).join(", ")))
}

/// Builds the image, boots it again and again, and prints the medians.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    interrupt::install()?;
    router::ensure_packages(&[Purpose::Image, Purpose::Boot])?;
    let manifest = image::build("router", &[])?;
    let metadata = cargo::metadata()?;
    let target = metadata.target_directory.as_std_path();
    let tools = Tools {
        wow: router::wow(target)?,
        wan: cargo::build_wan(metadata.workspace_root.as_std_path(), target)?,
    };
    let (emulator, accelerator) = MachineArguments::plain(arguments.accel).emulator(target)?;
    let directory = target.join("bench");
    let logs = directory.join("boot-logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
    let mut files = ImageFiles::of(&manifest)?;
    let mut ways = match arguments.only.is_empty() {
        true => WAYS.to_vec(),
        false => arguments.only.clone(),
    };
    if let Some(kernel) = &arguments.kernel {
        files.kernel = kernel.clone();
        // The disk holds the other one.
        ways.retain(|way| way.firmware == Firmware::Direct);
    }
    let kernel_bytes = std::fs::metadata(&files.kernel)
        .with_context(|| format!("cannot read {}", files.kernel.display()))?
        .len();
    let plan = Plan {
        tools,
        emulator,
        accelerator: accelerator.clone(),
        image: files,
        ways,
        runs: arguments.runs,
        logs: &logs,
    };
    let progress = Progress::to_stderr();
    let task = progress.start("boots");
    let rows = boots::run(&plan, &task)?;
    drop(task);
    let mut table = boots::table(&rows);
    table.push_str(&format!(
        "\nkernel and initramfs: {kernel_bytes} bytes; {accelerator}"
    ));
    let report = Report {
        accelerator: accelerator.to_string(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        kernel_bytes,
        rows,
    };
    let json = serde_json::to_string_pretty(&report)?;
    for (name, text) in [("boot.json", &json), ("boot.txt", &table)] {
        let path = directory.join(name);
        std::fs::write(&path, format!("{text}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    println!("{}", if arguments.json { &json } else { &table });
    Ok(ExitCode::SUCCESS)
}
