//! `wow-wan`: the WAN emulator's command line. Standard output carries one JSON line when ready;
//! logs go to standard error, their filter taken from `WOW_LOG`.
#![forbid(unsafe_code)]

use std::{
    future::Future,
    io::{IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use wow_wan::{
    config::Config,
    report::{Ready, Report},
    shell,
};

/// WAN emulator: domains with DHCP, NAT and latency for QEMU machines and network namespaces.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run until SIGTERM or SIGINT.
    Run {
        /// What to emulate (TOML).
        config: PathBuf,
        /// Write what happened as JSON to this file at the end.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
        /// Take commands on this Unix socket, for this user alone: JSON lines.
        #[arg(long, value_name = "SOCKET")]
        control: Option<PathBuf>,
        /// Also end when standard input is closed, as it is when the parent dies.
        #[arg(long)]
        until_stdin_closes: bool,
    },
    /// Check a configuration and print it with all defaults.
    Check {
        /// What to emulate (TOML).
        config: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WOW_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match Cli::parse().verb {
        Verb::Run {
            config,
            report,
            control,
            until_stdin_closes,
        } => run(
            &Config::load(&config)?,
            report.as_deref(),
            control.as_deref(),
            until_stdin_closes,
        ),
        Verb::Check { config } => {
            print!("{}", Config::load(&config)?.to_toml());
            Ok(())
        }
    }
}

fn run(
    config: &Config,
    report: Option<&Path>,
    control: Option<&Path>,
    until_stdin_closes: bool,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop; check the limit of open files (ulimit -n)")?;
    let outcome = runtime.block_on(async {
        // Before the ready line: a signal right after it must not kill us unreported.
        let stop = stop_requested(until_stdin_closes)?;
        Ok::<_, anyhow::Error>(shell::run(config, control, || announce(config), stop).await?)
    })?;
    match report {
        Some(path) => write_report(path, &outcome),
        None => Ok(()),
    }
}

fn announce(config: &Config) {
    let line = serde_json::to_string(&Ready::new(config))
        .expect("strings and numbers only: always expressible in JSON");
    // A reader that has gone away ends us by signal or by standard input, not by this.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn stop_requested(until_stdin_closes: bool) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
    let (closed, on_closed) = tokio::sync::oneshot::channel();
    if until_stdin_closes {
        // A thread of its own: standard input may be anything, and only its end matters.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut input = std::io::stdin().lock();
            while matches!(input.read(&mut buffer), Ok(1..)) {}
            let _ = closed.send(());
        });
    }
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = on_closed, if until_stdin_closes => {}
        }
    })
}

fn write_report(path: &Path, report: &Report) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(report).context("cannot express the report as JSON")?;
    std::fs::write(path, text + "\n")
        .with_context(|| format!("cannot write the report {}", path.display()))
}
