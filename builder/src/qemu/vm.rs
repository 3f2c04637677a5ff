//! A running virtual machine: started from its description, ended with its owner.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::probe::{Accelerator, Emulator};
use super::qmp::Qmp;
use super::spec::{Serial, SpecError, VmSpec};
use crate::host::process::{Guarded, Tether, guarded_command};

/// Between presses of the power button.
const PRESS_AGAIN: Duration = Duration::from_secs(15);
/// QEMU's end after its control socket's.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a machine could not be started or ended.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// The description makes no machine.
    #[error("virtual machine {name}: {source}")]
    Spec {
        /// The machine.
        name: String,
        /// The cause.
        source: SpecError,
    },
    /// QEMU ended at once.
    #[error("virtual machine {name} ended with {status}: {message}")]
    Ended {
        /// The machine.
        name: String,
        /// How.
        status: ExitStatus,
        /// What QEMU said.
        message: String,
    },
    /// A file, process or socket could not be handled.
    #[error("virtual machine {name}: {what}: {source}")]
    Io {
        /// The machine.
        name: String,
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

/// Ends with the value, and with the process that owns it.
#[derive(Debug)]
pub struct Vm {
    name: String,
    process: Guarded,
    qmp: Option<PathBuf>,
    messages: Option<PathBuf>,
    started: Instant,
}

impl Vm {
    /// Starts a machine. Without a terminal console QEMU's own messages go to `messages`.
    pub fn start(
        emulator: &Emulator,
        accelerator: Accelerator,
        spec: &VmSpec,
        messages: &Path,
        tether: Tether,
    ) -> Result<Self, VmError> {
        let name = spec.name.clone();
        let arguments = spec
            .arguments(accelerator)
            .map_err(|source| VmError::Spec {
                name: name.clone(),
                source,
            })?;
        let io_error = |what: String| {
            let name = name.clone();
            move |source| VmError::Io { name, what, source }
        };
        let mut command = guarded_command(&emulator.program, tether);
        command.args(arguments);
        let started = Instant::now();
        let (process, messages) = match spec.serial {
            Serial::Terminal { .. } => (Guarded::spawn_in_foreground(command), None),
            Serial::Socket { .. } => {
                let file = File::create(messages)
                    .map_err(io_error(format!("cannot write {}", messages.display())))?;
                let copy = file
                    .try_clone()
                    .map_err(io_error("cannot copy a handle".into()))?;
                command.stdin(Stdio::null()).stdout(file).stderr(copy);
                (Guarded::spawn(command), Some(messages.to_path_buf()))
            }
        };
        let process = process.map_err(io_error(format!(
            "cannot start {}",
            emulator.program.display()
        )))?;
        Ok(Self {
            name,
            process,
            qmp: spec.qmp.clone(),
            messages,
            started,
        })
    }

    /// The machine's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// When its process was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// An error when the machine has ended, with what QEMU said last.
    pub fn check_running(&mut self) -> Result<(), VmError> {
        let status = self.process.try_wait().map_err(|source| VmError::Io {
            name: self.name.clone(),
            what: "cannot wait for the process".into(),
            source,
        })?;
        match status {
            None => Ok(()),
            Some(status) => Err(VmError::Ended {
                name: self.name.clone(),
                status,
                message: self.last_message(),
            }),
        }
    }

    fn last_message(&self) -> String {
        let text = self
            .messages
            .as_ref()
            .and_then(|file| std::fs::read_to_string(file).ok());
        let text = text.unwrap_or_default();
        let line = text.lines().rev().find(|line| !line.trim().is_empty());
        line.unwrap_or("QEMU said nothing; see its console log")
            .to_owned()
    }

    /// Waits for the machine's own end.
    pub fn wait(&mut self) -> Result<ExitStatus, VmError> {
        self.process.wait().map_err(|source| VmError::Io {
            name: self.name.clone(),
            what: "cannot wait for the process".into(),
            source,
        })
    }

    /// Presses the power button, again and again, until the machine is off, at most for `limit`; then kills it.
    /// True when the guest went by itself. A guest that is half way up hears no button.
    pub fn power_off(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let (mut gone, mut heard) = (false, true);
        while !gone && heard && Instant::now() < deadline {
            heard = self.press_power_button();
            // Who hears nothing may just be leaving.
            let pause = if heard { PRESS_AGAIN } else { GOODBYE };
            let rest = deadline.saturating_duration_since(Instant::now());
            gone = matches!(self.process.wait_for(rest.min(pause)), Ok(Some(_)));
        }
        self.kill();
        gone
    }

    fn press_power_button(&self) -> bool {
        self.qmp.as_ref().is_some_and(|socket| {
            Qmp::connect(socket)
                .and_then(|mut qmp| qmp.powerdown())
                .is_ok()
        })
    }

    /// Ends the machine as if its plug were pulled.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Gives up ownership of a machine started with [`Tether::Free`]; its process id.
    pub fn release(self) -> u32 {
        self.process.release()
    }
}
