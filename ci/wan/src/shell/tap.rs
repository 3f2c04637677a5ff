//! A port on a TAP device that the emulator creates and whose descriptor it keeps. The interface
//! may be moved into another network namespace at any time: the descriptor stays attached. It is
//! created down and without addresses; offloads are never asked for, so checksums are always full.

use std::{cell::RefCell, collections::VecDeque, io, os::fd::AsRawFd, rc::Rc};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tun::{Configuration, Device, Layer};

use super::{Hub, ShellError};
use crate::{report::AttachmentCounters, wire::MAX_FRAME, world::PortId};

/// Most frames waiting for the kernel to take them.
const MAX_WAITING: usize = 1024;
/// Frames in a row from one device before others get their turn.
const MAX_READS: usize = 64;

/// The way to a device.
pub(super) struct Sink {
    device: Rc<AsyncFd<Device>>,
    waiting: VecDeque<Vec<u8>>,
    touched: bool,
}

impl Sink {
    pub(super) fn push(&mut self, frame: &[u8], counters: &mut AttachmentCounters) -> bool {
        // A TAP takes one frame a call, so write at once and keep only what it refuses.
        if self.waiting.is_empty() && write(&self.device, frame, counters) {
            return false;
        }
        if self.waiting.len() >= MAX_WAITING {
            counters.dropped_full += 1;
            return false;
        }
        self.waiting.push_back(frame.to_vec());
        !std::mem::replace(&mut self.touched, true)
    }

    /// Writes what the device takes; true if it does not take all.
    pub(super) fn flush(&mut self, counters: &mut AttachmentCounters) -> bool {
        self.touched = false;
        while let Some(frame) = self.waiting.front() {
            if !write(&self.device, frame, counters) {
                break;
            }
            self.waiting.pop_front();
        }
        self.is_blocked()
    }

    pub(super) fn is_blocked(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Creates the device.
pub(super) fn create(port: &str, name: &str) -> Result<Rc<AsyncFd<Device>>, ShellError> {
    let failed = |reason: io::Error| ShellError::Tap {
        name: name.to_owned(),
        port: port.to_owned(),
        remedy: match reason.kind() {
            // The device file; what it is asked for ends with another error.
            _ if reason.raw_os_error() == Some(Errno::ACCESS.raw_os_error()) => {
                "open /dev/net/tun to all, as udev does: chmod 0666 /dev/net/tun"
            }
            io::ErrorKind::PermissionDenied => "run as root or with CAP_NET_ADMIN",
            io::ErrorKind::NotFound => "load the kernel's TUN driver (modprobe tun)",
            io::ErrorKind::ResourceBusy => "remove the interface of that name or take another name",
            _ => "check the name and /dev/net/tun",
        },
        reason: reason.to_string(),
    };
    let mut configuration = Configuration::default();
    configuration.tun_name(name).layer(Layer::L2);
    // Only create: addresses, MTU and state are set by whoever uses the interface.
    configuration.platform_config(|platform| {
        platform.ensure_root_privileges(false);
    });
    let device = Device::new(&configuration).map_err(|error| match error {
        tun::Error::Io(error) => failed(error),
        other => failed(io::Error::other(other.to_string())),
    })?;
    device.set_nonblock().map_err(failed)?;
    tracing::debug!(port, name, fd = device.as_raw_fd(), "created");
    super::register(device).map(Rc::new).map_err(failed)
}

/// Gives the port its device.
pub(super) fn attach(hub: &Rc<RefCell<Hub>>, id: PortId, device: &Rc<AsyncFd<Device>>) {
    let link = &mut hub.borrow_mut().links[id.0];
    link.counters.connects += 1;
    link.sink = super::Sink::Tap(Sink {
        device: device.clone(),
        waiting: VecDeque::new(),
        touched: false,
    });
}

/// Serves the port until its device is destroyed, as happens with the namespace it is in.
pub(super) async fn serve(
    hub: Rc<RefCell<Hub>>,
    id: PortId,
    name: String,
    device: Rc<AsyncFd<Device>>,
) {
    let error = exchange(&hub, id, &device).await;
    tracing::warn!(port = name, %error, "the TAP device is gone; this port stays silent");
    let mut hub = hub.borrow_mut();
    hub.links[id.0].sink = super::Sink::Detached;
    hub.world.handle_port_down(id);
}

async fn exchange(hub: &Rc<RefCell<Hub>>, id: PortId, device: &AsyncFd<Device>) -> io::Error {
    let blocked = hub.borrow().links[id.0].blocked.clone();
    let mut buffer = vec![0; MAX_FRAME];
    loop {
        let waits = hub.borrow().links[id.0].is_blocked();
        tokio::select! {
            guard = device.readable() => {
                let mut guard = match guard {
                    Ok(guard) => guard,
                    Err(error) => return error,
                };
                match read(hub, id, device.get_ref(), &mut buffer) {
                    Ok(true) => {}
                    Ok(false) => guard.clear_ready(),
                    Err(error) => return error,
                }
            }
            guard = device.writable(), if waits => {
                match guard {
                    // Cleared first: if the device still refuses, it must say so anew.
                    Ok(mut guard) => guard.clear_ready(),
                    Err(error) => return error,
                }
                hub.borrow_mut().links[id.0].flush();
            }
            () = blocked.notified(), if !waits => {}
        }
    }
}

/// Reads what is there; false if nothing is left.
fn read(
    hub: &Rc<RefCell<Hub>>,
    id: PortId,
    device: &Device,
    buffer: &mut [u8],
) -> io::Result<bool> {
    let mut hub = hub.borrow_mut();
    let now = hub.clock.now();
    let mut outcome = Ok(true);
    for _ in 0..MAX_READS {
        match device.recv(buffer) {
            Ok(bytes) => hub.world.handle_frame(now, id, &buffer[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                outcome = Ok(false);
                break;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    hub.pump();
    outcome
}

/// False if the device takes nothing now.
fn write(device: &AsyncFd<Device>, frame: &[u8], counters: &mut AttachmentCounters) -> bool {
    match device.get_ref().send(frame) {
        Ok(_) => true,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        // The interface is down: on its way into a namespace, or switched off.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            counters.dropped_detached += 1;
            true
        }
        Err(_) => {
            counters.errors += 1;
            true
        }
    }
}
