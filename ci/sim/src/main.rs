//! `wow-sim`: one simulated pool, or many, and what was found.

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Parser;
use serde::Serialize;
use wow_sim::crypto::Crypto;
use wow_sim::faults::Faults;
use wow_sim::matrix::{Matrix, matrix};
use wow_sim::network::mix::NatMix;
use wow_sim::production::simulate;
use wow_sim::report::Report;
use wow_sim::scenario::{LIMIT, NODES_MAX, PREFIX, Scenario, idle_for_pool_of, prefix_max};
use wow_sim::sweep::{parse_seeds, sweep};
use wow_sim::text::parse_duration;

/// Nodes that are worth another thread: below, threads wait for each other more than they do.
const NODES_PER_THREAD: usize = 250;
/// A simulation is many small allocations, freed by other threads than have made them: with this
/// allocator two threads take a sixth less time than with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds one command runs, at most.
const SEEDS_MAX: usize = 100_000;

/// Simulates a pool: production protocol code on virtual time.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask sim", bin_name = "cargo xtask sim")]
struct Args {
    /// How many nodes
    #[arg(long, default_value_t = 200)]
    nodes: usize,
    /// Which seeds: 7, or 1-20, or 1-5,9
    #[arg(long, default_value = "1")]
    seed: String,
    /// What goes wrong: loss=5%,dup=1%,jitter=20ms all along; at a moment (@3s, else when the ring
    /// stands) kill=20%, stop=20%, rebind=50%, move=10%, revoke=2%; for a while (:20s) restart=10%, churn=2%,
    /// partition=50%, storm=30%, pause=10%
    #[arg(long, default_value = "", hide_default_value = true)]
    faults: Faults,
    /// Bits that all of the pool's IPv4 addresses share: with more there are fewer addresses, and
    /// more nodes that want the same one
    #[arg(long, default_value_t = PREFIX)]
    prefix: u8,
    /// What stands before domains, with weights: none=1,full-cone,restricted,port-restricted=3,
    /// symmetric,symmetric-next,udp-blocked
    #[arg(long, default_value = "none")]
    nat: NatMix,
    /// Virtual seconds to converge in
    #[arg(long, default_value_t = LIMIT.as_secs())]
    seconds: u64,
    /// Time within which nodes start
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    join_window: Duration,
    /// For how long idle traffic is measured, 0s for not at all; 20s up to 2000 nodes when not given
    #[arg(long, value_parser = parse_duration)]
    idle: Option<Duration>,
    /// Real cryptography or its stand-in; real up to 500 nodes when not given
    #[arg(long)]
    crypto: Option<Crypto>,
    /// Threads for runs side by side, or for a single one; as many as there are cores when not given.
    /// Their number changes no result
    #[arg(long)]
    threads: Option<usize>,
    /// Instead of a pool: which path each pair of NAT kinds gets, and when
    #[arg(long, conflicts_with_all = ["faults", "nat", "nodes"])]
    nat_matrix: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write the JSON to this file too
    #[arg(long)]
    report: Option<PathBuf>,
}

/// What the command reports to programs.
#[derive(Serialize)]
struct Outcome {
    passed: bool,
    wall_ms: u128,
    /// Growth of the resident set by node, when a single run was measured: an estimate from
    /// above, as the simulator's own share is in it.
    memory_per_node_bytes: Option<u64>,
    runs: Vec<Report>,
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if !(1..=NODES_MAX).contains(&args.nodes) {
        anyhow::bail!("--nodes {}: give 1 to {NODES_MAX}", args.nodes);
    }
    let prefixes = PREFIX..=prefix_max(args.nodes);
    if !prefixes.contains(&args.prefix) {
        let (least, most) = (prefixes.start(), prefixes.end());
        anyhow::bail!(
            "--prefix {}: give {least} to {most} for {} nodes",
            args.prefix,
            args.nodes
        );
    }
    let seeds = parse_seeds(&args.seed, SEEDS_MAX).map_err(|error| anyhow!("--seed {error}"))?;
    if args.nat_matrix {
        let matrices: Vec<_> = seeds.into_iter().map(matrix).collect();
        return show_matrices(&matrices, args.json);
    }
    let scenarios: Vec<Scenario> = seeds
        .into_iter()
        .map(|seed| Scenario {
            faults: args.faults.clone(),
            nat: args.nat.clone(),
            join_window: args.join_window,
            limit: Duration::from_secs(args.seconds),
            idle: args.idle.unwrap_or(idle_for_pool_of(args.nodes)),
            crypto: args.crypto.unwrap_or(Crypto::for_pool_of(args.nodes)),
            prefix: args.prefix,
            ..Scenario::new(args.nodes, seed)
        })
        .collect();
    let threads = args
        .threads
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1);

    // Many runs share the threads without ever waiting for each other; one run cannot.
    let (at_once, each) = match scenarios.len() {
        1 => (1, threads.clamp(1, (args.nodes / NODES_PER_THREAD).max(1))),
        _ => (threads, 1),
    };

    let started = Instant::now();
    let before = peak_resident_bytes();
    let runs = sweep(&scenarios, at_once, |scenario| {
        let report = simulate(scenario, each);
        if !args.json {
            say(format_args!("{report}\n"));
        }
        report
    });
    let grown = peak_resident_bytes().zip(before);
    let outcome = Outcome {
        passed: runs.iter().all(|run| run.passed),
        wall_ms: started.elapsed().as_millis(),
        memory_per_node_bytes: grown
            .filter(|_| runs.len() == 1)
            .map(|(after, before)| after.saturating_sub(before) / args.nodes as u64),
        runs,
    };
    let json = serde_json::to_string_pretty(&outcome).context("cannot encode the report")?;
    if let Some(path) = &args.report {
        std::fs::write(path, &json)
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    if args.json {
        say(format_args!("{json}"));
    } else {
        summarise(&outcome);
    }
    Ok(if outcome.passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Prints the matrices; fails when some pair is not connected.
fn show_matrices(matrices: &[Matrix], json: bool) -> anyhow::Result<ExitCode> {
    if json {
        let text = serde_json::to_string_pretty(matrices).context("cannot encode the matrix")?;
        say(format_args!("{text}"));
    } else {
        for matrix in matrices {
            say(format_args!("seed {}\n{matrix}", matrix.seed));
        }
    }
    let mut pairs = matrices.iter().flat_map(|matrix| &matrix.pairs);
    Ok(match pairs.all(|pair| pair.connected_ms.is_some()) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn summarise(outcome: &Outcome) {
    let failed: Vec<&Report> = outcome.runs.iter().filter(|run| !run.passed).collect();
    for run in &failed {
        // A run that panicked has not been printed yet.
        for violation in &run.violations {
            say(format_args!("seed {} violated {violation}", run.seed));
        }
        say(format_args!("reproduce: {}", run.command));
    }
    let seconds = outcome.wall_ms as f64 / 1e3;
    let memory = match outcome.memory_per_node_bytes {
        Some(bytes) => format!(", {} KiB a node", bytes / 1024),
        None => String::new(),
    };
    say(format_args!(
        "{} runs, {} failed, {seconds:.1} s of wall time{memory}",
        outcome.runs.len(),
        failed.len()
    ));
}

/// Prints a line. Whoever closes the pipe has seen enough: the runs and the verdict go on.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The largest resident set so far, as Linux tells it.
fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}
