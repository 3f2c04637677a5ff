//! The WAN emulator as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use wow_builder::host::Guarded;

use crate::control::Control;

/// An order is carried out at once; on a busy machine, soon.
const ORDER_LIMIT: Duration = Duration::from_secs(30);

/// A running emulator.
#[derive(Debug)]
pub struct Wan {
    process: Guarded,
    control: Option<PathBuf>,
    log: PathBuf,
}

impl Wan {
    /// Writes the configuration and runs the emulator on it. `command` is the program, wrapped as it
    /// has to be. With `control`, a socket there takes orders.
    pub fn start(
        mut command: Command,
        config: &Path,
        text: &str,
        control: Option<PathBuf>,
        log: &Path,
    ) -> Result<Self> {
        std::fs::write(config, text)
            .with_context(|| format!("cannot write {}", config.display()))?;
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        command
            .arg("run")
            .arg(config)
            .args(
                control
                    .iter()
                    .flat_map(|socket| ["--control".as_ref(), socket.as_os_str()]),
            )
            .stdin(std::process::Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let process = Guarded::spawn(command).context("cannot run the WAN emulator")?;
        Ok(Self {
            process,
            control,
            log: log.to_path_buf(),
        })
    }

    /// An error when the emulator has ended.
    pub fn check_running(&mut self) -> Result<()> {
        if let Some(status) = self.process.try_wait()? {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let last = text
                .lines()
                .rev()
                .find(|line| !line.trim().is_empty())
                .unwrap_or_default();
            bail!(
                "the WAN emulator ended with {status}: {last} (see {})",
                self.log.display()
            );
        }
        Ok(())
    }

    /// Plugs the port of a place into another domain.
    pub fn move_port(&self, place: &str, domain: &str) -> Result<()> {
        move_port(&mut self.control()?, place, domain)
    }

    /// Lets nothing pass between two domains.
    pub fn cut(&self, a: &str, b: &str) -> Result<()> {
        self.order(json!({"op": "cut", "between": [a, b]}))
            .map(drop)
    }

    /// Lets it pass again.
    pub fn heal(&self, a: &str, b: &str) -> Result<()> {
        self.order(json!({"op": "heal", "between": [a, b]}))
            .map(drop)
    }

    /// Its counters as they stand.
    pub fn report(&self) -> Result<Value> {
        self.order(json!({"op": "report"}))
    }

    fn order(&self, request: Value) -> Result<Value> {
        order(&mut self.control()?, request)
    }

    fn control(&self) -> Result<Control> {
        let socket = self.control.as_deref();
        Control::connect(socket.context("this WAN emulator takes no orders")?)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Gives up ownership of an untied emulator; its process id.
    pub fn release(self) -> u32 {
        self.process.release()
    }
}

/// Plugs the port of a place into another domain.
pub fn move_port(emulator: &mut Control, place: &str, domain: &str) -> Result<()> {
    order(
        emulator,
        json!({"op": "move", "port": place, "domain": domain}),
    )
    .map(drop)
}

/// How often the emulator has connected to the machine of a place.
pub fn connections(emulator: &mut Control, place: &str) -> Result<u64> {
    let report = order(emulator, json!({"op": "report"}))?;
    let ports = report["ports"].as_array();
    let port = ports.and_then(|ports| ports.iter().find(|port| port["name"] == place));
    port.and_then(|port| port["connects"].as_u64())
        .with_context(|| format!("the WAN emulator tells nothing of {place}"))
}

fn order(emulator: &mut Control, request: Value) -> Result<Value> {
    emulator
        .ask(request, ORDER_LIMIT)
        .context("the WAN emulator refuses")
}
