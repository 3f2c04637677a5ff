//! The DNS server: names and addresses of the pool, over UDP and TCP. Other names go to the router,
//! which may know a server to forward them to.

mod message;
mod zone;

use std::cell::RefCell;
use std::future::Future;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::udp::{Socket, UdpMetadata};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::IpAddress;
use tokio::sync::oneshot;

use crate::flag::Flag;
use crate::http::Questions;
use crate::question::{Found, Question};
use crate::slots::{Connection, Limits, Slots};
use crate::tcp::TcpStream;
use crate::udp;
use message::{Query, Wanted};
use zone::{Ask, Zone};

const PORT: u16 = 53;

/// Queries over UDP that wait for their answers; further ones are lost, and their senders ask again.
const PENDING_MAX: usize = 64;
/// As long as a resolver waits before it asks elsewhere; the pool's own lookups end before.
const PENDING_SPAN: Duration = Duration::from_secs(10);

/// Datagrams that wait to be looked at, either way.
const QUEUE_PACKETS: usize = 32;
const QUEUE_BYTES: usize = 32 * 1024;

/// The longest query; what people ask fits a tenth of it.
const QUERY_BYTES_MAX: usize = 2048;

const TCP_CONNECTIONS: usize = 8;
const TCP_PER_CLIENT: usize = 4;
const TCP_RECEIVE_BYTES: usize = 2048;
const TCP_SEND_BYTES: usize = 4096;
const TCP_SPAN_MAX: Duration = Duration::from_secs(15);

/// What the server knows by itself.
#[derive(Debug, Clone)]
pub struct Names {
    /// What the names of nodes end with, in lower case, without dots at its ends.
    pub suffix: String,
    /// The pool's network: an address of it and its prefix's length.
    pub v4: (Ipv4Addr, u8),
    /// The same for IPv6.
    pub v6: (Ipv6Addr, u8),
    /// Whether the router forwards queries about other names that come to the control address; they are refused
    /// otherwise.
    pub forwards: bool,
}

/// See the module.
pub struct Server {
    sockets: Rc<RefCell<SocketSet<'static>>>,
    udp: SocketHandle,
    pending: Vec<Pending>,
    tcp: Slots,
    resolver: Resolver,
    flag: Arc<Flag>,
    dropped: u64,
}

struct Pending {
    to: UdpMetadata,
    due: Instant,
    answer: Pin<Box<dyn Future<Output = Option<Vec<u8>>>>>,
}

impl Server {
    /// Listens on port 53.
    pub fn new(
        sockets: &Rc<RefCell<SocketSet<'static>>>,
        flag: &Arc<Flag>,
        questions: &Questions,
        names: Names,
    ) -> Self {
        let socket = udp::listen(PORT, QUEUE_PACKETS, QUEUE_BYTES);
        let resolver = Resolver {
            forwards: names.forwards,
            zone: Rc::new(Zone::new(names)),
            questions: Rc::clone(questions),
        };
        let limits = Limits {
            port: PORT,
            connections: TCP_CONNECTIONS,
            per_client: TCP_PER_CLIENT,
            receive_bytes: TCP_RECEIVE_BYTES,
            send_bytes: TCP_SEND_BYTES,
            span_max: TCP_SPAN_MAX,
        };
        let over_tcp = resolver.clone();
        let serve = move |stream| conversation(stream, over_tcp.clone());
        let udp = sockets.borrow_mut().add(socket);
        Server {
            sockets: Rc::clone(sockets),
            udp,
            pending: Vec::new(),
            tcp: Slots::new(sockets, flag, limits, Box::new(serve)),
            resolver,
            flag: Arc::clone(flag),
            dropped: 0,
        }
    }

