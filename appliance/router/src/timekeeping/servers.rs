//! The clock by configured servers: a question to them now and then, in their order.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::timeout;
use wow_control::TIME_PORT;
use wow_init::clock;

use super::question::{Offset, Question, Refusal};
use super::{INTERVAL, RETRY, Timekeeping, Told, now, reference, rest};
use crate::dns;

/// For one server's answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Addresses of one server that are tried.
const ADDRESSES_MAX: usize = 3;
/// The farthest that a clock with a time may be from one that needs none.
const STRATUM_MAX: u8 = 15;

/// Keeps the clock by these servers, `HOST` or `HOST:PORT`, for ever.
pub async fn run(clock: Timekeeping, servers: Vec<String>) {
    let mut retry = RETRY;
    loop {
        let pauses = clock::pauses();
        let pause = match ask_all(&servers).await {
            Some(told) => {
                retry.reset();
                clock.correct(told);
                INTERVAL
            }
            None => {
                let pause = retry.pause();
                tracing::warn!(retry_in = ?pause, "no time server answers: {}", servers.join(", "));
                pause
            }
        };
        rest(pause, pauses).await;
    }
}

/// The first answer of these servers, asked in their order.
async fn ask_all(servers: &[String]) -> Option<Told> {
    for server in servers {
        match ask(server).await {
            Ok(told) => return Some(told),
            Err(error) => tracing::info!("time server {server}: {error:#}"),
        }
    }
    None
}

async fn ask(server: &str) -> anyhow::Result<Told> {
    let mut last = anyhow::anyhow!("has no address");
    for address in addresses(server).await?.into_iter().take(ADDRESSES_MAX) {
        match timeout(PATIENCE, ask_one(address)).await {
            Ok(Ok(told)) => {
                let with = server.to_owned();
                return Ok(Told { with, ..told });
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = anyhow::anyhow!("no answer"),
        }
    }
    Err(last)
}

async fn addresses(server: &str) -> anyhow::Result<Vec<SocketAddr>> {
    if let Ok(address) = server.parse() {
        return Ok(vec![address]);
    }
    if let Ok(ip) = server.parse::<IpAddr>() {
        return Ok(vec![(ip, TIME_PORT).into()]);
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) => (host, port.parse()?),
        None => (server, TIME_PORT),
    };
    let found = dns::lookup(host).await?;
    Ok(found.into_iter().map(|ip| (ip, port).into()).collect())
}

async fn ask_one(server: SocketAddr) -> anyhow::Result<Told> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let question = Question::new();
    let (asked, clock) = (now(), tokio::time::Instant::now());
    socket.send(&question.packet()).await?;
    let mut answer = [0; 512];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The wall clock may have been set meanwhile; half of the way is measured by the other.
        let round_trip = clock.elapsed();
        let middle = asked + round_trip / 2;
        match question.read(&answer[..length], middle) {
            // Perhaps an answer to somebody else's question; the right one may still come.
            Err(Refusal::Foreign) => {}
            read => {
                let read = read?;
                return Ok(Told {
                    with: server.to_string(),
                    offset: Offset::of(middle, read.time),
                    stratum: (read.stratum + 1).min(STRATUM_MAX),
                    reference: reference(server.ip()),
                    error: round_trip / 2,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wow_control::{Reading, Standing, TimeServer};

    #[tokio::test]
    async fn a_server_is_asked_and_strangers_are_passed_over() {
        let server = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let address = server.local_addr().unwrap();
        let behind = Duration::from_secs(1000);
        let serve = async {
            let mut packet = [0; 64];
            let (length, from) = server.recv_from(&mut packet).await.unwrap();
            let read = || Reading {
                time: now() + behind,
                standing: Some(Standing {
                    stratum: 2,
                    reference: [192, 0, 2, 1],
                    compared: now() + behind,
                    error: Duration::ZERO,
                }),
            };
            let mut answers = TimeServer::default();
            let mut answer = |question: &[u8]| {
                let answer = answers.answer(Duration::ZERO, from.ip(), question, read);
                answer.unwrap()
            };
            let stranger = answer(&Question::new().packet());
            server.send_to(&stranger, from).await.unwrap();
            let good = answer(&packet[..length]);
            server.send_to(&good, from).await.unwrap();
        };
        let servers = ["127.0.0.1:1".to_owned(), address.to_string()];
        let (told, ()) = tokio::join!(ask_all(&servers), serve);
        let told = told.unwrap();
        assert_eq!(told.with, address.to_string());
        assert_eq!((told.stratum, told.reference), (3, [127, 0, 0, 1]));
        let right = Offset::of(now(), now() + behind);
        let distance = told.offset.distance(right);
        assert!(distance < Duration::from_secs(100), "{:?}", told.offset);
    }
}
