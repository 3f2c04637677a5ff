//! The HTTP server: a status page, a JSON API with its description, metrics. It only tells; nothing
//! can be changed by it.

mod host;
mod page;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Request, Response, StatusCode};
use smoltcp::iface::SocketSet;
use smoltcp::time::{Duration, Instant};
use tokio::sync::oneshot;

use crate::flag::Flag;
use crate::question::{Answer, Document, Question};
use crate::slots::{Connection, Limits, Slots};
use crate::tcp::TcpStream;

/// The API's description, as it is served.
pub const OPENAPI: &str = include_str!("http/openapi.json");

/// A browser opens six; two of them fit besides who measures.
const CONNECTIONS: usize = 16;
const PER_CLIENT: usize = 8;

/// A request line with headers; hyper asks for 8 KiB at least in its own buffer.
const RECEIVE_BYTES: usize = 4096;
/// What a window holds on the way to a node behind a long line, and all of a small pool's answer.
const SEND_BYTES: usize = 16 * 1024;
const HTTP_BUFFER_BYTES: usize = 8192;
const HEADERS_MAX: usize = 48;

/// The longest answer comes in a few round trips, so who takes longer is idle or slow on purpose.
const CONNECTION_MAX: Duration = Duration::from_secs(10);

/// Questions for the router.
pub type Questions = Rc<RefCell<VecDeque<Question>>>;

/// See the module.
pub struct Server(Slots);

impl Server {
    /// Listens on port 80. `suffix` is that of the pool's names.
    pub fn new(
        sockets: &Rc<RefCell<SocketSet<'static>>>,
        flag: &Arc<Flag>,
        questions: &Questions,
        suffix: &str,
    ) -> Self {
        let questions = Rc::clone(questions);
        let suffix: Rc<str> = suffix.into();
        let serve = move |stream| connection(stream, Rc::clone(&questions), Rc::clone(&suffix));
        let limits = Limits {
            port: 80,
            connections: CONNECTIONS,
            per_client: PER_CLIENT,
            receive_bytes: RECEIVE_BYTES,
            send_bytes: SEND_BYTES,
            span_max: CONNECTION_MAX,
        };
        Server(Slots::new(sockets, flag, limits, Box::new(serve)))
    }

    pub fn refused(&self) -> u64 {
        self.0.refused()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.0.next_deadline()
    }

    pub fn serve(&mut self, now: Instant) -> bool {
        self.0.serve(now)
    }
}

fn connection(stream: TcpStream, questions: Questions, suffix: Rc<str>) -> Connection {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (questions, suffix) = (Rc::clone(&questions), Rc::clone(&suffix));
        async move { Ok::<_, Infallible>(respond(&request, &questions, &suffix).await) }
    });
    // Without a Date header no clock is read; without keep-alive no slot idles.
    let serving = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HTTP_BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .auto_date_header(false)
        .serve_connection(stream, service);
    Box::pin(async move {
        if let Err(error) = serving.await {
            tracing::debug!(%error, "HTTP connection failed");
        }
    })
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Page,
    OpenApi,
    Document(Document),
}

/// `None` for a path that there is not, an error for a query that makes no sense.
fn route(path: &str, query: Option<&str>) -> Option<Result<Route, &'static str>> {
    let api = match path {
        "/" => return Some(Ok(Route::Page)),
        "/openapi.json" => return Some(Ok(Route::OpenApi)),
        "/metrics" => return Some(Ok(Route::Document(Document::Metrics))),
        _ => path.strip_prefix("/api/v1/")?,
    };
    let document = match api {
        "status" => Document::Status,
        "peers" => Document::Peers,
        "neighbours" => Document::Neighbours,
        "leases" => Document::Leases,
        "traffic" => Document::Traffic,
        "ring" => Document::Ring,
        "log" | "overview" => match from(query) {
            Ok(from) if api == "log" => Document::Log { from },
            Ok(from) => Document::Overview { from },
            Err(error) => return Some(Err(error)),
        },
        _ => return None,
    };
    Some(Ok(Route::Document(document)))
}

/// The value of `from`, 0 without one.
fn from(query: Option<&str>) -> Result<u64, &'static str> {
    let pairs = query.unwrap_or_default().split('&');
    match pairs.filter_map(|pair| pair.strip_prefix("from=")).next() {
        None => Ok(0),
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text
            .parse()
            .map_err(|_| "from is the number of a line of the log"),
        Some(_) => Err("from is the number of a line of the log"),
    }
}

async fn respond(
    request: &Request<Incoming>,
    questions: &Questions,
    suffix: &str,
) -> Response<Full<Bytes>> {
    if !host::is_ours(request, suffix) {
        // A page of somebody else's that had its name lead here may not read what is told here.
        return error(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host header names somebody else: ask by address, or by a name of the pool",
        );
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = error(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let uri = request.uri();
    let document = match route(uri.path(), uri.query()) {
        None => {
            return error(
                StatusCode::NOT_FOUND,
                "no such page; /openapi.json describes what there is",
            );
        }
        Some(Err(text)) => return error(StatusCode::BAD_REQUEST, text),
        Some(Ok(Route::OpenApi)) => return ok("application/json", OPENAPI.as_bytes().into()),
        Some(Ok(Route::Page)) => Document::Overview { from: 0 },
        Some(Ok(Route::Document(document))) => document,
    };
    let (sender, receiver) = oneshot::channel();
    let question = Question::Document(document, sender);
    questions.borrow_mut().push_back(question);
    let Ok(Answer(body)) = receiver.await else {
        return error(
            StatusCode::SERVICE_UNAVAILABLE,
            "the router is busy or stopping",
        );
    };
    match document {
        Document::Metrics => ok("text/plain; version=0.0.4; charset=utf-8", body),
        _ if uri.path() == "/" => {
            let mut response = ok("text/html; charset=utf-8", page::with(&body));
            response.headers_mut().insert(
                CONTENT_SECURITY_POLICY,
                HeaderValue::from_static(page::POLICY),
            );
            response
        }
        _ => ok("application/json", body),
    }
}

fn error(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let body = format!("{{\"error\":\"{text}\"}}\n").into_bytes();
    let mut response = ok("application/json", body);
    *response.status_mut() = status;
    response
}

fn ok(content: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        "cross-origin-resource-policy",
        HeaderValue::from_static("same-origin"),
    );
    response
}

#[cfg(test)]
mod tests;