    /// Queries lost because too many waited or nobody answered, and clients cut off.
    pub fn dropped(&self) -> u64 {
        self.dropped + self.tcp.refused()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        let pending = self.pending.iter().map(|pending| pending.due).min();
        [pending, self.tcp.next_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes queries and answers those whose answers are there; whether sockets may have changed.
    pub fn serve(&mut self, now: Instant) -> bool {
        let mut progress = self.tcp.serve(now);
        let sockets = Rc::clone(&self.sockets);
        let mut sockets = sockets.borrow_mut();
        let socket = sockets.get_mut::<Socket<'_>>(self.udp);
        while let Ok((query, from)) = socket.recv() {
            progress = true;
            if self.pending.len() == PENDING_MAX || query.len() > QUERY_BYTES_MAX {
                self.dropped += 1;
                continue;
            }
            let resolver = self.resolver.asked_at(from.local_address);
            let query = query.to_vec();
            self.pending.push(Pending {
                to: from,
                due: now + PENDING_SPAN,
                answer: Box::pin(async move { resolver.answer(&query, false).await }),
            });
        }
        let waker = Waker::from(Arc::clone(&self.flag));
        let mut cx = Context::from_waker(&waker);
        let dropped = &mut self.dropped;
        self.pending
            .retain_mut(|pending| match pending.answer.as_mut().poll(&mut cx) {
                Poll::Pending if now < pending.due => true,
                Poll::Ready(Some(answer)) => {
                    progress = true;
                    // Without a port or an address to go back to there was no sender.
                    if socket.send_slice(&answer, pending.to).is_err() {
                        *dropped += 1;
                    }
                    false
                }
                Poll::Pending | Poll::Ready(None) => {
                    *dropped += 1;
                    false
                }
            });
        progress
    }
}

/// Queries of one TCP connection, one after the other.
fn conversation(stream: TcpStream, resolver: Resolver) -> Connection {
    let resolver = resolver.asked_at(stream.local_address());
    let talk = async move {
        loop {
            let mut length = [0; 2];
            if !stream.read_exact(&mut length).await? {
                return Ok(());
            }
            let length = usize::from(u16::from_be_bytes(length));
            let mut query = vec![0; length.min(QUERY_BYTES_MAX)];
            if length > QUERY_BYTES_MAX || !stream.read_exact(&mut query).await? {
                return Err(std::io::ErrorKind::InvalidData.into());
            }
            let Some(answer) = resolver.answer(&query, true).await else {
                return Ok(());
            };
            let length = u16::try_from(answer.len())
                .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
            stream.write_all(&length.to_be_bytes()).await?;
            stream.write_all(&answer).await?;
        }
    };
    Box::pin(async move {
        let ended: std::io::Result<()> = talk.await;
        if let Err(error) = ended {
            tracing::debug!(%error, "DNS connection failed");
        }
    })
}

#[derive(Clone)]
struct Resolver {
    zone: Rc<Zone>,
    forwards: bool,
    questions: Questions,
}

impl Resolver {
    /// The one for those who ask at this address: at the node's own the whole pool does, for whom this node is no
    /// resolver of other names.
    fn asked_at(&self, local: Option<IpAddress>) -> Self {
        let (v4, v6) = self.zone.control;
        let control = [IpAddress::from(v4), v6.into()];
        Resolver {
            forwards: self.forwards && local.is_some_and(|local| control.contains(&local)),
            ..self.clone()
        }
    }

    /// The answer to a message; `None` to what is none, or when nobody knows.
    async fn answer(&self, bytes: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let recursion = self.forwards;
        let query = match Query::parse(bytes, tcp, recursion) {
            Wanted::Answer(query) => query,
            Wanted::Refusal(answer) => return Some(answer),
            Wanted::Nothing => return None,
        };
        match self.zone.ask(&query.name()) {
            Ask::Apex => Some(query.apex(&self.zone)),
            Ask::PointsAtApex => Some(query.pointer(&self.zone.names.suffix)),
            Ask::NoData => Some(query.no_data(&self.zone)),
            Ask::NoName => Some(query.no_name(&self.zone)),
            Ask::Outside if recursion && query.wants_recursion() => {
                let (sender, receiver) = oneshot::channel();
                let question = Question::Forward(bytes.to_vec(), tcp, sender);
                self.questions.borrow_mut().push_back(question);
                Some(match receiver.await {
                    Ok(answer) => query.forwarded(answer),
                    Err(_) => query.failed(),
                })
            }
            Ask::Outside => Some(query.refused()),
            Ask::LookUp(lookup, kind) => {
                let (sender, receiver) = oneshot::channel();
                let question = Question::LookUp(lookup, sender);
                self.questions.borrow_mut().push_back(question);
                Some(match receiver.await.unwrap_or(Found::Unavailable) {
                    Found::Node { name, v4, v6, port } => {
                        query.found(&self.zone, kind, &name, (v4, v6), port)
                    }
                    Found::Nothing => query.no_name(&self.zone),
                    Found::Unavailable => query.failed(),
                })
            }
        }
    }
}
