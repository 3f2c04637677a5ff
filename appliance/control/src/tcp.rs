//! A smoltcp TCP socket in the clothes that hyper and tokio expect.
//!
//! No waker is ever registered: whoever owns the connection polls it after every change of a socket.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::wire::IpAddress;

/// One connection.
pub struct TcpStream {
    pub sockets: Rc<RefCell<SocketSet<'static>>>,
    pub handle: SocketHandle,
    /// Set whenever the connection changed its socket, which the stack then has to look at.
    pub touched: Rc<Cell<bool>>,
}

impl TcpStream {
    /// The address that the client connected to.
    pub fn local_address(&self) -> Option<IpAddress> {
        self.with(|socket| socket.local_endpoint().map(|endpoint| endpoint.addr))
    }

    fn with<R>(&self, act: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        act(self.sockets.borrow_mut().get_mut(self.handle))
    }

    /// Takes up to `room` bytes that have come; none at the stream's end.
    fn poll_take(&self, room: usize, take: impl FnOnce(&[u8])) -> Poll<io::Result<()>> {
        self.with(|socket| {
            if socket.can_recv() {
                self.touched.set(true);
                let taken = socket.recv(|data| {
                    let length = data.len().min(room);
                    take(&data[..length]);
                    (length, ())
                });
                return Poll::Ready(taken.map_err(|_| io::ErrorKind::ConnectionReset.into()));
            }
            match socket.state() {
                State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ if !socket.may_recv() => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        })
    }

    fn poll_put(&self, data: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|socket| {
            if !socket.may_send() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match socket.send_slice(data) {
                Ok(0) if !data.is_empty() => Poll::Pending,
                Ok(taken) => {
                    self.touched.set(true);
                    Poll::Ready(Ok(taken))
                }
                Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        })
    }

    /// Fills `buffer`; false if the stream ended before.
    pub async fn read_exact(&self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            let before = filled;
            std::future::poll_fn(|_| {
                let room = buffer.len() - before;
                self.poll_take(room, |data| {
                    buffer[before..before + data.len()].copy_from_slice(data);
                    filled = before + data.len();
                })
            })
            .await?;
            if filled == before {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Hands all of `data` to the socket.
    pub async fn write_all(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let taken = std::future::poll_fn(|_| self.poll_put(data)).await?;
            data = &data[taken..];
        }
        Ok(())
    }
}

impl Read for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_take(buffer.remaining(), |data| buffer.put_slice(data))
    }
}

impl Write for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_put(data)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What the socket took, it sends.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(Socket::close);
        Poll::Ready(Ok(()))
    }
}
