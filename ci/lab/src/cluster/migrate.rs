//! Moves a running machine to another domain, as one moves a laptop: it is stopped, goes on elsewhere, and
//! finds itself on another network.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use wow_builder::host::Tether;
use wow_builder::qemu::Vm;
use wow_builder::qemu::qmp::{Migration, Qmp};

use super::machines::{self, cable, kill, next_file};
use super::record::Record;
use crate::command::wait_until;
use crate::control::Control;
use crate::wan;

/// A gigabyte of memory takes a second; on a busy machine, longer.
const MOVE_LIMIT: Duration = Duration::from_secs(300);

/// A QEMU is ready to receive at once; on a busy machine, soon.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// The only network card's cable.
const NETDEV: &str = "net0";

/// How long the cable is out before the machine stands still, so that a slow one notices.
const CABLE_OUT: Duration = Duration::from_secs(1);

/// Whether a machine is told that it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Its cable is pulled here and plugged in there, as that of a laptop.
    Cable,
    /// It finds itself elsewhere, as where a hypervisor moves it without a word.
    None,
}

/// What a move did.
#[derive(Debug)]
pub struct Moved {
    /// The machine where it is now.
    pub vm: Vm,
    /// How long its processors stood still.
    pub stopped: Duration,
}

/// See the module. Under QEMU's translator a guest must stand still while its memory travels: what it writes
/// meanwhile may be lost.
pub fn migrate(
    record: &mut Record,
    index: usize,
    domain: &str,
    notice: Notice,
    tether: Tether,
) -> Result<Moved> {
    let name = record.members[index].name.clone();
    ensure!(record.is_running(index), "{name} does not run");
    if !record.domains.iter().any(|known| known == domain) {
        bail!(
            "there is no domain {domain:?}; there are {}",
            record.domains.join(", ")
        );
    }
    let incoming = next_file(record, index, "in");
    let new_cable = next_file(record, index, "net");
    let mut old = Qmp::connect(&record.members[index].qmp)
        .with_context(|| format!("cannot reach the QEMU of {name}"))?;
    let before = record.clone();
    let vm = machines::start(
        record,
        index,
        new_cable.clone(),
        Some(incoming.clone()),
        tether,
    )?;
    let journey = Journey {
        record,
        before: &before,
        index,
        domain,
        notice,
        incoming: &incoming,
        cable: &new_cable,
    };
    let outcome = journey.travel(&mut old);
    match outcome {
        Ok(stopped) => {
            domain.clone_into(&mut record.members[index].domain);
            Ok(Moved { vm, stopped })
        }
        Err(error) => {
            // Where the old one still is, it goes on as if nothing had been.
            let gone_on = before.is_running(index)
                && old
                    .resume()
                    .and_then(|()| old.set_link(NETDEV, true))
                    .is_ok();
            if gone_on {
                *record = before;
            }
            let state = if gone_on {
                "it stays where it was"
            } else {
                "it is lost"
            };
            Err(error.context(format!("{name} cannot be moved: {state}")))
        }
    }
}

struct Journey<'a> {
    /// The machine as it shall be, and as it was.
    record: &'a Record,
    before: &'a Record,
    index: usize,
    domain: &'a str,
    notice: Notice,
    /// Where the new QEMU waits for it.
    incoming: &'a Path,
    /// Where the new QEMU's network card is.
    cable: &'a Path,
}

impl Journey<'_> {
    /// How long the machine stood still.
    fn travel(&self, old: &mut Qmp) -> Result<Duration> {
        let member = &self.record.members[self.index];
        wait_until("the other QEMU is ready", READY_LIMIT, || {
            Ok((self.incoming.exists() && member.qmp.exists()).then_some(()))
        })?;
        let mut new = Qmp::connect(&member.qmp)?;
        if self.notice == Notice::Cable {
            old.set_link(NETDEV, false)?;
            thread::sleep(CABLE_OUT);
        }
        let began = Instant::now();
        old.stop()?;
        old.migrate(self.incoming)?;
        wait_until("the machine's memory is there", MOVE_LIMIT, || {
            match old.migration()? {
                Migration::Completed => Ok(Some(())),
                Migration::UnderWay => Ok(None),
                Migration::Failed(reason) => bail!("{reason}"),
            }
        })?;
        // The emulator finds the new card where it found the old.
        std::fs::rename(self.cable, cable(self.record, &member.name))?;
        let mut emulator = Control::connect(&self.record.wan_control)?;
        wan::move_port(&mut emulator, &member.name, self.domain)?;
        let before = wan::connections(&mut emulator, &member.name)?;
        kill(self.before, self.index)?;
        // A cable that is plugged in with nothing at its other end would crash QEMU.
        wait_until("the emulator finds the machine", READY_LIMIT, || {
            let now = wan::connections(&mut emulator, &member.name)?;
            Ok((now > before).then_some(()))
        })?;
        new.resume()?;
        let stopped = began.elapsed();
        if self.notice == Notice::Cable {
            new.set_link(NETDEV, true)?;
        }
        Ok(stopped)
    }
}
