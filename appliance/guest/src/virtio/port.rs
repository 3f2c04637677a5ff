//! The port: a card with its queues, polled while frames come and woken by an interrupt when none do.

use std::mem::ManuallyDrop;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll};
use std::{fmt, io};

use virtio_drivers::transport::pci::PciTransport;
use virtio_drivers::transport::pci::bus::{DeviceFunction, PciRoot};
use virtio_drivers::transport::{DeviceStatus, Transport as _};

use super::features;
use super::hal::{Platform, with_windows};
use super::pages::Pages;
use super::pci::{Configuration, Doorbell, Interrupt, Registers};
use super::receive::{self, Receive};
use super::sysfs::{self, Card, PciAddress, Taken};
use super::transmit::{self, FRAME_MAX_BYTES, Transmit};
use super::{Choice, VirtioError, udp};
use crate::offload::{Offload, Transport};
use crate::{GuestGone, PacketBatch, Port, WriteError};

/// Pages of a card: one for each queue's frames.
const PAGES: usize = 2;

/// How often the queue is found empty before the card is asked for an interrupt: each costs the kernel's
/// handler and two accesses to the card, and under load the next frame is a moment away.
const EMPTY_POLLS: u32 = 64;

/// Where the card's own configuration tells its address and packet size: section 5.1.4.
const MAC_OFFSET: usize = 0;
const MTU_OFFSET: usize = 10;

/// A network card driven by this process. Must be opened and used inside a tokio runtime with I/O.
///
/// The process can reach all of the machine's memory by it. When the value is dropped the kernel has
/// the card again.
pub struct VirtioPort {
    // In the order in which they go: what reaches into others' memory before them.
    receive: Receive<Platform>,
    transmit: Transmit<Platform>,
    doorbells: [Doorbell; 2],
    device: Device,
    interrupt: Interrupt,
    _registers: Registers,
    taken: Taken,
    address: PciAddress,
    mac: [u8; 6],
    mtu_bytes: Option<u16>,
    takes_offloads: bool,
    /// Frames were put in that the card was not told of.
    unflushed: bool,
    /// How often in a row nothing had come.
    empty_polls: u32,
    /// The card interrupts at its next frame.
    armed: bool,
}

/// The card, and the memory that it reaches: that is ours again when the card is known to be still.
struct Device {
    // The crate's own end waits for the reset without a bound.
    transport: ManuallyDrop<PciTransport>,
    pages: ManuallyDrop<Pages>,
}

impl Drop for Device {
    fn drop(&mut self) {
        if features::reset(&mut *self.transport) {
            // SAFETY: this is the value's end, and nobody takes the pages after it.
            unsafe { ManuallyDrop::drop(&mut self.pages) };
        } else {
            tracing::warn!("the card does not reset; its memory is left to it");
        }
    }
}

