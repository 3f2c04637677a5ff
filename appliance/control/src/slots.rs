//! Connections to one TCP port: a fixed number, each bounded in memory and time.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};

use crate::flag::Flag;
use crate::tcp::TcpStream;

/// One client's conversation.
pub type Connection = Pin<Box<dyn Future<Output = ()>>>;

/// How much one port's clients get.
pub struct Limits {
    pub port: u16,
    /// Connections at once; the next one is refused until one ends.
    pub connections: usize,
    /// Of these, from one address.
    pub per_client: usize,
    pub receive_bytes: usize,
    pub send_bytes: usize,
    /// From the first SYN to the last acknowledgement.
    pub span_max: Duration,
}

/// See the module.
pub struct Slots {
    sockets: Rc<RefCell<SocketSet<'static>>>,
    limits: Limits,
    slots: Vec<Slot>,
    serve: Box<dyn Fn(TcpStream) -> Connection>,
    flag: Arc<Flag>,
    touched: Rc<Cell<bool>>,
    refused: u64,
}

struct Slot {
    handle: SocketHandle,
    /// When the current client is cut off.
    deadline: Option<Instant>,
    connection: Option<Connection>,
}

impl Slots {
    /// Listens; every client is served by what `serve` returns.
    pub fn new(
        sockets: &Rc<RefCell<SocketSet<'static>>>,
        flag: &Arc<Flag>,
        limits: Limits,
        serve: Box<dyn Fn(TcpStream) -> Connection>,
    ) -> Self {
        let slots = (0..limits.connections)
            .map(|_| {
                let mut socket = Socket::new(
                    SocketBuffer::new(vec![0; limits.receive_bytes]),
                    SocketBuffer::new(vec![0; limits.send_bytes]),
                );
                socket.set_ack_delay(None);
                socket.set_nagle_enabled(false);
                listen(&mut socket, limits.port);
                Slot {
                    handle: sockets.borrow_mut().add(socket),
                    deadline: None,
                    connection: None,
                }
            })
            .collect();
        Slots {
            sockets: Rc::clone(sockets),
            limits,
            slots,
            serve,
            flag: Arc::clone(flag),
            touched: Rc::default(),
            refused: 0,
        }
    }

    /// Clients turned away because they had their share already, or cut off because they took too long.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.slots.iter().filter_map(|slot| slot.deadline).min()
    }

    /// Carries every connection on as far as it goes; whether that may have changed a socket.
    pub fn serve(&mut self, now: Instant) -> bool {
        let mut progress = false;
        self.touched.set(false);
        for index in 0..self.slots.len() {
            progress |= self.serve_slot(index, now);
        }
        progress | self.touched.get()
    }

    /// Whether the client of a slot that has just begun has more connections than it may.
    fn exceeds(&self, index: usize) -> bool {
        let sockets = self.sockets.borrow();
        let client = |slot: &Slot| {
            let endpoint = sockets.get::<Socket<'_>>(slot.handle).remote_endpoint();
            endpoint.map(|endpoint| endpoint.addr)
        };
        let own = client(&self.slots[index]);
        let begun = self.slots.iter().filter(|slot| slot.deadline.is_some());
        begun.filter(|slot| client(slot) == own).count() >= self.limits.per_client
    }

    fn serve_slot(&mut self, index: usize, now: Instant) -> bool {
        let handle = self.slots[index].handle;
        let state = self.sockets.borrow().get::<Socket<'_>>(handle).state();
        match state {
            State::Listen => return false,
            // In TIME-WAIT the client has everything; the slot is worth more than the wait.
            State::Closed | State::TimeWait => {
                self.end(index);
                listen(self.sockets.borrow_mut().get_mut(handle), self.limits.port);
                return true;
            }
            _ => {}
        }
        let over = match self.slots[index].deadline {
            Some(deadline) => now >= deadline,
            None if self.exceeds(index) => true,
            None => {
                self.slots[index].deadline = Some(now + self.limits.span_max);
                false
            }
        };
        if over {
            tracing::debug!(
                port = self.limits.port,
                "cutting a slow or greedy client off"
            );
            self.refused += 1;
            // The reset goes out in the next turn, which also frees the slot.
            self.sockets
                .borrow_mut()
                .get_mut::<Socket<'_>>(handle)
                .abort();
            self.end(index);
            return true;
        }
        if state == State::SynReceived {
            return false;
        }
        let fresh = self.slots[index].connection.is_none()
            && matches!(state, State::Established | State::CloseWait);
        if fresh {
            self.slots[index].connection = Some((self.serve)(TcpStream {
                sockets: Rc::clone(&self.sockets),
                handle,
                touched: Rc::clone(&self.touched),
            }));
        }
        let Some(connection) = &mut self.slots[index].connection else {
            return false;
        };
        let waker = Waker::from(Arc::clone(&self.flag));
        match connection.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => fresh,
            Poll::Ready(()) => {
                self.sockets
                    .borrow_mut()
                    .get_mut::<Socket<'_>>(handle)
                    .close();
                // The finished future stays out; the socket's own states say what remains.
                self.slots[index].connection = Some(Box::pin(std::future::pending()));
                true
            }
        }
    }

    fn end(&mut self, index: usize) {
        self.slots[index].connection = None;
        self.slots[index].deadline = None;
    }
}

fn listen(socket: &mut Socket<'_>, port: u16) {
    socket.abort();
    socket
        .listen(port)
        .expect("a closed socket may listen on a port that is not zero");
}
