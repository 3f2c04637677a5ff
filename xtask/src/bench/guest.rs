//! `cargo xtask bench guest`: back ends for guests compared in one virtual machine.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use wow_builder::host::Purpose;
use wow_lab::forwarding::{self, BackEnd, Row, Setup, Soak, Verdict};
use wow_lab::interrupt;
use wow_lab::progress::Progress;

use crate::cargo;
use crate::router::{self, Accel, parse_accelerator};

/// What to measure, or how long to soak.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Whom: packet or virtio. Default: both.
    #[arg(long, value_parser = parse_back_end)]
    only: Option<BackEnd>,
    /// How long each flow runs.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Instead of measuring, have so many packets forwarded and look for lost, overtaken and stalled ones.
    #[arg(long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    soak: Option<u64>,
    /// What executes the guest: auto tries kvm with a tiny guest, and falls back to tcg.
    #[arg(long, default_value = "auto", value_parser = parse_accelerator)]
    accel: Accel,
    /// Print the results as JSON.
    #[arg(long)]
    json: bool,
}

/// All that is written as JSON.
#[derive(Serialize)]
struct Report {
    seconds_a_flow: u64,
    accelerator: String,
    rows: Vec<Row>,
    goals: Vec<Verdict>,
}

/// The outcome of a soak.
#[derive(Serialize)]
struct SoakReport {
    back_end: BackEnd,
    accelerator: String,
    #[serde(flatten)]
    soak: Soak,
}

fn parse_back_end(text: &str) -> Result<BackEnd, String> {
    let found = BackEnd::ALL.into_iter().find(|one| one.to_string() == text);
    found.ok_or_else(|| "there are packet and virtio".into())
}

/// Runs it; success when nothing failed.
pub fn run(arguments: &Arguments) -> Result<ExitCode> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the benchmark makes network namespaces: run it as root"
    );
    interrupt::install()?;
    router::ensure_packages(&[Purpose::Boot])?;
    let target = cargo::metadata()?.target_directory.into_std_path_buf();
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let mut machine = router::MachineArguments::plain(arguments.accel);
    machine.memory = None;
    let built = router::build("forwarder")?;
    let (emulator, accelerator) = machine.emulator(&target)?;
    let setup = Setup {
        emulator,
        accelerator,
        image: built.files,
        logs: directory.join("logs/guest"),
    };
    let progress = Progress::to_stderr();
    match arguments.soak {
        Some(packets) => soak(arguments, &setup, &directory, packets, &progress),
        None => measure(arguments, &setup, &directory, &progress),
    }
}

fn measure(
    arguments: &Arguments,
    setup: &Setup,
    directory: &Path,
    progress: &Progress,
) -> Result<ExitCode> {
    let span = Duration::from_secs(arguments.seconds);
    let mut rows = Vec::new();
    for back_end in BackEnd::ALL {
        if arguments.only.is_some_and(|only| only != back_end) {
            continue;
        }
        let task = progress.start(&back_end.to_string());
        rows.push(forwarding::measure(setup, back_end, span, &task)?);
    }
    let table = forwarding::table(&rows);
    let report = Report {
        seconds_a_flow: arguments.seconds,
        accelerator: setup.accelerator.accelerator.name().to_owned(),
        goals: forwarding::verdicts(&rows),
        rows,
    };
    write(arguments, directory, "guest", &report, &table)
}

fn soak(
    arguments: &Arguments,
    setup: &Setup,
    directory: &Path,
    packets: u64,
    progress: &Progress,
) -> Result<ExitCode> {
    let back_end = arguments.only.unwrap_or(BackEnd::Virtio);
    let task = progress.start(&format!("soak of {back_end}"));
    let soak = forwarding::soak(setup, back_end, packets, &task)?;
    drop(task);
    let text = format!(
        "{back_end}: {} packets in {:.0} s ({:.0} a second), {} missing (all counted), none overtaken, \
         longest gap {:.0} ms",
        soak.arrived,
        soak.seconds,
        soak.arrived as f64 / soak.seconds,
        soak.missing,
        soak.longest_gap_ms,
    );
    let report = SoakReport {
        back_end,
        accelerator: setup.accelerator.accelerator.name().to_owned(),
        soak,
    };
    write(arguments, directory, "guest-soak", &report, &text)
}

/// Leaves a report as JSON and as text, and prints one of them.
fn write(
    arguments: &Arguments,
    directory: &Path,
    name: &str,
    report: &impl Serialize,
    text: &str,
) -> Result<ExitCode> {
    let json = serde_json::to_string_pretty(report)?;
    for (ending, text) in [("json", json.as_str()), ("txt", text)] {
        let path = directory.join(format!("{name}.{ending}"));
        std::fs::write(&path, format!("{text}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.display());
    }
    println!("{}", if arguments.json { &json } else { text });
    Ok(ExitCode::SUCCESS)
}
