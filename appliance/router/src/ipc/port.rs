//! A virtual machine's serial port as a stream of bytes whose other end, on the host, comes and goes.
//!
//! Whether somebody is there the kernel learns by messages of their own, which may come later than what
//! that somebody says: an answer to a request that was just read is not lost because nobody seems to be there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, epoll, poll};
use wow_underlay::Descriptor;

/// For the kernel to learn that somebody is there, who has already spoken.
const ARRIVAL_MAX: Duration = Duration::from_secs(5);

/// For a host that is there to take something.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// What a port's file does without waiting, and how it is waited for.
pub trait Wire {
    /// Fails with `WouldBlock` when there is nothing, and may read nothing when nobody is there.
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize>;
    /// Fails with `WouldBlock` when there is no room, and when nobody is there.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Whether nobody seems to be there.
    fn is_deserted(&self) -> io::Result<bool>;
    /// Until there may be something to read.
    async fn readable(&self) -> io::Result<()>;
    /// Until something may be written, or whether somebody is there has changed.
    async fn writable(&self) -> io::Result<()>;
}

/// See the module.
pub struct Port<W = Device> {
    wire: W,
    /// Nobody came in time, and nobody has spoken since: what is written is lost at once.
    gone: AtomicBool,
}

impl Port {
    /// Opens a port's device.
    pub fn open(device: &Path) -> io::Result<Self> {
        Ok(Port::new(Device::open(device)?))
    }
}

impl<W: Wire> Port<W> {
    fn new(wire: W) -> Self {
        Port {
            wire,
            gone: AtomicBool::new(false),
        }
    }

    /// Reads at least one byte.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.wire.try_read(buffer) {
                // Nothing to read and nobody there: somebody may come.
                Ok(0) => {}
                Ok(length) => {
                    self.gone.store(false, Relaxed);
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            self.wire.readable().await?;
        }
    }

    /// Writes everything, or drops it when nobody is there to read it. Fails when somebody is there and
    /// does not read.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.wire.try_write(bytes) {
                Ok(length) => {
                    self.gone.store(false, Relaxed);
                    bytes = &bytes[length..];
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            let deserted = self.wire.is_deserted()?;
            if deserted && self.gone.load(Relaxed) {
                return Ok(());
            }
            let patience = if deserted { ARRIVAL_MAX } else { WRITE_MAX };
            match tokio::time::timeout(patience, self.wire.writable()).await {
                Ok(changed) => changed?,
                Err(_) if self.wire.is_deserted()? => {
                    self.gone.store(true, Relaxed);
                    return Ok(());
                }
                // It may have come in the last moment.
                Err(_) if deserted => {}
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(())
    }
}

/// The port, seen through epolls of its own. Without a host on the other end a port signals
/// "hang up" for as long as that lasts, which would keep the event loop awake; an edge-triggered
/// epoll reports each change once. Each direction has one, lest one take the other's news.
pub struct Device {
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

impl Device {
    fn open(device: &Path) -> io::Result<Self> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking.bits().cast_signed())
            .open(device)?;
        Ok(Device {
            readable: Edges::of(&file, epoll::EventFlags::IN)?,
            writable: Edges::of(&file, epoll::EventFlags::OUT)?,
            file,
        })
    }
}

impl Wire for Device {
    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }

    fn is_deserted(&self) -> io::Result<bool> {
        let fd = self.file.as_fd();
        let mut list = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut list, Some(&rustix::event::Timespec::default()))?;
        Ok(list[0].revents().contains(PollFlags::HUP))
    }

    async fn readable(&self) -> io::Result<()> {
        self.readable.next().await
    }

    async fn writable(&self) -> io::Result<()> {
        self.writable.next().await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use tokio::sync::Notify;

    use super::*;

    /// A port in memory, of whose other end the kernel is told when the test says so.
    #[derive(Default)]
    struct Twin {
        connected: Cell<bool>,
        room: Cell<usize>,
        inward: RefCell<Vec<u8>>,
        outward: RefCell<Vec<u8>>,
        changed: Notify,
    }

    impl Twin {
        fn connect(&self, room: usize) {
            self.connected.set(true);
            self.room.set(room);
            self.changed.notify_one();
        }
    }

    impl Wire for &Twin {
        fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
            let mut inward = self.inward.borrow_mut();
            let length = inward.len().min(buffer.len());
            if length == 0 && self.connected.get() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            buffer[..length].copy_from_slice(&inward[..length]);
            inward.drain(..length);
            Ok(length)
        }

        fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
            let length = bytes.len().min(self.room.get());
            if !self.connected.get() || length == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room.set(self.room.get() - length);
            self.outward.borrow_mut().extend(&bytes[..length]);
            Ok(length)
        }

        fn is_deserted(&self) -> io::Result<bool> {
            Ok(!self.connected.get())
        }

        async fn readable(&self) -> io::Result<()> {
            self.changed.notified().await;
            Ok(())
        }

        async fn writable(&self) -> io::Result<()> {
            self.changed.notified().await;
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_waits_for_the_news_that_somebody_is_there() {
        let twin = Twin::default();
        let port = Port::new(&twin);
        let answer = async {
            twin.inward.borrow_mut().extend(b"status\n");
            let mut buffer = [0; 16];
            assert_eq!(port.read(&mut buffer).await.unwrap(), 7);
            port.write_all(b"joined\n").await.unwrap();
        };
        let news = async {
            tokio::task::yield_now().await;
            twin.connect(usize::MAX);
        };
        tokio::join!(answer, news);
        assert_eq!(*twin.outward.borrow(), b"joined\n");
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_fetches_is_dropped_and_the_next_one_is_answered() {
        let twin = Twin::default();
        let port = Port::new(&twin);
        let begun = tokio::time::Instant::now();
        for _ in 0..100 {
            port.write_all(b"late\n").await.unwrap();
        }
        assert_eq!(begun.elapsed(), ARRIVAL_MAX, "it is waited for once");

        twin.inward.borrow_mut().extend(b"peers\n");
        port.read(&mut [0; 16]).await.unwrap();
        let news = async {
            tokio::task::yield_now().await;
            twin.connect(usize::MAX);
        };
        let (written, ()) = tokio::join!(port.write_all(b"none\n"), news);
        written.unwrap();
        assert_eq!(*twin.outward.borrow(), b"none\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_is_there_and_does_not_read_is_given_up() {
        let twin = Twin::default();
        twin.connect(3);
        twin.changed.notified().await;
        let written = Port::new(&twin).write_all(b"much\n").await;
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(*twin.outward.borrow(), b"muc");
    }
}
