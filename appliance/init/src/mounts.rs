//! The file systems of the appliance: which are mounted at boot, and how they are let go of at
//! shutdown. No cgroups, no devpts, no securityfs: nothing in the appliance uses them.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};

use crate::step::StepError;

/// One mount of the boot table.
#[derive(Debug)]
struct Mount {
    kind: &'static str,
    target: &'static str,
    /// Mode of the directory, should it have to be made.
    mode: u32,
    options: &'static str,
    executable: bool,
    devices: bool,
}

/// In the order of mounting. The tmpfs sizes bound what a runaway writer takes from a 64 MB machine.
const MOUNTS: [Mount; 5] = [
    Mount {
        kind: "proc",
        target: "/proc",
        mode: 0o555,
        options: "",
        executable: false,
        devices: false,
    },
    Mount {
        kind: "sysfs",
        target: "/sys",
        mode: 0o555,
        options: "",
        executable: false,
        devices: false,
    },
    Mount {
        kind: "devtmpfs",
        target: "/dev",
        mode: 0o755,
        options: "mode=0755",
        executable: false,
        devices: true,
    },
    Mount {
        kind: "tmpfs",
        target: "/run",
        mode: 0o755,
        options: "mode=0755,size=8m",
        executable: false,
        devices: false,
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
        mode: 0o1777,
        options: "mode=1777,size=8m",
        executable: false,
        devices: false,
    },
];

pub(crate) fn step() -> Result<String, StepError> {
    let mut done = Vec::new();
    for mount in &MOUNTS {
        let Mount { kind, target, .. } = mount;
        match mount_one(mount) {
            Ok(()) => done.push(*target),
            Err(error) => {
                return Err(StepError::new(format!(
                    "cannot mount {kind} on {target}: {error}; is it in the kernel's configuration?"
                )));
            }
        }
    }
    // devtmpfs may have brought the console that was missing.
    crate::console::claim();
    Ok(format!("mounted {}", done.join(" ")))
}

fn mount_one(mount: &Mount) -> io::Result<()> {
    match DirBuilder::new().mode(mount.mode).create(mount.target) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let mut flags = MountFlags::NOSUID;
    if !mount.executable {
        flags |= MountFlags::NOEXEC;
    }
    if !mount.devices {
        flags |= MountFlags::NODEV;
    }
    let options = std::ffi::CString::new(mount.options)?;
    match rustix::mount::mount(
        mount.kind,
        mount.target,
        mount.kind,
        flags,
        options.as_c_str(),
    ) {
        // Somebody before us (CONFIG_DEVTMPFS_MOUNT, a container's maker) mounted what is needed.
        Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(rustix::io::Errno::PERM) if is_mounted(mount.target) => Ok(()),
        other => Ok(other?),
    }
}

fn is_mounted(target: &str) -> bool {
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounted(&table).iter().any(|(_, mounted)| mounted == target)
}

/// Unmounts what can be unmounted and makes the rest read-only, last mounted first, until `deadline`.
/// Returns the mount points that stayed writable.
pub(crate) fn release_all(deadline: Duration) -> Vec<String> {
    let begun = Instant::now();
    let table = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mut left = Vec::new();
    for (kind, target) in mounted(&table).into_iter().rev() {
        if begun.elapsed() > deadline {
            left.push(target);
            continue;
        }
        if is_virtual(&kind) {
            continue;
        }
        let released = rustix::mount::unmount(target.as_str(), UnmountFlags::empty()).is_ok()
            || rustix::mount::mount_remount(target.as_str(), MountFlags::RDONLY, c"").is_ok();
        if !released {
            left.push(target);
        }
    }
    left
}

/// File systems without a disk behind them: nothing of theirs can be lost.
fn is_virtual(kind: &str) -> bool {
    matches!(
        kind,
        "proc" | "sysfs" | "devtmpfs" | "tmpfs" | "ramfs" | "rootfs" | "devpts"
    )
}

/// (type, mount point) of every line of /proc/mounts, in order.
fn mounted(table: &str) -> Vec<(String, String)> {
    table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
            Some((kind.to_owned(), unescape(target)))
        })
        .collect()
}

/// Undoes the octal escapes (`\040` for a space) of /proc/mounts.
fn unescape(field: &str) -> String {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(text, 8).ok()
        });
        match (first, octal) {
            (b'\\', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_table_is_read_with_its_escapes() {
        let table = "rootfs / rootfs rw 0 0\n/dev/vda1 /mnt/a\\040b ext4 rw 0 0\nbroken\n";
        assert_eq!(
            mounted(table),
            [
                ("rootfs".into(), "/".into()),
                ("ext4".into(), "/mnt/a b".into())
            ]
        );
        assert_eq!(unescape("\\04"), "\\04");
        assert_eq!(unescape("a\\134b\\"), "a\\b\\");
    }
}
