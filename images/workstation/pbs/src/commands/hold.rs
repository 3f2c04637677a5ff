//! qhold and qrls: jobs that wait until somebody lets them go.

use std::ffi::OsString;

use crate::arguments;
use crate::failure::{Error, Failure};
use crate::slurm;

/// `qhold [-h u|o|s|n] JOB...`
pub fn hold(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse("h:t:", arguments)?;
    let kinds = kinds(parsed.value('h'))?;
    super::each("qhold", &parsed.operands, |_, entries| {
        for entry in entries {
            super::unfinished(entry)?;
            match kinds {
                Kinds::None => {}
                Kinds::User => scontrol("uhold", entry)?,
                Kinds::Administrator => {
                    administrator()?;
                    scontrol("hold", entry)?;
                }
            }
        }
        Ok(())
    })
}

/// `qrls [-h u|o|s|n] JOB...`
pub fn release(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse("h:t:", arguments)?;
    let kinds = kinds(parsed.value('h'))?;
    super::each("qrls", &parsed.operands, |_, entries| {
        for entry in entries {
            super::unfinished(entry)?;
            if kinds == Kinds::Administrator {
                administrator()?;
            }
            // What an administrator holds Slurm lets only one release.
            if kinds != Kinds::None && entry.state.is_pending() {
                scontrol("release", entry)?;
            }
        }
        Ok(())
    })
}

/// Whose hold it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kinds {
    None,
    User,
    Administrator,
}

fn kinds(value: Option<&str>) -> Result<Kinds, Failure> {
    let value = value.unwrap_or("u");
    if value.is_empty() || !value.chars().all(|kind| "uosnp".contains(kind)) {
        return Err(Failure::illegal('h'));
    }
    Ok(if value == "n" {
        Kinds::None
    } else if value.contains(['o', 's']) {
        Kinds::Administrator
    } else {
        Kinds::User
    })
}

fn administrator() -> Result<(), Failure> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Failure::of(Error::Permission))
}

/// `verb` is scontrol's. What runs already is held for its next run, if there is one.
fn scontrol(verb: &str, entry: &slurm::queue::Entry) -> Result<(), Failure> {
    slurm::act("scontrol", &[verb, &entry.slurm_id()]).map(drop)
}
