//! A card's registers and interrupt, as UIO and /sys give them to a process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::ptr::NonNull;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use virtio_drivers::transport::pci::bus::{ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_CAP_NOTIFY_CFG};

use super::hal::Window;
use super::sysfs;

/// The command register in the configuration space.
const COMMAND: u8 = 4;
/// Its bits: the card answers at its memory regions.
const MEMORY: u16 = 1 << 1;
/// The card may reach memory itself.
const MASTER: u16 = 1 << 2;
/// The card may not raise its interrupt line.
const INTERRUPT_OFF: u16 = 1 << 10;

/// The configuration space, as a file.
#[derive(Debug)]
pub struct Configuration(File);

impl Configuration {
    /// Opens that of the card in this directory of /sys.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(directory.join("config"))?;
        Ok(Configuration(file))
    }

    fn command(&self) -> io::Result<u16> {
        let mut bytes = [0; 2];
        self.0.read_exact_at(&mut bytes, COMMAND.into())?;
        Ok(u16::from_le_bytes(bytes))
    }

    fn set_command(&self, command: u16) -> io::Result<()> {
        self.0.write_all_at(&command.to_le_bytes(), COMMAND.into())
    }
}

impl ConfigurationAccess for Configuration {
    fn read_word(&self, _: DeviceFunction, register: u8) -> u32 {
        let mut bytes = [0; 4];
        match self.0.read_exact_at(&mut bytes, register.into()) {
            Ok(()) => u32::from_le_bytes(bytes),
            // As the bus answers for a card that is not there.
            Err(_) => u32::MAX,
        }
    }

    fn write_word(&mut self, _: DeviceFunction, register: u8, word: u32) {
        // Who wrote in vain reads something else afterwards.
        let _ = self.0.write_all_at(&word.to_le_bytes(), register.into());
    }

    unsafe fn unsafe_clone(&self) -> Self {
        let copy = self.0.try_clone();
        Configuration(copy.expect("descriptors are left while a card is opened"))
    }
}

/// The mapped memory regions of a card.
#[derive(Debug)]
pub struct Registers(Vec<Window>);

// SAFETY: the mappings belong to this value, whichever thread holds it.
unsafe impl Send for Registers {}

impl Registers {
    /// Maps all regions of the card in this directory.
    pub fn map(directory: &Path) -> io::Result<Self> {
        let mut registers = Registers(Vec::new());
        for (number, physical, bytes) in sysfs::regions(directory)? {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(directory.join(format!("resource{number}")))?;
            // SAFETY: a new mapping at an address of the kernel's choice touches nothing else.
            let start = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    bytes,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                )
            };
            if start == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
            registers.0.push(Window {
                physical,
                bytes,
                start,
            });
        }
        Ok(registers)
    }

    /// Where they are.
    pub fn windows(&self) -> &[Window] {
        &self.0
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        for window in &self.0 {
            // SAFETY: `map` made it with this length, and what pointed to it is dropped before.
            unsafe { libc::munmap(window.start.as_ptr().cast(), window.bytes) };
        }
    }
}

/// A queue's doorbell: the address where a write tells the card to look at the queue. Finding it takes
/// two accesses to the card each time, so it is found once.
#[derive(Debug)]
pub struct Doorbell {
    register: NonNull<u16>,
    queue: u16,
}

// SAFETY: a doorbell may be rung from any thread; only its owner does.
unsafe impl Send for Doorbell {}

impl Doorbell {
    /// Finds the doorbell of a queue: section 4.1.4.4.
    pub fn find(
        root: &PciRoot<Configuration>,
        configuration: &Configuration,
        windows: &[Window],
        regions: &[(usize, u64, usize)],
        place: DeviceFunction,
        queue: u16,
    ) -> Option<Self> {
        let read = |offset: u8| configuration.read_word(place, offset);
        let capability = |kind: u8| {
            let vendors = root.capabilities(place).filter(|found| found.id == 0x09);
            vendors.into_iter().find_map(|found| {
                let right = (found.private_header >> 8) as u8 == kind;
                let region = usize::from(read(found.offset + 4) as u8);
                let base = regions.iter().find(|(number, ..)| *number == region)?.1;
                right.then_some((found.offset, base))
            })
        };
        let structure = |(offset, base): (u8, u64), inside: u64, bytes: usize| {
            let physical = base + u64::from(read(offset + 8)) + inside;
            let within = inside + bytes as u64 <= u64::from(read(offset + 12));
            let found = windows
                .iter()
                .find_map(|window| window.find(physical, bytes));
            found.filter(|_| within)
        };
        const QUEUE_SELECT: u64 = 22;
        const QUEUE_NOTIFY_OFF: u64 = 30;
        let common = capability(VIRTIO_PCI_CAP_COMMON_CFG)?;
        let select = structure(common, QUEUE_SELECT, 2)?.cast::<u16>();
        let number = structure(common, QUEUE_NOTIFY_OFF, 2)?.cast::<u16>();
        // SAFETY: both registers lie in a mapped region of the card, at even offsets.
        let number = unsafe {
            select.write_volatile(queue);
            number.read_volatile()
        };
        let notify = capability(VIRTIO_PCI_CAP_NOTIFY_CFG)?;
        let multiplier = read(notify.0 + 16);
        let inside = u64::from(number) * u64::from(multiplier);
        let register = structure(notify, inside, 2)?.cast::<u16>();
        let aligned = register.as_ptr().is_aligned();
        aligned.then_some(Doorbell { register, queue })
    }

    /// Tells the card to look.
    pub fn ring(&self) {
        // SAFETY: the register lies in a mapped region, which outlives the doorbell.
        unsafe { self.register.write_volatile(self.queue) };
    }
}

/// The card's interrupt line. When it is raised the kernel switches it off and makes a file readable.
#[derive(Debug)]
pub struct Interrupt {
    events: AsyncFd<File>,
    configuration: Configuration,
    /// The command register with the line switched on.
    command: u16,
    /// It is on, as far as is known.
    on: bool,
}

impl Interrupt {
    /// Opens UIO's file, with the line off. The card cannot reach memory yet: one that a process has
    /// left running would go on with memory that is somebody else's.
    pub fn open(uio: &Path, configuration: Configuration) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(uio)?;
        let command = (configuration.command()? | MEMORY) & !(MASTER | INTERRUPT_OFF);
        configuration.set_command(command | INTERRUPT_OFF)?;
        // SAFETY: the file owns its descriptor and keeps it open and unchanged until dropped.
        let events = unsafe { AsyncFd::register(file) }?;
        Ok(Interrupt {
            events,
            configuration,
            command,
            on: false,
        })
    }

    /// Lets the card, which was reset, reach memory; closing UIO's file takes that back.
    pub fn allow_memory(&mut self) -> io::Result<()> {
        self.command |= MASTER;
        self.configuration.set_command(self.command | INTERRUPT_OFF)
    }

    /// Whether the line is on.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// Switches the line on. The caller has cleared the card's reason for an interrupt before, and
    /// looks at its queues once more afterwards.
    pub fn switch_on(&mut self) -> io::Result<()> {
        self.configuration.set_command(self.command)?;
        self.on = true;
        Ok(())
    }

    /// Waits for the line to be raised; it is off then.
    ///
    /// # Errors
    /// The card is gone.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.events.poll_read_ready(cx))?;
            let mut count = [0; 4];
            match ready.try_io(|file| file.get_ref().read_exact(&mut count)) {
                Ok(Ok(())) => {
                    self.on = false;
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}
