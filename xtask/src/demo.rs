//! `cargo xtask demo`: three routers behind NATs and a public seed, booted from an image built
//! now; everyone joins and pings everyone.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use wow_builder::host::{Purpose, Tether};
use wow_lab::kept::Inventory;
use wow_lab::progress::Progress;
use wow_lab::report::{Report, nodes_table, pairs_table};
use wow_lab::topology::Topology;
use wow_lab::vms::{Setup, VmTestbed};
use wow_lab::{Tools, demo, interrupt};

use crate::cargo;
use crate::router::{self, MachineArguments};

/// How to demonstrate.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    machine: MachineArguments,
    /// Leave everything running, each machine with a console.
    #[arg(long)]
    keep: bool,
    /// Write the results as JSON, too.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// End what an earlier `--keep` has left running, and nothing else.
    #[arg(long, conflicts_with_all = ["keep", "report"])]
    stop: bool,
}

/// Runs the demonstration; success only when all joined and every pair answered.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    let kept_file = kept_file()?;
    let kept = Inventory::load(&kept_file)?;
    if arguments.stop {
        match kept {
            Some(kept) => eprintln!("ended {} processes", kept.end(&kept_file)?),
            None => eprintln!("no demo was left running"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    arguments.machine.check()?;
    interrupt::install()?;
    if let Some(kept) = kept {
        eprintln!("ending the demo that was left running");
        kept.end(&kept_file)?;
    }
    router::ensure_packages(&[Purpose::Image, Purpose::Boot])?;
    let built = router::build("router")?;
    let metadata = cargo::metadata()?;
    let target = metadata.target_directory.as_std_path();
    let tools = Tools {
        wow: router::wow(target)?,
        wan: cargo::build_wan(metadata.workspace_root.as_std_path(), target)?,
    };
    let (emulator, accelerator) = arguments.machine.emulator(target)?;
    interrupt::check()?;
    let setup = Setup {
        tools,
        emulator,
        accelerator,
        image: built.files,
        machine: arguments.machine.machine,
        hardware: arguments.machine.hardware,
        firmware: arguments.machine.firmware,
        memory_mib: arguments.machine.memory_mib(false),
        topology: Topology::seed_and_nated(demo::DOMAINS),
        logs: target.join("demo"),
        tether: if arguments.keep {
            Tether::Free
        } else {
            Tether::Tied
        },
        more: Vec::new(),
    };
    let progress = Progress::to_stderr();
    progress.say("a public seed and three domains behind NATs, one router in each");
    let mut bed = VmTestbed::start(&setup)?;
    if arguments.keep {
        // Written before anything is waited for: should we be killed, `--stop` finds it all.
        bed.inventory().save(&kept_file)?;
    }
    let report = demo::run(&setup, &mut bed, &progress);
    print(&report);
    if let Some(file) = &arguments.report {
        save(&report, file)?;
    }
    // A demo that failed is kept as well: it is there to be looked at.
    if arguments.keep && !interrupt::requested() {
        explain(&bed.inventory(), &setup.tools);
        bed.release();
    } else if arguments.keep {
        drop(bed);
        std::fs::remove_file(&kept_file).context("cannot forget the interrupted demo")?;
    }
    Ok(if report.ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Where a kept demo is written down.
pub fn kept_file() -> Result<PathBuf> {
    Ok(cargo::metadata()?
        .target_directory
        .into_std_path_buf()
        .join("demo-kept.json"))
}

fn print(report: &Report) {
    println!("{}", nodes_table(&report.nodes));
    println!("{}", pairs_table(&report.pairs));
    match &report.error {
        None => println!(
            "all {} nodes joined, all {} pings were answered",
            report.nodes.len(),
            report.pairs.len()
        ),
        Some(error) => {
            eprintln!("error: {error}");
            eprintln!("console logs: {}", report.logs);
        }
    }
}

fn save(report: &Report, file: &Path) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(report)?;
    text.push(b'\n');
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

fn explain(kept: &Inventory, tools: &Tools) {
    println!("\nleft running; a console each (Ctrl-] leaves it):");
    for machine in &kept.machines {
        println!("  cargo xtask console {}", machine.name);
    }
    println!("ask a node:");
    for machine in &kept.machines {
        println!(
            "  {} status --socket {}",
            tools.wow.display(),
            machine.control.display()
        );
    }
    println!("end it all:\n  cargo xtask demo --stop");
}
