//! The state partition: a FAT file system labelled `WOW-STATE`, on which an appliance keeps what it wants to have
//! again after a restart. Without one it keeps nothing.
//!
//! FAT is what this kernel writes. What is kept there are a few small files, each written beside its old self and
//! renamed, so a power cut costs the newest of them at most.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};

use crate::config::disk;
use crate::step::StepError;

/// The partition's label.
pub const LABEL: &str = "WOW-STATE";
/// Where it is mounted, and where an appliance without one keeps nothing.
pub const MOUNTED_ON: &str = "/var/lib/wow";

/// Only root reads what lies there, and nothing of it is run. A partition with errors is not written to any more.
const OPTIONS: &std::ffi::CStr = c"fmask=0177,dmask=0077,errors=remount-ro";

/// What became of the state partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Partition {
    /// There is none.
    #[default]
    Absent,
    /// It is mounted here.
    Mounted(PathBuf),
    /// There is one that cannot be used: why, and what to do.
    Refused(String),
}

/// Finds the partition and mounts it.
pub(crate) fn attach() -> Partition {
    let Some(found) = disk::find(LABEL) else {
        return Partition::Absent;
    };
    let device = found.device.display();
    if found.kind != "FAT" {
        return Partition::Refused(format!(
            "the state partition {device} has the file system {}, and only FAT is written to: make it anew with \
             mkfs.vfat -n {LABEL} (this ends the node's identity)",
            found.kind
        ));
    }
    match mount_on(&found.device, Path::new(MOUNTED_ON)) {
        Ok(()) => Partition::Mounted(MOUNTED_ON.into()),
        Err(error) => Partition::Refused(format!(
            "the state partition {device} cannot be mounted: {error}; is the disk read-only or damaged?"
        )),
    }
}

fn mount_on(device: &Path, target: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    Ok(mount(device, target, "vfat", flags, OPTIONS)?)
}

/// What the boot's log says.
pub(crate) fn told(partition: &Partition) -> Result<String, StepError> {
    match partition {
        Partition::Absent => Ok(format!("none labelled {LABEL}: nothing is kept")),
        Partition::Mounted(directory) => Ok(format!("mounted on {}", directory.display())),
        Partition::Refused(why) => Err(StepError::new(why.clone())),
    }
}
