//! TCP connections of this machine's programs through the stack: opened to nodes of the pool, and
//! accepted from them. A number of them at once, each with a fixed amount of memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::flag::Flag;

/// Connections at once, those that are being closed included.
pub const STREAMS_MAX: usize = 64;

/// What one holds in each direction: 10 Mbit/s over 100 ms.
const BUFFER_BYTES: usize = 128 * 1024;

/// Clients that wait to be accepted at one port.
const BACKLOG: usize = 4;

/// A silent other end is asked, and given up.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a stream that its owner dropped may take to deliver what it holds.
const CLOSING_MAX: Duration = Duration::from_secs(30);

/// The first port that connections go out from.
const PORTS_FROM: u16 = 49_152;

/// A handle on the stack's streams; the stack itself must be driven meanwhile.
#[derive(Clone)]
pub struct Streams(Rc<Shared>);

struct Shared {
    sockets: Rc<RefCell<SocketSet<'static>>>,
    flag: Arc<Flag>,
    dials: RefCell<VecDeque<Dial>>,
    closing: RefCell<Vec<Closing>>,
    /// Listeners that wait for room.
    starved: RefCell<Vec<Waker>>,
    open: Cell<usize>,
    refused: Cell<u64>,
    port: Cell<u16>,
}

struct Dial {
    handle: SocketHandle,
    to: SocketAddr,
    begun: oneshot::Sender<bool>,
}

struct Closing {
    handle: SocketHandle,
    due: Option<Instant>,
}

/// One connection. Dropped after a shutdown it is closed in order, else reset.
pub struct Stream {
    shared: Rc<Shared>,
    handle: SocketHandle,
}

/// A port of the stack's addresses.
pub struct Listener {
    shared: Rc<Shared>,
    port: u16,
    waiting: Vec<SocketHandle>,
}

impl Streams {
    pub(crate) fn new(
        sockets: &Rc<RefCell<SocketSet<'static>>>,
        flag: &Arc<Flag>,
        seed: u64,
    ) -> Self {
        // Another run of this node must not continue where this one was.
        let span = u64::from(u16::MAX - PORTS_FROM);
        let start = u16::try_from(seed % span).unwrap_or(0);
        Streams(Rc::new(Shared {
            sockets: Rc::clone(sockets),
            flag: Arc::clone(flag),
            dials: RefCell::default(),
            closing: RefCell::default(),
            starved: RefCell::default(),
            open: Cell::new(0),
            refused: Cell::new(0),
            port: Cell::new(PORTS_FROM + start),
        }))
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Too many are open (`QuotaExceeded`), or nobody answers there.
    pub async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        let shared = &self.0;
        let stream = Stream {
            handle: shared.add(None)?,
            shared: Rc::clone(shared),
        };
        let (begun, began) = oneshot::channel();
        shared.dials.borrow_mut().push_back(Dial {
            handle: stream.handle,
            to,
            begun,
        });
        shared.flag.raise();
        if !began.await.unwrap_or(false) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        poll_fn(|cx| stream.poll_connected(cx)).await?;
        Ok(stream)
    }

    /// Accepts connections to a port that nothing else of the stack listens on.
    ///
    /// # Errors
    /// Too many are open.
    pub fn listen(&self, port: u16) -> io::Result<Listener> {
        let mut listener = Listener {
            shared: Rc::clone(&self.0),
            port,
            waiting: Vec::new(),
        };
        for _ in 0..BACKLOG {
            listener.waiting.push(self.0.add(Some(port))?);
        }
        Ok(listener)
    }

    /// Connections that are open, being closed, or waited for.
    pub fn open(&self) -> usize {
        self.0.open.get()
    }

    /// Connections that there was no room for.
    pub fn refused(&self) -> u64 {
        self.0.refused.get()
    }

    /// Begins connections, and forgets those that have ended; whether sockets may have changed.
    pub(crate) fn serve(&self, now: Instant, interface: &mut Interface) -> bool {
        let shared = &self.0;
        let mut progress = false;
        while let Some(dial) = { shared.dials.borrow_mut().pop_front() } {
            progress = true;
            let port = shared.next_port();
            let mut sockets = shared.sockets.borrow_mut();
            let socket = sockets.get_mut::<Socket<'_>>(dial.handle);
            let begun = socket.connect(interface.context(), dial.to, port).is_ok();
            // Who asked may have given up.
            let _ = dial.begun.send(begun);
        }
        let mut sockets = shared.sockets.borrow_mut();
        shared.closing.borrow_mut().retain_mut(|closing| {
            let due = *closing.due.get_or_insert(now + CLOSING_MAX);
            let socket = sockets.get_mut::<Socket<'_>>(closing.handle);
            match socket.state() {
                // A reset that still has to go out keeps its endpoints.
                State::Closed if socket.remote_endpoint().is_none() => {}
                State::TimeWait => {}
                State::Closed => return true,
                _ if now >= due => {
                    socket.abort();
                    progress = true;
                    return true;
                }
                _ => return true,
            }
            sockets.remove(closing.handle);
            shared.open.set(shared.open.get() - 1);
            for listener in shared.starved.borrow_mut().drain(..) {
                listener.wake();
            }
            false
        });
        progress
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let closing = self.0.closing.borrow();
        closing.iter().filter_map(|closing| closing.due).min()
    }
}

