//! A port on QEMU's stream socket (`-netdev stream,server=on,addr.type=unix`): connects, and
//! connects again with back-off whenever the machine goes away.

use std::{cell::RefCell, io, path::PathBuf, rc::Rc, time::Duration};

use tokio::net::UnixStream;

use super::{
    Hub,
    framing::{Decoder, PREFIX},
};
use crate::{report::AttachmentCounters, world::PortId};

/// First wait before connecting again; doubled up to the longest.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// Longest wait before connecting again: less than a machine needs to boot, so it loses nothing.
const MAX_BACKOFF: Duration = Duration::from_millis(100);
/// Most bytes waiting for a machine; further frames are dropped, as a full NIC queue would.
const MAX_WAITING: usize = 2 << 20;
/// Sent bytes at the front of the buffer are cut off beyond this many.
const COMPACT: usize = 256 << 10;
/// Reads in a row from one machine before others get their turn.
const MAX_READS: usize = 4;

/// The way to a connected machine.
pub(super) struct Sink {
    stream: Rc<UnixStream>,
    waiting: Vec<u8>,
    written: usize,
    touched: bool,
}

impl Sink {
    pub(super) fn push(&mut self, frame: &[u8], counters: &mut AttachmentCounters) -> bool {
        if self.waiting.len() - self.written + PREFIX + frame.len() > MAX_WAITING {
            counters.dropped_full += 1;
            return false;
        }
        self.waiting
            .extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.waiting.extend_from_slice(frame);
        !std::mem::replace(&mut self.touched, true)
    }

    /// Writes what the socket takes; true if it does not take all.
    pub(super) fn flush(&mut self, counters: &mut AttachmentCounters) -> bool {
        self.touched = false;
        while self.is_blocked() {
            match self.stream.try_write(&self.waiting[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    // The reader meets the same end and reconnects.
                    counters.errors += 1;
                    self.written = self.waiting.len();
                }
            }
        }
        if self.written == self.waiting.len() {
            self.waiting.clear();
            self.written = 0;
        } else if self.written > COMPACT {
            self.waiting.drain(..self.written);
            self.written = 0;
        }
        self.is_blocked()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.written < self.waiting.len()
    }
}

/// Serves the port for ever.
pub(super) async fn serve(hub: Rc<RefCell<Hub>>, id: PortId, name: String, path: PathBuf) {
    let mut backoff = FIRST_BACKOFF;
    let mut failing = false;
    loop {
        match UnixStream::connect(&path).await {
            Ok(stream) => {
                tracing::info!(port = name, path = %path.display(), "connected");
                failing = false;
                let ended = exchange(&hub, id, Rc::new(stream), &mut backoff).await;
                detach(&hub, id, ended.is_err());
                match ended {
                    Ok(()) => tracing::info!(port = name, "the machine closed its socket"),
                    Err(error) => tracing::warn!(port = name, %error, "connection lost"),
                }
            }
            // Said once: a machine may start much later than the emulator.
            Err(error) if !failing => {
                failing = true;
                tracing::info!(port = name, path = %path.display(), %error, "waiting for the socket");
            }
            Err(_) => {}
        }
        tokio::time::sleep(backoff).await;
        backoff = (backoff * 2).min(MAX_BACKOFF);
    }
}

async fn exchange(
    hub: &Rc<RefCell<Hub>>,
    id: PortId,
    stream: Rc<UnixStream>,
    backoff: &mut Duration,
) -> io::Result<()> {
    let blocked = {
        let mut hub = hub.borrow_mut();
        let link = &mut hub.links[id.0];
        link.counters.connects += 1;
        link.sink = super::Sink::Unix(Sink {
            stream: stream.clone(),
            waiting: Vec::new(),
            written: 0,
            touched: false,
        });
        link.blocked.clone()
    };
    let mut decoder = Decoder::new();
    loop {
        let waits = hub.borrow().links[id.0].is_blocked();
        tokio::select! {
            readable = stream.readable() => {
                readable?;
                if !read(hub, id, &stream, &mut decoder)? {
                    return Ok(());
                }
                // It speaks our protocol, so a loss of it is worth a quick return.
                *backoff = FIRST_BACKOFF;
            }
            writable = stream.writable(), if waits => {
                writable?;
                hub.borrow_mut().links[id.0].flush();
            }
            () = blocked.notified(), if !waits => {}
        }
    }
}

/// Reads what is there; false at the end of the stream.
fn read(
    hub: &Rc<RefCell<Hub>>,
    id: PortId,
    stream: &UnixStream,
    decoder: &mut Decoder,
) -> io::Result<bool> {
    let mut hub = hub.borrow_mut();
    let hub = &mut *hub;
    for _ in 0..MAX_READS {
        match stream.try_read(decoder.space()) {
            Ok(0) => return Ok(false),
            Ok(bytes) => decoder.filled(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
        let now = hub.clock.now();
        loop {
            match decoder.next() {
                Ok(Some(frame)) => hub.world.handle_frame(now, id, frame),
                Ok(None) => break,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        hub.pump();
    }
    Ok(true)
}

fn detach(hub: &Rc<RefCell<Hub>>, id: PortId, failed: bool) {
    let mut hub = hub.borrow_mut();
    let link = &mut hub.links[id.0];
    link.sink = super::Sink::Detached;
    link.counters.errors += u64::from(failed);
    hub.world.handle_port_down(id);
}
