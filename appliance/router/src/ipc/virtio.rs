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

/// The port, seen through epolls of its own. Without a host on the other end a port signals
/// "hang up" for as long as that lasts, which would keep the event loop awake; an edge-triggered
/// epoll reports each change once. Each direction has one, lest one take the other's news.
struct Port {
    file: File,
    readable: Edges,
    writable: Edges,
}

/// Changes of a file in one direction.
struct Edges(Descriptor);

impl Edges {
    fn of(file: &File, direction: epoll::EventFlags) -> io::Result<Self> {
        let events: OwnedFd = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wanted = direction | epoll::EventFlags::ET;
        epoll::add(&events, file, epoll::EventData::new_u64(0), wanted)?;
        Ok(Edges(Descriptor::new(events)?))
    }

    /// Waits until something changed since the last call.
    async fn next(&self) -> io::Result<()> {
        self.0
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
}

impl Port {
    fn open(device: &Path) -> io::Result<Self> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking.bits().cast_signed())
            .open(device)?;
        Ok(Port {
            readable: Edges::of(&file, epoll::EventFlags::IN)?,
            writable: Edges::of(&file, epoll::EventFlags::OUT)?,
            file,
        })
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
            self.readable.next().await?;
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
            self.writable.next().await?;
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

    /// A terminal stands in for the port: a character device with a reader on its other side.
    #[tokio::test]
    async fn a_long_answer_reaches_a_slow_host() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        const BYTES: usize = 256 * 1024;
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let port = Port::open(Path::new(name.to_str().unwrap())).unwrap();

        let (mut session, ours) = tokio::io::duplex(BUFFER_BYTES);
        tokio::spawn(async move { pump(&port, ours).await });
        // No blocking task, whose end the runtime would wait for when the test fails.
        let (all_there, host) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut host = File::from(master);
            let (mut got, mut buffer) = (0, [0; 512]);
            while got < BYTES {
                std::thread::sleep(std::time::Duration::from_micros(200));
                got += host.read(&mut buffer).unwrap();
            }
            all_there.send(()).unwrap();
        });
        let answer = async {
            session.write_all(&vec![b'x'; BYTES]).await.unwrap();
            host.await.unwrap();
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), answer)
            .await
            .expect("everything arrives");
    }

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