impl VirtioPort {
    /// Takes a card from the kernel and starts it.
    ///
    /// # Errors
    /// See [`VirtioError`]. The kernel has the card, if it had it before.
    pub fn open(choice: &Choice) -> Result<Self, VirtioError> {
        let root = Path::new(sysfs::ROOT);
        let address = choose(&sysfs::cards(root), choice)?;
        // What may be missing is looked for before the card is taken from the kernel.
        let pages = Pages::reserve(PAGES)?;
        let taken = Taken::new(root, address)?;
        let directory = taken.directory();
        let registers = Registers::map(&directory).map_err(VirtioError::reach("registers"))?;
        let uio = taken.uio().ok_or(VirtioError::NoUio)?;
        let configuration = || {
            let opened = Configuration::open(&directory);
            opened.map_err(VirtioError::reach("configuration space"))
        };
        let interrupt = Interrupt::open(&uio, configuration()?);
        let mut interrupt = interrupt.map_err(VirtioError::reach("interrupt"))?;

        let (bus, device, function) = address.place();
        let place = DeviceFunction {
            bus,
            device,
            function,
        };
        let mut pci = PciRoot::new(configuration()?);
        let transport = with_windows(registers.windows(), || {
            PciTransport::new::<Platform, _>(&mut pci, place)
        })?;
        let mut device = Device {
            transport: ManuallyDrop::new(transport),
            pages: ManuallyDrop::new(pages),
        };
        let taken_features = features::negotiate(&mut *device.transport)?;
        let allowed = interrupt.allow_memory();
        allowed.map_err(VirtioError::reach("configuration space"))?;
        let Device { transport, pages } = &mut device;
        let [receive_data, transmit_data] = [pages.page(0), pages.page(1)];
        // SAFETY: each queue has a page of its own, which goes after the queues and after the reset.
        let (receive, transmit) = pages.with_rings(|| unsafe {
            let receive = Receive::new(&mut **transport, receive_data)?;
            let transmit = Transmit::new(&mut **transport, transmit_data)?;
            Ok::<_, virtio_drivers::Error>((receive, transmit))
        })?;
        let regions = sysfs::regions(&directory).map_err(VirtioError::reach("registers"))?;
        let own = configuration()?;
        let doorbell = |queue| {
            let windows = registers.windows();
            let found = Doorbell::find(&pci, &own, windows, &regions, place, queue);
            found.ok_or(VirtioError::NoDoorbell)
        };
        let doorbells = [doorbell(receive::NUMBER)?, doorbell(transmit::NUMBER)?];
        let mac = transport.read_config_space(MAC_OFFSET)?;
        let mtu_bytes = match taken_features & features::MTU {
            0 => None,
            _ => Some(transport.read_config_space(MTU_OFFSET)?),
        };
        let running = DeviceStatus::ACKNOWLEDGE
            | DeviceStatus::DRIVER
            | DeviceStatus::FEATURES_OK
            | DeviceStatus::DRIVER_OK;
        transport.set_status(running);
        doorbells[usize::from(receive::NUMBER)].ring();
        tracing::info!(
            card = %address,
            features = format_args!("{taken_features:#x}"),
            "driving the card in user space"
        );
        Ok(VirtioPort {
            receive,
            transmit,
            doorbells,
            device,
            interrupt,
            _registers: registers,
            taken,
            address,
            mac,
            mtu_bytes,
            takes_offloads: features::takes_offloads(taken_features),
            unflushed: false,
            empty_polls: 0,
            armed: false,
        })
    }

    /// The same, with nothing but complete frames written to it unless `offload` is true.
    pub fn with_offload(mut self, offload: bool) -> Self {
        self.takes_offloads &= offload;
        self
    }

    /// Where the card is.
    pub fn address(&self) -> PciAddress {
        self.address
    }

    /// How long packets may be on its link, if the card tells.
    pub fn mtu_bytes(&self) -> Option<u16> {
        self.mtu_bytes
    }

    /// Has the card interrupt at the next frame. What came before that is not seen by the interrupt: the
    /// caller looks at the queue once more.
    fn arm(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        // An interrupt that was never waited for would leave the line off unnoticed.
        while let Poll::Ready(raised) = self.interrupt.poll(cx) {
            raised?;
        }
        self.receive.set_interrupts(true);
        // The card must see the wish before the queue is looked at the last time.
        fence(Ordering::SeqCst);
        self.device.transport.ack_interrupt();
        if !self.interrupt.is_on() {
            self.interrupt.switch_on()?;
        }
        self.armed = true;
        Ok(())
    }

    fn ring_receive(&self) {
        // The card takes its wish for a doorbell back before it looks for buffers once more.
        fence(Ordering::SeqCst);
        if self.receive.wants_doorbell() {
            self.doorbells[usize::from(receive::NUMBER)].ring();
        }
    }

    fn put(&mut self, offload: Offload, parts: [&[u8]; 2]) -> Result<(), WriteError> {
        if parts[0].len() + parts[1].len() > FRAME_MAX_BYTES {
            return Err(WriteError::Refused(io::ErrorKind::InvalidInput.into()));
        }
        if self.transmit.put(offload, parts) {
            self.unflushed = true;
            return Ok(());
        }
        self.transmit
            .reclaim()
            .map_err(|corrupt| WriteError::Refused(io::Error::other(corrupt)))?;
        if self.transmit.put(offload, parts) {
            self.unflushed = true;
            return Ok(());
        }
        // It may not know yet that there is something to send.
        self.flush();
        Err(WriteError::Full)
    }
}

