//! One request to a gateway's web server: bounded in time and bytes, no redirection, no second use of
//! the connection.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::IgdError;
use super::endpoint::Endpoint;

/// From connecting to the answer's last byte. Cheap gateways take most of a second.
const REQUEST_MAX: Duration = Duration::from_secs(4);
/// hyper's least. The status line and the headers must fit.
const BUFFER_BYTES: usize = 8192;
const HEADERS_MAX: usize = 32;
/// Descriptions in the field have up to 30 KiB.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// An answer.
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
}

/// Fetches what is at `from`.
pub async fn get(from: &Endpoint) -> Result<Answer, IgdError> {
    send(from, request(from, "GET"), Bytes::new()).await
}

/// Calls `action` of a service.
pub async fn post(to: &Endpoint, action: &str, body: String) -> Result<Answer, IgdError> {
    let request = request(to, "POST")
        .header(header::CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
        .header("SOAPAction", format!("\"{action}\""));
    send(to, request, body.into()).await
}

fn request(to: &Endpoint, method: &str) -> hyper::http::request::Builder {
    Request::builder()
        .method(method)
        .uri(&to.target)
        .header(header::HOST, to.server.to_string())
        .header(header::CONNECTION, "close")
}

async fn send(
    to: &Endpoint,
    request: hyper::http::request::Builder,
    body: Bytes,
) -> Result<Answer, IgdError> {
    let request = request.body(Full::new(body))?;
    match timeout(REQUEST_MAX, exchange(to, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(IgdError::TimedOut),
    }
}

async fn exchange(to: &Endpoint, request: Request<Full<Bytes>>) -> Result<Answer, IgdError> {
    let stream = TcpStream::connect(to.server).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        // Some gateways know headers only as the standard's examples spell them.
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(|_| IgdError::Malformed)?
            .to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        Ok(Answer { status, text })
    };
    let mut exchange = pin!(exchange);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // It ends when it has handed on all that came.
        _ = connection => exchange.await,
    }
}
