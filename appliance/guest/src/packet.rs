//! A network card by a packet socket: any that Linux drives.
//!
//! Frames pass with the kernel's description of them (PACKET_VNET_HDR), so that superpackets and missing
//! checksums go either way. The card's own address is used, so it need not be promiscuous, which virtual
//! switches refuse. A card that goes away is looked for until it is back. Left out: VLANs.

mod outbox;
mod quiet;
mod socket;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::batch::{ETHERNET_BYTES, SLOT_BYTES};
use crate::offload::{ChecksumAt, OFFLOAD_BYTES};
use crate::{GuestGone, Offload, PacketBatch, Port, WriteError};

use outbox::Outbox;
use quiet::Quiet;
use socket::{Card, Received, Socket};

/// How often a card is looked for that is away, or looked at that is not.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// Why a card cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// No interface is called that.
    #[error(
        "there is no interface {0}; `ip link` shows this machine's, and a virtual machine needs a second \
         network card for its guests"
    )]
    Missing(String),
    /// Not root.
    #[error(
        "taking frames from {interface} needs root or CAP_NET_RAW and CAP_NET_ADMIN ({source}); run as \
         root, or with `--guest none`"
    )]
    Permission {
        /// The interface.
        interface: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is none with Ethernet frames.
    #[error("{0} is no Ethernet interface, so no guests can be behind it")]
    NotEthernet(String),
    /// The kernel refuses something.
    #[error("cannot {what} {interface}: {source}")]
    Other {
        /// The interface.
        interface: String,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A network card. Must be created and used inside a tokio runtime with I/O and time.
pub struct PacketPort {
    interface: String,
    card: Card,
    /// None while the card is away.
    socket: Option<AsyncFd<Socket>>,
    quiet: Option<Quiet>,
    /// When it is looked for again, or whether it is still there.
    look: Pin<Box<Sleep>>,
    /// Why it is away.
    away: String,
    outbox: Outbox,
    offload: bool,
    malformed: u64,
    /// Frames that came when the socket's buffer was full.
    missed: u64,
}

impl PacketPort {
    /// Opens the interface and brings it up. Without `offload` only complete packets are written.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub fn open(interface: &str, offload: bool) -> Result<Self, PacketError> {
        let card = socket::find(interface)?;
        socket::bring_up(interface)?;
        let quiet = Quiet::keep(interface);
        let socket = open(interface, card)?;
        Ok(PacketPort {
            interface: interface.to_owned(),
            card,
            socket: Some(socket),
            quiet: Some(quiet),
            look: Box::pin(sleep_until(Instant::now())),
            away: String::new(),
            outbox: Outbox::default(),
            offload,
            malformed: 0,
            missed: 0,
        })
    }

    /// The card is away; what waits for it is lost.
    fn lose(&mut self, error: &io::Error) {
        tracing::warn!(interface = self.interface, %error, "the guests' network card is away");
        self.socket = None;
        self.quiet = None;
        self.outbox.clear();
        self.away = format!(
            "the guests' network card {} is away: {error}",
            self.interface
        );
        self.look.as_mut().reset(Instant::now() + LOOK_FOR);
    }

    /// Whether the card has gone away: the socket's error by itself wakes nobody who waits for frames.
    fn poll_away(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        while self.look.as_mut().poll(cx).is_ready() {
            self.look.as_mut().reset(Instant::now() + LOOK_FOR);
            let socket = self.socket.as_ref()?;
            self.missed += socket.get_ref().take_missed();
            if let Some(error) = socket.get_ref().take_error() {
                return Some(error);
            }
        }
        None
    }

    /// Waits for the card to come back.
    fn poll_back(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.socket.is_none() {
            ready!(self.look.as_mut().poll(cx));
            self.look.as_mut().reset(Instant::now() + LOOK_FOR);
            let card = match socket::find(&self.interface) {
                Ok(card) => card,
                Err(error) => {
                    self.away = format!("the guests' network card is away: {error}");
                    continue;
                }
            };
            let is_new = card.index != self.card.index;
            // One that somebody took down stays down; one that is new is ours to bring up.
            if !is_new && !card.is_up {
                self.away = format!(
                    "the guests' network card {name} is down: bring it up with `ip link set {name} up`",
                    name = self.interface
                );
                continue;
            }
            if is_new && let Err(error) = socket::bring_up(&self.interface) {
                self.away = error.to_string();
                continue;
            }
            if card.mac != self.card.mac {
                tracing::warn!(
                    interface = self.interface,
                    "another card has this name now; its guests learn its address"
                );
            }
            let quiet = Quiet::keep(&self.interface);
            match open(&self.interface, card) {
                Ok(socket) => {
                    tracing::info!(
                        interface = self.interface,
                        "the guests' network card is back"
                    );
                    self.card = card;
                    self.socket = Some(socket);
                    self.quiet = Some(quiet);
                    self.away.clear();
                }
                Err(error) => self.away = error.to_string(),
            }
        }
        Poll::Ready(())
    }
}

fn open(interface: &str, card: Card) -> Result<AsyncFd<Socket>, PacketError> {
    let socket = Socket::open(interface, card)?;
    // SAFETY: the socket owns its descriptor and keeps it open and unchanged until dropped.
    let registered = unsafe { AsyncFd::register(socket) };
    registered.map_err(|error| PacketError::Other {
        interface: interface.to_owned(),
        what: "wait for frames of",
        source: error.into(),
    })
}

impl Port for PacketPort {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        loop {
            ready!(self.poll_back(cx));
            if let Some(error) = self.poll_away(cx) {
                self.lose(&error);
                continue;
            }
            let Some(socket) = &self.socket else {
                continue;
            };
            let mut ready = ready!(socket.poll_read_ready(cx)).map_err(GuestGone)?;
            let malformed = &mut self.malformed;
            let mut lost = None;
            while !batch.is_full() {
                match ready.try_io(|socket| receive(socket.get_ref(), batch, malformed)) {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A packet that the kernel cannot describe, and has dropped.
                    Ok(Err(error)) if error.raw_os_error() == Some(libc::EINVAL) => *malformed += 1,
                    Ok(Err(error)) => {
                        lost = Some(error);
                        break;
                    }
                    Err(_would_block) => break,
                }
            }
            drop(ready);
            if let Some(error) = lost {
                self.lose(&error);
            }
            if !batch.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn write(&mut self, offload: Offload, header: &[u8], rest: &[u8]) -> Result<(), WriteError> {
        let Some(socket) = &self.socket else {
            return Err(WriteError::Refused(io::ErrorKind::NotConnected.into()));
        };
        if !self.offload && offload != Offload::default() {
            return Err(WriteError::Refused(io::ErrorKind::Unsupported.into()));
        }
        self.outbox.write(socket.get_ref(), offload, header, rest)
    }

    fn flush(&mut self) {
        if let Some(socket) = &self.socket {
            self.outbox.flush(socket.get_ref());
        }
    }

    fn takes_offloads(&self) -> bool {
        self.offload
    }

    fn mac(&self) -> [u8; 6] {
        self.card.mac
    }

    fn malformed(&self) -> u64 {
        self.malformed
    }

    fn lost(&self) -> u64 {
        self.outbox.lost() + self.missed
    }

    fn trouble(&self) -> Option<String> {
        self.socket.is_none().then(|| self.away.clone())
    }
}

/// Reads frames side by side and puts them into the batch.
fn receive(socket: &Socket, batch: &mut PacketBatch, malformed: &mut u64) -> io::Result<()> {
    let (base, slots) = batch.slots();
    let mut received = [Received::default(); socket::FRAMES_MAX];
    let count = socket.receive(slots, &mut received)?;
    for (number, frame) in received[..count].iter().enumerate() {
        let start = base + number * SLOT_BYTES;
        let whole = batch.read_at(start..start + frame.length);
        match describe(whole).filter(|_| !frame.is_cut) {
            Some(offload) => batch.keep(offload, start + OFFLOAD_BYTES..start + frame.length),
            None => *malformed += 1,
        }
    }
    Ok(())
}

/// What the kernel says of a frame, which follows the description.
fn describe(whole: &[u8]) -> Option<Offload> {
    /// In TCP superpackets; it says what the packet itself does.
    const ECN: u8 = 0x80;
    let (header, frame) = whole.split_first_chunk::<OFFLOAD_BYTES>()?;
    let mut header = *header;
    header[1] &= !ECN;
    let mut offload = Offload::parse(&header).ok()?;
    if offload.segments.is_some() && offload.checksum.is_none() {
        // The card has joined it and looked at the checksums.
        offload.checksum = Some(transport_checksum(frame)?);
    }
    Some(offload)
}

/// Where the transport's checksum stands in a frame.
pub(crate) fn transport_checksum(frame: &[u8]) -> Option<ChecksumAt> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    let (header, protocol) = match packet.first()? >> 4 {
        4 => (usize::from(packet[0] & 0xf) * 4, *packet.get(9)?),
        6 => (40, *packet.get(6)?),
        _ => return None,
    };
    let offset = match protocol {
        6 => 16,
        17 => 6,
        _ => return None,
    };
    let start = u16::try_from(ETHERNET_BYTES + header).ok()?;
    Some(ChecksumAt { start, offset })
}

#[cfg(test)]
mod tests;
