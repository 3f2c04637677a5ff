//! Any owned descriptor on the event loop: the safe part of tokio's `AsyncFd`, for sockets and
//! devices that tokio has no type for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A non-blocking descriptor whose readiness can be waited for.
pub struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Registers a descriptor that is in non-blocking mode. Must be called inside a tokio runtime
    /// with I/O.
    ///
    /// # Errors
    /// The descriptor cannot be polled.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd is open and stays the same descriptor for its whole life.
        let registered = unsafe { AsyncFd::register(descriptor) }?;
        Ok(Descriptor(registered))
    }

    /// Repeats `act` until it does something else than to fail with `WouldBlock`, waiting for input
    /// (or an error state) in between. Cancelling it loses nothing that `act` did not do.
    ///
    /// # Errors
    /// Those of `act`.
    pub async fn read_with<R>(
        &self,
        act: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.with(Interest::READABLE, act).await
    }

    /// Like [`Self::read_with`], for those who poll.
    ///
    /// # Errors
    /// Those of `act`.
    pub fn poll_read_with<R>(
        &self,
        cx: &mut Context<'_>,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> Poll<io::Result<R>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            if let Ok(done) = ready.try_io(|descriptor| act(descriptor.as_fd())) {
                return Poll::Ready(done);
            }
        }
    }

    /// Like [`Self::read_with`], waiting for room for output.
    ///
    /// # Errors
    /// Those of `act`.
    pub async fn write_with<R>(
        &self,
        act: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.with(Interest::WRITABLE, act).await
    }

    async fn with<R>(
        &self,
        interest: Interest,
        mut act: impl FnMut(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        self.0
            .async_io(interest, |descriptor| act(descriptor.as_fd()))
            .await
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
