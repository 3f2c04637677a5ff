//! A virtio network card driven from user space: the fastest way for a virtual machine's guests.
//!
//! The kernel lets go of the card ([`sysfs`]); UIO hands over its registers and its interrupt ([`pci`]);
//! huge pages hold what it reads and writes ([`pages`]); and the crate virtio-drivers speaks its language,
//! on two queues of ours ([`receive`], [`transmit`]). Superpackets and missing checksums pass through.
//!
//! Left out: several queue pairs, the control queue, MSI-X (UIO has the interrupt line alone).

mod copy;
mod fallback;
mod features;
mod hal;
mod header;
mod pages;
mod pci;
mod port;
mod receive;
mod sysfs;
mod transmit;
#[cfg(test)]
mod twin;
mod udp;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::str::FromStr;

pub use fallback::VirtioOrPacket;
pub use features::FeatureError;
pub use pages::PagesError;
pub use port::VirtioPort;
pub use sysfs::{NoPciAddress, PciAddress, TakeError};

/// Which card to drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The one at this place.
    Address(PciAddress),
    /// The one below this interface of the kernel's.
    Interface(String),
}

impl FromStr for Choice {
    type Err = Infallible;

    /// What is no address is an interface's name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.parse() {
            Ok(address) => Choice::Address(address),
            Err(NoPciAddress { .. }) => Choice::Interface(text.to_owned()),
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Choice::Address(address) => address.fmt(f),
            Choice::Interface(name) => f.write_str(name),
        }
    }
}

/// Why a card cannot be driven from here.
#[derive(Debug, thiserror::Error)]
pub enum VirtioError {
    /// No memory for it.
    #[error(transparent)]
    Pages(#[from] PagesError),
    /// The kernel does not hand it over.
    #[error(transparent)]
    Take(#[from] TakeError),
    /// UIO has it, but shows no file for it.
    #[error("the kernel shows no UIO device of the card")]
    NoUio,
    /// Something of it cannot be opened or mapped.
    #[error("cannot reach the card's {what}: {source}")]
    Reach {
        /// What.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is no card of virtio 1.
    #[error("the card speaks no virtio 1: {0}")]
    Pci(virtio_drivers::transport::pci::VirtioPciError),
    /// No agreement on features.
    #[error(transparent)]
    Features(#[from] FeatureError),
    /// Its queues or its configuration are not as expected.
    #[error("the card's queues cannot be used (256 descriptors each are needed): {0}")]
    Queues(virtio_drivers::Error),
    /// It has no doorbells.
    #[error("the card has no doorbell where its description says")]
    NoDoorbell,
}

impl VirtioError {
    fn reach(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| VirtioError::Reach { what, source }
    }
}

impl From<virtio_drivers::transport::pci::VirtioPciError> for VirtioError {
    fn from(error: virtio_drivers::transport::pci::VirtioPciError) -> Self {
        VirtioError::Pci(error)
    }
}

impl From<virtio_drivers::Error> for VirtioError {
    fn from(error: virtio_drivers::Error) -> Self {
        VirtioError::Queues(error)
    }
}
