//! Which cards there are, and how one is taken from the kernel and given back: by files under /sys.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where the kernel shows its devices.
pub const ROOT: &str = "/sys";

/// The driver that hands a card to a process.
pub const UIO_DRIVER: &str = "uio_pci_generic";

const VIRTIO_VENDOR: &str = "0x1af4";
/// Network cards, transitional and of version 1.
const NETWORK_DEVICES: [&str; 2] = ["0x1000", "0x1041"];

/// A place on the PCI bus, as `0000:00:03.0`; the domain may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl PciAddress {
    /// Bus, device and function.
    pub fn place(self) -> (u8, u8, u8) {
        (self.bus, self.device, self.function)
    }
}

/// Not a [`PciAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address such as 0000:00:03.0 or 00:03.0")]
pub struct NoPciAddress(String);

impl FromStr for PciAddress {
    type Err = NoPciAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NoPciAddress(text.to_owned());
        let number = |part: &str, digits: std::ops::RangeInclusive<usize>, max: u32| {
            let plain = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u32::from_str_radix(part, 16).ok()?;
            (plain && digits.contains(&part.len()) && number <= max).then_some(number)
        };
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let (rest, device) = rest.rsplit_once(':')?;
            let (domain, bus) = rest.split_once(':').unwrap_or(("0", rest));
            Some(PciAddress {
                domain: number(domain, 1..=8, u32::MAX)?,
                bus: number(bus, 1..=2, 0xff)? as u8,
                device: number(device, 1..=2, 0x1f)? as u8,
                function: number(function, 1..=1, 7)? as u8,
            })
        };
        parse().ok_or_else(wrong)
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bus, device, function) = self.place();
        write!(f, "{:04x}:{bus:02x}:{device:02x}.{function}", self.domain)
    }
}

/// A virtio network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    /// Where it is.
    pub address: PciAddress,
    /// Who drives it.
    pub driver: Option<String>,
    /// The kernel's network interface on it.
    pub interface: Option<String>,
}

/// Why the kernel does not hand a card over.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// There is none at that place.
    #[error("there is no virtio network card {0}")]
    NoCard(String),
    /// The driver is not there.
    #[error(
        "this kernel has no driver {UIO_DRIVER} (CONFIG_UIO_PCI_GENERIC; `modprobe {UIO_DRIVER}`)"
    )]
    NoDriver,
    /// A file under /sys refused.
    #[error("cannot {what} the card {address}: {source}")]
    Refused {
        /// Which.
        address: PciAddress,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It has no interrupt line, for instance.
    #[error("{UIO_DRIVER} does not take the card {0}: the kernel's log says why")]
    NotTaken(PciAddress),
}

/// All virtio network cards, in the order of their addresses.
pub fn cards(root: &Path) -> Vec<Card> {
    let Ok(entries) = std::fs::read_dir(root.join("bus/pci/devices")) else {
        return Vec::new();
    };
    let mut cards: Vec<Card> = entries
        .filter_map(|entry| {
            let directory = entry.ok()?.path();
            let address = directory.file_name()?.to_str()?.parse().ok()?;
            let says = |file: &str| {
                let text = std::fs::read_to_string(directory.join(file)).ok()?;
                Some(text.trim().to_owned())
            };
            let ours = says("vendor")? == VIRTIO_VENDOR
                && NETWORK_DEVICES.contains(&says("device")?.as_str());
            ours.then(|| Card {
                address,
                driver: driver(&directory),
                interface: interface(&directory),
            })
        })
        .collect();
    cards.sort_by_key(|card| card.address);
    cards
}