impl Shared {
    /// A socket, listening if a port is named.
    fn add(&self, port: Option<u16>) -> io::Result<SocketHandle> {
        if self.open.get() >= STREAMS_MAX {
            self.refused.set(self.refused.get() + 1);
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        socket.set_keep_alive(Some(KEEP_ALIVE));
        socket.set_timeout(Some(TIMEOUT));
        if let Some(port) = port {
            socket
                .listen(port)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        }
        self.open.set(self.open.get() + 1);
        Ok(self.sockets.borrow_mut().add(socket))
    }

    fn next_port(&self) -> u16 {
        let port = self.port.get();
        self.port.set(port.checked_add(1).unwrap_or(PORTS_FROM));
        port
    }

    /// The stack looks after the socket until its other end has everything.
    fn close(&self, handle: SocketHandle) {
        self.closing
            .borrow_mut()
            .push(Closing { handle, due: None });
        self.flag.raise();
    }
}

impl Listener {
    /// The next connection.
    pub async fn accept(&mut self) -> Stream {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Stream> {
        for index in 0..self.waiting.len() {
            let handle = self.waiting[index];
            let mut sockets = self.shared.sockets.borrow_mut();
            let socket = sockets.get_mut::<Socket<'_>>(handle);
            match socket.state() {
                State::Listen | State::SynReceived => socket.register_recv_waker(cx.waker()),
                State::Established | State::CloseWait => {
                    drop(sockets);
                    match self.shared.add(Some(self.port)) {
                        Ok(fresh) => self.waiting[index] = fresh,
                        // Fewer may wait until there is room again.
                        Err(_) => {
                            self.waiting.swap_remove(index);
                        }
                    }
                    return Poll::Ready(Stream {
                        shared: Rc::clone(&self.shared),
                        handle,
                    });
                }
                _ => {
                    socket.abort();
                    // It may: it is closed, and the port is not zero.
                    let _ = socket.listen(self.port);
                    socket.register_recv_waker(cx.waker());
                }
            }
        }
        self.refill(cx);
        Poll::Pending
    }

    /// Listens again with as many sockets as it began with.
    fn refill(&mut self, cx: &mut Context<'_>) {
        while self.waiting.len() < BACKLOG && self.shared.open.get() < STREAMS_MAX {
            let Ok(handle) = self.shared.add(Some(self.port)) else {
                return;
            };
            let mut sockets = self.shared.sockets.borrow_mut();
            let socket = sockets.get_mut::<Socket<'_>>(handle);
            socket.register_recv_waker(cx.waker());
            self.waiting.push(handle);
        }
        let mut starved = self.shared.starved.borrow_mut();
        let known = starved.iter().any(|waker| waker.will_wake(cx.waker()));
        if self.waiting.len() < BACKLOG && !known {
            starved.push(cx.waker().clone());
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        for handle in self.waiting.drain(..) {
            self.shared
                .sockets
                .borrow_mut()
                .get_mut::<Socket<'_>>(handle)
                .abort();
            self.shared.close(handle);
        }
    }
}

impl Stream {
    /// The other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        let endpoint = self.with(|socket| socket.remote_endpoint())?;
        Some(SocketAddr::new(endpoint.addr.into(), endpoint.port))
    }

    fn with<R>(&self, act: impl FnOnce(&mut Socket<'static>) -> R) -> R {
        act(self.shared.sockets.borrow_mut().get_mut(self.handle))
    }

    fn poll_connected(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| match socket.state() {
            State::SynSent | State::SynReceived => {
                socket.register_send_waker(cx.waker());
                Poll::Pending
            }
            State::Closed | State::Listen => {
                Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into()))
            }
            _ => Poll::Ready(Ok(())),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.with(|socket| match socket.state() {
            // Closed in order by its owner.
            State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
            _ => socket.abort(),
        });
        self.shared.close(self.handle);
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let taken = self.with(|socket| {
            if socket.can_recv() {
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
                _ => {
                    socket.register_recv_waker(cx.waker());
                    Poll::Pending
                }
            }
        });
        if taken.is_ready() {
            // The other end may be waiting for room.
            self.shared.flag.raise();
        }
        taken
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.with(|socket| {
            if !socket.may_send() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match socket.send_slice(data) {
                Ok(0) if !data.is_empty() => {
                    socket.register_send_waker(cx.waker());
                    Poll::Pending
                }
                Ok(taken) => Poll::Ready(Ok(taken)),
                Err(_) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        });
        if written.is_ready() {
            self.shared.flag.raise();
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What the socket took, it sends.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(Socket::close);
        self.shared.flag.raise();
        Poll::Ready(Ok(()))
    }
}
