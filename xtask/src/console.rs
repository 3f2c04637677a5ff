//! `cargo xtask console NAME`: this terminal on the serial port of a machine that was left running.

use std::io::{IsTerminal, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail, ensure};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use wow_lab::kept::Inventory;

use crate::{demo, lab};

/// Ctrl-], as telnet has it: not used by shells, unlike Ctrl-A and Ctrl-C.
const ESCAPE: u8 = 0x1d;

/// Which machine.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The machine's name, as `lab status` and the demo's table have it.
    name: String,
}

/// Runs until Ctrl-] or the machine's end.
pub fn run(arguments: &Arguments) -> Result<()> {
    let mut machines = Vec::new();
    for file in [lab::cluster::file()?, demo::kept_file()?] {
        let kept = Inventory::load(&file)?;
        machines.extend(kept.into_iter().flat_map(|kept| kept.machines));
    }
    ensure!(
        !machines.is_empty(),
        "no machine was left running: start some with `cargo xtask lab up` or `cargo xtask demo --keep`"
    );
    let found = machines
        .iter()
        .find(|machine| machine.name == arguments.name);
    let Some(machine) = found else {
        let names: Vec<_> = machines
            .iter()
            .map(|machine| machine.name.as_str())
            .collect();
        bail!(
            "there is no machine {:?}; there are {}",
            arguments.name,
            names.join(", ")
        );
    };
    let stream = UnixStream::connect(&machine.console)
        .with_context(|| format!("{} has no console any more (has it ended?)", machine.name))?;
    eprintln!("console of {}; Ctrl-] leaves it", machine.name);
    let raw = RawTerminal::enter()?;
    let result = join(stream);
    drop(raw);
    eprintln!();
    result
}

fn join(stream: UnixStream) -> Result<()> {
    let mut input = stream.try_clone()?;
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut bytes = [0; 256];
        // The console's end ends the process, and with it this thread.
        while let Ok(count) = stdin.read(&mut bytes) {
            let typed = &bytes[..count];
            let end = typed.iter().position(|byte| *byte == ESCAPE);
            let sent = input.write_all(&typed[..end.unwrap_or(count)]);
            if count == 0 || end.is_some() || sent.is_err() {
                break;
            }
        }
        // Fails only if it is closed already.
        let _ = input.shutdown(Shutdown::Both);
    });
    let mut output = std::io::stdout().lock();
    let mut bytes = [0; 4096];
    let mut stream = stream;
    loop {
        match stream.read(&mut bytes)? {
            0 => return Ok(()),
            count => {
                output.write_all(&bytes[..count])?;
                output.flush()?;
            }
        }
    }
}

/// Keys go through as they are typed, until this is dropped.
struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self { before: None });
        }
        let before = tcgetattr(&stdin).context("cannot read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("cannot set the terminal up")?;
        Ok(Self {
            before: Some(before),
        })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that is gone needs no repair.
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, before);
        }
    }
}
