//! A smoltcp TCP socket in the clothes that hyper expects.
//!
//! No waker is ever registered: the server polls its connections after every change of a socket.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};

/// One connection.
pub struct TcpStream {
    pub sockets: Rc<RefCell<SocketSet<'static>>>,
    pub handle: SocketHandle,
    /// Set whenever the connection changed its socket, which the stack then has to look at.
    pub touched: Rc<Cell<bool>>,
}

impl TcpStream {
    fn with<R>(&self, act: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        act(self.sockets.borrow_mut().get_mut(self.handle))
    }
}

impl Read for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|socket| {
            if socket.can_recv() {
                self.touched.set(true);
                let room = buffer.remaining();
                let taken = socket.recv(|data| {
                    let length = data.len().min(room);
                    buffer.put_slice(&data[..length]);
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
}

impl Write for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
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

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What the socket took, it sends.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(Socket::close);
        Poll::Ready(Ok(()))
    }
}