fn driver(directory: &Path) -> Option<String> {
    let link = std::fs::read_link(directory.join("driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

/// The interface of a card: below the virtio device that stands on it.
fn interface(directory: &Path) -> Option<String> {
    let below = |directory: &Path, name: &str| -> Option<PathBuf> {
        let entries = std::fs::read_dir(directory).ok()?;
        let mut paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| {
            let found = path.file_name().and_then(|found| found.to_str());
            found.is_some_and(|found| found.starts_with(name))
        })
    };
    let virtio = below(directory, "virtio")?;
    let interface = below(&virtio.join("net"), "")?;
    Some(interface.file_name()?.to_str()?.to_owned())
}

/// A card that the kernel has handed over; it is given back with the value.
#[derive(Debug)]
pub struct Taken {
    root: PathBuf,
    address: PciAddress,
}

impl Taken {
    /// Has the kernel's driver let go of the card, and UIO take it. One that UIO has already, since
    /// a process ended without giving it back, is just kept.
    ///
    /// # Errors
    /// See [`TakeError`]; the kernel's driver has the card again.
    pub fn new(root: &Path, address: PciAddress) -> Result<Self, TakeError> {
        if !root.join("bus/pci/drivers").join(UIO_DRIVER).is_dir() {
            return Err(TakeError::NoDriver);
        }
        let taken = Taken {
            root: root.to_owned(),
            address,
        };
        let directory = taken.directory();
        let driven = driver(&directory);
        if driven.as_deref() == Some(UIO_DRIVER) {
            return Ok(taken);
        }
        taken.write(
            "choose the driver of",
            &directory.join("driver_override"),
            UIO_DRIVER,
        )?;
        if driven.is_some() {
            let text = address.to_string();
            taken.write("unbind", &directory.join("driver/unbind"), &text)?;
        }
        taken.probe()?;
        match driver(&directory).as_deref() {
            Some(UIO_DRIVER) => Ok(taken),
            _ => Err(TakeError::NotTaken(address)),
        }
    }

    /// The card's directory.
    pub fn directory(&self) -> PathBuf {
        let name = self.address.to_string();
        self.root.join("bus/pci/devices").join(name)
    }

    /// The file under /dev that its interrupts come by.
    pub fn uio(&self) -> Option<PathBuf> {
        let entries = std::fs::read_dir(self.directory().join("uio")).ok()?;
        let mut names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let name = names.find(|name| name.starts_with("uio"))?;
        Some(Path::new("/dev").join(name))
    }

    fn probe(&self) -> Result<(), TakeError> {
        let file = self.root.join("bus/pci/drivers_probe");
        self.write("find a driver for", &file, &self.address.to_string())
    }

    fn write(&self, what: &'static str, file: &Path, text: &str) -> Result<(), TakeError> {
        std::fs::write(file, text).map_err(|source| TakeError::Refused {
            address: self.address,
            what,
            source,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let give_back = || {
            let directory = self.directory();
            // An empty line takes the choice of a driver back.
            self.write(
                "choose the driver of",
                &directory.join("driver_override"),
                "\n",
            )?;
            if driver(&directory).as_deref() == Some(UIO_DRIVER) {
                let text = self.address.to_string();
                self.write("unbind", &directory.join("driver/unbind"), &text)?;
            }
            self.probe()
        };
        match give_back() {
            Ok(()) => tracing::info!(card = %self.address, "the kernel has the card again"),
            Err(error) => tracing::warn!(%error, "the card could not be given back to the kernel"),
        }
    }
}

/// The memory regions of a card: number, physical address and length of each that has any.
pub fn regions(directory: &Path) -> io::Result<Vec<(usize, u64, usize)>> {
    let text = std::fs::read_to_string(directory.join("resource"))?;
    Ok(text
        .lines()
        .take(6)
        .enumerate()
        .filter_map(|(number, line)| {
            let (start, bytes) = region(line)?;
            Some((number, start, bytes))
        })
        .collect())
}

/// One line of `resource`: first and last address, and flags.
fn region(line: &str) -> Option<(u64, usize)> {
    const MEMORY: u64 = 0x200;
    let mut numbers = line.split_ascii_whitespace().map(|word| {
        let digits = word.strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    });
    let (first, last, flags) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let bytes = usize::try_from(last.checked_sub(first)?.checked_add(1)?).ok()?;
    (flags & MEMORY != 0 && first != 0).then_some((first, bytes))
}

#[cfg(test)]
#[path = "sysfs/tests.rs"]
mod tests;
