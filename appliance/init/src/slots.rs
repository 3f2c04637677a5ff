//! The two slots of the disk that an appliance boots from, and how the kernel in one of them is replaced.
//!
//! The disk's [`Table`] says which slot is booted. An update is written to the other one, read back, and then put on
//! trial: whoever boots the machine next, boot code or UEFI's loader, notes that the trial has begun and starts
//! that slot once. Process 1 confirms it when the node has joined its pool; where nothing does, the next start
//! is the earlier slot's again. Each change of the table is one sector, so a power cut leaves it before or after.
//!
//! Nothing here reboots, waits or knows of a pool; that is the router's.

mod checksum;
mod disk;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod image;
mod store;
mod table;

use std::fmt;
use std::io;

pub use disk::{booted, open};
pub use image::{FIRST_BYTES_MIN, MARK_BYTES, Mark, check_head};
pub use store::{Medium, Store, Upload};
pub use table::{Kernel, Standing, Table, Trial};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The first, which a fresh disk boots.
    A,
    /// The second.
    B,
}

impl Slot {
    /// The one that is not this.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    /// By its letter, as the kernel's command line has it.
    fn by_letter(letter: &str) -> Option<Self> {
        match letter {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "a",
            Self::B => "b",
        })
    }
}

/// Why slots cannot be used, or an update is refused.
#[derive(Debug, thiserror::Error)]
pub enum SlotsError {
    /// The machine was not booted from a disk with slots.
    #[error(
        "this machine was not booted from a disk with two slots (but by -kernel, from a CD-ROM, or from a disk of an \
         earlier release): start it with the new image instead"
    )]
    NotBootedFromSlots,
    /// The machine was, and no disk has a table now.
    #[error("the disk that this machine was booted from is not there any more: is it attached?")]
    NoDisk,
    /// There are several, and nothing says which was booted from.
    #[error("several disks have slots ({0}): detach all but the one that this machine boots from")]
    Ambiguous(String),
    /// The table contradicts itself.
    #[error("the table of slots is damaged: write the image to the disk anew")]
    Damaged,
    /// The disk fails.
    #[error("the disk {0}: {1}; is it write-protected, full or failing?")]
    Io(&'static str, #[source] io::Error),
    /// What was written does not come back.
    #[error("the disk does not keep what is written to it: replace it")]
    NotKept,
    /// It is not the time for an update.
    #[error("version {0} is on trial: wait until it has joined its pool, or restart to go back")]
    OnTrial(String),
    /// An update is finished and the restart has not come yet.
    #[error("version {0} is written and boots at the next start: restart first")]
    Pending(String),
    /// Too long for a slot.
    #[error("the image has {bytes} bytes, and a slot has room for {room}")]
    TooLong {
        /// The image's.
        bytes: u64,
        /// The slot's.
        room: u64,
    },
    /// Not what is meant to run here.
    #[error(
        "this is no image of an appliance for this machine: {0}; give the bzImage that `cargo xtask image` makes"
    )]
    NotOurs(&'static str),
    /// Not in order, or not all.
    #[error("the image is incomplete: {written} of {length} bytes came; begin again")]
    Incomplete {
        /// Bytes so far.
        written: u64,
        /// Bytes announced.
        length: u64,
    },
    /// It came otherwise than it was sent.
    #[error("the image was damaged on its way: its SHA-256 is another; begin again")]
    Digest,
}