/// The card of choice. An interface is gone where a process has ended without giving the card back: then
/// it is the one that UIO still has, if there is just one.
fn choose(cards: &[Card], choice: &Choice) -> Result<PciAddress, VirtioError> {
    let found = cards.iter().find(|card| match choice {
        Choice::Address(address) => card.address == *address,
        Choice::Interface(name) => card.interface.as_ref() == Some(name),
    });
    let left = || {
        let left_behind = |card: &&Card| card.driver.as_deref() == Some(sysfs::UIO_DRIVER);
        let mut left = cards.iter().filter(left_behind);
        let first = left.next().filter(|_| left.next().is_none());
        first.filter(|_| matches!(choice, Choice::Interface(_)))
    };
    match found.or_else(left) {
        Some(card) => Ok(card.address),
        None => Err(sysfs::TakeError::NoCard(choice.to_string()).into()),
    }
}

impl Port for VirtioPort {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        self.flush();
        let gone = |error| Poll::Ready(Err(GuestGone(error)));
        loop {
            match self.receive.take(batch) {
                Ok(true) => self.ring_receive(),
                Ok(false) => {}
                Err(corrupt) => return gone(io::Error::other(corrupt)),
            }
            if !batch.is_empty() {
                if self.armed {
                    self.receive.set_interrupts(false);
                    self.armed = false;
                }
                self.empty_polls = 0;
                return Poll::Ready(Ok(()));
            }
            if self.armed {
                match self.interrupt.poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) => self.armed = false,
                    Poll::Ready(Err(error)) => return gone(error),
                }
            } else if self.empty_polls < EMPTY_POLLS {
                self.empty_polls += 1;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            } else if let Err(error) = self.arm(cx) {
                return gone(error);
            }
        }
    }

    fn write(&mut self, offload: Offload, header: &[u8], rest: &[u8]) -> Result<(), WriteError> {
        if offload == Offload::default() {
            return self.put(offload, [header, rest]);
        }
        if !self.takes_offloads {
            return Err(WriteError::Refused(io::ErrorKind::Unsupported.into()));
        }
        match offload.segments {
            Some(segments) if segments.transport == Transport::Udp => {
                let mut result = Ok(());
                let payload_bytes = segments.payload_bytes;
                let parts = [header, rest];
                let cut = udp::cut(offload.checksum, payload_bytes, parts, |offload, parts| {
                    result = self.put(offload, parts);
                    result.is_ok()
                });
                match cut {
                    Some(_) => result,
                    None => Err(WriteError::Refused(io::ErrorKind::InvalidInput.into())),
                }
            }
            _ => self.put(offload, [header, rest]),
        }
    }

    fn flush(&mut self) {
        if !self.unflushed {
            return;
        }
        self.unflushed = false;
        fence(Ordering::SeqCst);
        if self.transmit.wants_doorbell() {
            self.doorbells[usize::from(transmit::NUMBER)].ring();
        }
    }

    fn takes_offloads(&self) -> bool {
        self.takes_offloads
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn malformed(&self) -> u64 {
        self.receive.malformed()
    }
}

impl fmt::Debug for VirtioPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtioPort")
            .field("taken", &self.taken)
            .field("mtu_bytes", &self.mtu_bytes)
            .field("takes_offloads", &self.takes_offloads)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_is_chosen_by_its_place_or_its_interface() {
        let card = |address: &str, driver: &str, interface: Option<&str>| Card {
            address: address.parse().unwrap(),
            driver: Some(driver.to_owned()),
            interface: interface.map(str::to_owned),
        };
        let mut cards = vec![
            card("00:03.0", "virtio-pci", Some("eth0")),
            card("00:04.0", "virtio-pci", Some("eth1")),
        ];
        let chosen = |cards: &[Card], choice: &str| {
            let chosen = choose(cards, &choice.parse().unwrap());
            chosen.map_err(|error| error.to_string())
        };
        assert_eq!(chosen(&cards, "00:04.0").unwrap(), cards[1].address);
        assert_eq!(chosen(&cards, "eth0").unwrap(), cards[0].address);
        for missing in ["eth2", "0000:00:05.0"] {
            let error = chosen(&cards, missing).unwrap_err();
            assert!(error.contains(missing), "{error}");
        }
        cards[1] = card("00:04.0", sysfs::UIO_DRIVER, None);
        assert_eq!(chosen(&cards, "eth1").unwrap(), cards[1].address);
        assert!(chosen(&cards, "0000:00:05.0").is_err());
        cards.push(card("00:05.0", sysfs::UIO_DRIVER, None));
        assert!(chosen(&cards, "eth1").is_err(), "one of two");
    }
}
