//! Log messages to a syslog server: RFC 5424 over UDP (RFC 5426), a message a datagram.
//!
//! Nobody waits for it: what logs only puts its line into a queue with a limit, and what the queue or the socket
//! loses is counted and told in the next message that gets through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::broadcast::error::RecvError;
use tracing::Level;
use wow_overlay::membership::NodeName;

use crate::logging::{self, LogLine};
use crate::{dns, wall_clock};

const PORT: u16 = 514;
/// RFC 5424's facility for daemons.
const FACILITY: u8 = 3;
/// RFC 5426: every receiver takes this much.
const DATAGRAM_BYTES_MAX: usize = 1180;
/// The server's name is looked up again after this, and sooner when it is not found.
const REFRESH: Duration = Duration::from_secs(600);
const RETRY: Duration = Duration::from_secs(30);

/// A server: `HOST` or `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    host: String,
    port: u16,
}

impl std::str::FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self {
                host: address.ip().to_string(),
                port: address.port(),
            });
        }
        let (host, port) = match (text.parse::<IpAddr>(), text.rsplit_once(':')) {
            (Err(_), Some((host, port))) => {
                let port = port.parse().ok().filter(|port| *port != 0);
                (host, port.ok_or("HOST:PORT needs a port from 1 to 65535")?)
            }
            _ => (text, PORT),
        };
        match host.is_empty() {
            true => Err("HOST or HOST:PORT is expected".to_owned()),
            false => Ok(Self {
                host: host.to_owned(),
                port,
            }),
        }
    }
}

/// Ships every message from now on, for ever.
pub async fn run(server: Server, host: NodeName) {
    let mut lines = logging::follow();
    let mut lost: u64 = 0;
    let mut socket: Option<UdpSocket> = None;
    let mut due = tokio::time::Instant::now();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = tokio::time::sleep_until(due) => {
                (socket, due) = match connect(&server).await {
                    Ok(connected) => (Some(connected), tokio::time::Instant::now() + REFRESH),
                    Err(error) => {
                        // Not a warning each time: those would be what fills the queue.
                        tracing::debug!("syslog server {}: {error:#}", server.host);
                        (socket, tokio::time::Instant::now() + RETRY)
                    }
                };
                continue;
            }
        };
        let line = match line {
            Ok(line) => line,
            Err(RecvError::Lagged(count)) => {
                lost += count;
                continue;
            }
            // The sender is a static.
            Err(RecvError::Closed) => return,
        };
        let Some(socket) = &socket else {
            lost += 1;
            continue;
        };
        if lost > 0 {
            let told = LogLine {
                level: Level::WARN,
                text: format!("{lost} log messages were not shipped"),
                ..line
            };
            if socket.try_send(&message(&told, &host)).is_ok() {
                lost = 0;
            }
        }
        // A full socket, or a server that refuses: neither is worth waiting for.
        if socket.try_send(&message(&line, &host)).is_err() {
            lost += 1;
        }
    }
}

async fn connect(server: &Server) -> anyhow::Result<UdpSocket> {
    let ip = match server.host.parse() {
        Ok(ip) => ip,
        Err(_) => *dns::lookup(&server.host)
            .await?
            .first()
            .ok_or_else(|| anyhow::anyhow!("has no address"))?,
    };
    let any: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect((ip, server.port)).await?;
    Ok(socket)
}

/// RFC 5424's SYSLOG-MSG: priority, version, time, host, program, process, and no structured data.
fn message(line: &LogLine, host: &NodeName) -> Vec<u8> {
    let severity = match line.level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    let priority = FACILITY * 8 + severity;
    let time = wall_clock::show(line.time());
    let mut text = format!(
        "<{priority}>1 {time} {host} wow {} - - {}",
        std::process::id(),
        line.text
    );
    text.truncate(text.floor_char_boundary(DATAGRAM_BYTES_MAX));
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    fn host() -> NodeName {
        NodeName::new("n1").unwrap()
    }

    #[test]
    fn a_message_has_the_standards_form_and_length() {
        let line = |level, text: &str| LogLine {
            number: 0,
            time_ms: 1_800_000_000_000,
            level,
            text: text.to_owned(),
        };
        let text = |line: &LogLine| String::from_utf8(message(line, &host())).unwrap();
        let process = std::process::id();
        let warned = text(&line(Level::WARN, "the seed is silent"));
        let expected =
            format!("<28>1 2027-01-15T08:00:00Z n1 wow {process} - - the seed is silent");
        assert_eq!(warned, expected);
        assert!(text(&line(Level::ERROR, "x")).starts_with("<27>1 "));
        assert!(text(&line(Level::DEBUG, "x")).starts_with("<31>1 "));
        let longest = text(&line(Level::INFO, &"x".repeat(2000)));
        assert_eq!(longest.len(), DATAGRAM_BYTES_MAX);
        // No letter is cut in two.
        assert!(text(&line(Level::INFO, &"é".repeat(900))).ends_with('é'));
    }

    #[test]
    fn servers_are_names_or_addresses_with_or_without_a_port() {
        let check = |text: &str, host: &str, port: u16| {
            let host = host.to_owned();
            assert_eq!(text.parse(), Ok(Server { host, port }), "{text}");
        };
        check("logs.example.org", "logs.example.org", 514);
        check("logs.example.org:5514", "logs.example.org", 5514);
        check("192.0.2.1", "192.0.2.1", 514);
        check("[2001:db8::1]:99", "2001:db8::1", 99);
        check("2001:db8::1", "2001:db8::1", 514);
        for bad in ["", ":5", "h:0", "h:x"] {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn messages_arrive_at_the_server() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let address: Server = server.local_addr().unwrap().to_string().parse().unwrap();
        let arrived = async {
            let mut datagram = [0; 2048];
            loop {
                tracing::subscriber::with_default(
                    tracing_subscriber::registry().with(logging::layer()),
                    || tracing::info!("shipped by the test"),
                );
                // The task connects first; what was logged before is told as lost.
                let soon = Duration::from_millis(20);
                let received = tokio::time::timeout(soon, server.recv(&mut datagram)).await;
                if let Ok(length) = received {
                    let text = String::from_utf8_lossy(&datagram[..length.unwrap()]).into_owned();
                    if text.ends_with("shipped by the test") {
                        return text;
                    }
                }
            }
        };
        let text = tokio::select! {
            () = run(address, host()) => unreachable!("it never ends"),
            text = tokio::time::timeout(Duration::from_secs(30), arrived) => text.unwrap(),
        };
        assert!(text.starts_with("<30>1 "), "{text}");
    }
}
