//! The control protocol on a virtual machine's serial port, so that its host can ask.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, epoll, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wow_underlay::Descriptor;

use super::operator::Operator;
use super::session;

/// The port's name, as given to QEMU's `-device virtserialport,name=…`.
const PORT: &str = "wow.control";

/// Buffered between the port and the conversation.
const BUFFER_BYTES: usize = 16 * 1024;

/// Serves the machine's control port for ever; ends at once where there is none.
pub async fn serve_port(operator: Operator) {
    let Some(device) = find(Path::new("/sys/class/virtio-ports")) else {
        return;
    };
    tracing::info!(port = %device.display(), "control port");
    loop {
        if let Err(error) = converse(&device, operator.clone()).await {
            tracing::warn!(%error, port = %device.display(), "control port");
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
}

fn find(ports: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(ports).ok()?;
    entries.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

/// One conversation on the port; ends only by an error of the port, or of a host that does not
/// read.
async fn converse(device: &Path, operator: Operator) -> io::Result<()> {
    let port = Port::open(device)?;
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let (reader, writer) = tokio::io::split(theirs);
    tokio::select! {
        ended = session::serve(reader, writer, operator) => ended,
        ended = pump(&port, ours) => ended,
    }
}

async fn pump(port: &Port, conversation: tokio::io::DuplexStream) -> io::Result<()> {
    let (mut from_session, mut to_session) = tokio::io::split(conversation);
    let inward = async {
        let mut buffer = [0; 4096];
        loop {
            let length = port.read(&mut buffer).await?;
            to_session.write_all(&buffer[..length]).await?;
        }
    };
    let outward = async {
        let mut buffer = [0; 4096];
        loop {
            let length = from_session.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            port.write_all(&buffer[..length]).await?;
        }
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

/// The port, seen through an epoll of its own. Without a host on the other end a port signals
/// "hang up" for as long as that lasts, which would keep the event loop awake; an edge-triggered
/// epoll reports each change once.
struct Port {
    file: File,
    events: Descriptor,
}

impl Port {
    fn open(device: &Path) -> io::Result<Self> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking.cast_signed())
            .open(device)?;
        let events: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&events, &file, epoll::EventData::new_u64(0), wanted)?;
        Ok(Port {
            file,
            events: Descriptor::new(events)?,
        })
    }

    /// Waits until something changed at the port since the last call.
    async fn changed(&self) -> io::Result<()> {
        self.events
            .read_with(|events| {
                let mut list = [epoll::Event {
                    flags: epoll::EventFlags::empty(),
                    data: epoll::EventData::new_u64(0),
                }];
                let now = rustix::event::Timespec::default();
                match epoll::wait(events, &mut list[..], Some(&now))? {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    _ => Ok(()),
                }
            })
            .await
    }

    /// Reads at least one byte.
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&self.file).read(buffer) {
                // Nothing to read and nobody there: somebody may come.
                Ok(0) => {}
                Ok(length) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.changed().await?;
        }
    }

    /// Writes everything, or drops it when nobody is there to read it.
    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.file).write(bytes) {
                Ok(length) => {
                    bytes = &bytes[length..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.is_deserted()? {
                return Ok(());
            }
            self.changed().await?;
        }
        Ok(())
    }

    fn is_deserted(&self) -> io::Result<bool> {
        let fd = self.file.as_fd();
        let mut list = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut list, Some(&rustix::event::Timespec::default()))?;
        Ok(list[0].revents().contains(PollFlags::HUP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", "other"), ("vport2p3", "wow.control\n")] {
            std::fs::create_dir(dir.path().join(port)).unwrap();
            std::fs::write(dir.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(find(dir.path()), Some(PathBuf::from("/dev/vport2p3")));
        assert_eq!(find(&dir.path().join("missing")), None);
    }
}
