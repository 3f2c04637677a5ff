//! The state partition: a FAT file system labelled `WOW-STATE`, on which an appliance keeps what it wants to have
//! again after a restart. Without one it keeps nothing.
//!
//! FAT is what this kernel writes. What is kept there are a few small files, each written beside its old self and
//! renamed, so a power cut costs the newest of them at most.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

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
    /// It is mounted on [`MOUNTED_ON`].
    Mounted {
        /// The name of its block device.
        device: String,
    },
    /// There is one that cannot be used: why, and what to do.
    Refused(String),
}

impl Partition {
    /// Whether it is mounted, its disk is there, and what is written arrives there.
    pub fn is_well(&self) -> bool {
        let Partition::Mounted { device } = self else {
            return false;
        };
        let there = Path::new("/sys/class/block").join(device).exists();
        // With errors on it the kernel writes no more.
        let writable =
            statvfs(MOUNTED_ON).is_ok_and(|it| !it.f_flag.contains(StatVfsMountFlags::RDONLY));
        there && writable
    }

    /// Gives it up, so that another can take its place; also one whose disk is gone.
    pub fn detach(&self) {
        if let Partition::Mounted { device } = self
            && let Err(error) = unmount(MOUNTED_ON, UnmountFlags::DETACH)
        {
            tracing::warn!(%error, "{device} cannot be unmounted");
        }
    }
}

/// Finds the partition and mounts it, where none is mounted: the first that `accept` takes, which is told where it is
/// mounted, or why there is none. Waits for disks.
pub fn attach(mut accept: impl FnMut(&Path) -> Result<(), String>) -> Partition {
    let mut outcome = Partition::Absent;
    for found in disk::find(LABEL) {
        let device = file_name(&found.device);
        if found.kind != "FAT" {
            outcome = Partition::Refused(format!(
                "the state partition {device} has the file system {}, and only FAT is written to: make it anew with \
                 mkfs.vfat -n {LABEL} (this ends the node's identity)",
                found.kind
            ));
            continue;
        }
        if let Err(error) = mount_on(&found.device, Path::new(MOUNTED_ON)) {
            outcome = Partition::Refused(format!(
                "the state partition {device} cannot be mounted: {error}; is the disk read-only or damaged?"
            ));
            continue;
        }
        let mounted = Partition::Mounted { device };
        match (accept(Path::new(MOUNTED_ON)), &mounted) {
            (Err(why), Partition::Mounted { device }) => {
                outcome =
                    Partition::Refused(format!("the state partition {device} is not used: {why}"));
                mounted.detach();
            }
            _ => return mounted,
        }
    }
    outcome
}

fn file_name(device: &Path) -> String {
    let name = device.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn mount_on(device: &Path, target: &Path) -> io::Result<()> {
    match DirBuilder::new().recursive(true).mode(0o700).create(target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // Renaming writes both entries before it returns, or a disk that is pulled holds files without content.
    let flags = MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC
        | MountFlags::NOATIME
        | MountFlags::DIRSYNC;
    Ok(mount(device, target, "vfat", flags, OPTIONS)?)
}

/// What the boot's log says.
pub(crate) fn told(partition: &Partition) -> Result<String, StepError> {
    match partition {
        Partition::Absent => Ok(format!("none labelled {LABEL}: nothing is kept")),
        Partition::Mounted { device } => Ok(format!("{device} mounted on {MOUNTED_ON}")),
        Partition::Refused(why) => Err(StepError::new(why.clone())),
    }
}
