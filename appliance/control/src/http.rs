//! The HTTP server: a fixed number of connections, each bounded in memory and time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use tokio::sync::oneshot;

use crate::tcp::TcpStream;

const HTTP_PORT: u16 = 80;

/// Connections at once; the next one is refused until one ends.
const CONNECTIONS: usize = 8;

/// A request line with headers; hyper asks for 8 KiB at least in its own buffer.
const RECEIVE_BYTES: usize = 4096;
const SEND_BYTES: usize = 8192;
const HTTP_BUFFER_BYTES: usize = 8192;
const HEADERS_MAX: usize = 32;

/// From the first SYN to the last acknowledgement. Answers are small and the guest is local, so
/// who takes longer is idle or slow on purpose.
const CONNECTION_MAX: Duration = Duration::from_secs(10);

/// What a client wants to know. Dropping it answers "unavailable".
#[derive(Debug)]
pub enum Question {
    /// `GET /status`: the node's status as JSON.
    Status(oneshot::Sender<Answer>),
}

/// A JSON document.
#[derive(Debug)]
pub struct Answer(pub Vec<u8>);

type Questions = Rc<RefCell<VecDeque<Question>>>;
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

pub struct Server {
    sockets: Rc<RefCell<SocketSet<'static>>>,
    slots: Vec<Slot>,
    questions: Questions,
    woken: Arc<Flag>,
    touched: Rc<Cell<bool>>,
}

struct Slot {
    handle: SocketHandle,
    /// When the current client is cut off.
    deadline: Option<Instant>,
    connection: Option<Connection>,
}

/// Remembers that a connection asked to be polled again.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Server {
    pub fn new(sockets: &Rc<RefCell<SocketSet<'static>>>) -> Self {
        let slots = (0..CONNECTIONS)
            .map(|_| {
                let mut socket = Socket::new(
                    SocketBuffer::new(vec![0; RECEIVE_BYTES]),
                    SocketBuffer::new(vec![0; SEND_BYTES]),
                );
                socket.set_ack_delay(None);
                socket.set_nagle_enabled(false);
                listen(&mut socket);
                Slot {
                    handle: sockets.borrow_mut().add(socket),
                    deadline: None,
                    connection: None,
                }
            })
            .collect();
        Server {
            sockets: Rc::clone(sockets),
            slots,
            questions: Questions::default(),
            woken: Arc::default(),
            touched: Rc::default(),
        }
    }

    pub fn poll_question(&mut self) -> Option<Question> {
        self.questions.borrow_mut().pop_front()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.slots.iter().filter_map(|slot| slot.deadline).min()
    }

    /// Carries every connection on as far as it goes; whether that may have changed a socket.
    pub fn serve(&mut self, now: Instant) -> bool {
        let mut progress = false;
        self.touched.set(false);
        self.woken.0.store(false, Ordering::Relaxed);
        for index in 0..self.slots.len() {
            progress |= self.serve_slot(index, now);
        }
        progress | self.touched.get() | self.woken.0.load(Ordering::Relaxed)
    }

    fn serve_slot(&mut self, index: usize, now: Instant) -> bool {
        let slot = &mut self.slots[index];
        let state = {
            let mut sockets = self.sockets.borrow_mut();
            let socket = sockets.get_mut::<Socket<'_>>(slot.handle);
            match socket.state() {
                State::Listen => return false,
                // In TIME-WAIT the client has everything; the slot is worth more than the wait.
                State::Closed | State::TimeWait => {
                    slot.connection = None;
                    slot.deadline = None;
                    listen(socket);
                    return true;
                }
                state => {
                    let deadline = *slot.deadline.get_or_insert(now + CONNECTION_MAX);
                    if now >= deadline {
                        tracing::debug!("cutting off a slow HTTP client");
                        // The reset goes out in the next turn, which also frees the slot.
                        socket.abort();
                        slot.connection = None;
                        slot.deadline = None;
                        return true;
                    }
                    state
                }
            }
        };
        if state == State::SynReceived {
            return false;
        }
        let fresh =
            slot.connection.is_none() && matches!(state, State::Established | State::CloseWait);
        if fresh {
            slot.connection = Some(connection(
                TcpStream {
                    sockets: Rc::clone(&self.sockets),
                    handle: slot.handle,
                    touched: Rc::clone(&self.touched),
                },
                Rc::clone(&self.questions),
            ));
        }
        let Some(connection) = &mut slot.connection else {
            return false;
        };
        let waker = Waker::from(Arc::clone(&self.woken));
        match connection.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => fresh,
            Poll::Ready(result) => {
                if let Err(error) = result {
                    tracing::debug!(%error, "HTTP connection failed");
                }
                self.sockets
                    .borrow_mut()
                    .get_mut::<Socket<'_>>(slot.handle)
                    .close();
                // The finished future stays out; the socket's own states say what remains.
                slot.connection = Some(Box::pin(std::future::pending()));
                true
            }
        }
    }
}

fn listen(socket: &mut Socket<'_>) {
    socket.abort();
    socket
        .listen(HTTP_PORT)
        .expect("a closed socket may listen on a port that is not zero");
}

fn connection(stream: TcpStream, questions: Questions) -> Connection {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let questions = Rc::clone(&questions);
        async move { Ok::<_, Infallible>(respond(&request, &questions).await) }
    });
    // Without a Date header no clock is read; without keep-alive no slot idles.
    let serving = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HTTP_BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .auto_date_header(false)
        .serve_connection(stream, service);
    Box::pin(serving)
}

async fn respond(request: &Request<Incoming>, questions: &Questions) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/status" => {
            let (sender, receiver) = oneshot::channel();
            questions.borrow_mut().push_back(Question::Status(sender));
            match receiver.await {
                Ok(Answer(body)) => json(StatusCode::OK, body),
                Err(_) => error(StatusCode::SERVICE_UNAVAILABLE, "the router is busy"),
            }
        }
        _ => error(StatusCode::NOT_FOUND, "no such page; there is /status"),
    }
}

fn error(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    json(status, format!("{{\"error\":\"{text}\"}}\n").into_bytes())
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
