//! Passes DNS queries about other names on to configured servers. A number of them at once; the
//! others get no answer, and are asked again.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use crate::random;

/// Servers asked in turn.
pub const SERVERS_MAX: usize = 3;

/// For one server's answer: all together before the asker gives up.
const PATIENCE: Duration = Duration::from_secs(3);

/// Queries on their way at once, each with a socket.
const FORWARDED_MAX: usize = 32;

/// A datagram's answer; longer ones come over TCP.
const ANSWER_BYTES_MAX: usize = 4096;

/// Behind its id: flags, counts.
const HEADER_BYTES: usize = 12;

/// See the module.
#[derive(Clone)]
pub struct Forwarder {
    servers: Arc<[SocketAddr]>,
    room: Arc<Semaphore>,
}

impl Forwarder {
    /// To these servers, at most [`SERVERS_MAX`] of them.
    pub fn new(servers: &[SocketAddr]) -> Self {
        Forwarder {
            servers: servers.iter().copied().take(SERVERS_MAX).collect(),
            room: Arc::new(Semaphore::new(FORWARDED_MAX)),
        }
    }

    /// The first server's answer to a query that came over UDP or TCP.
    pub async fn ask(&self, mut query: Vec<u8>, tcp: bool) -> Option<Vec<u8>> {
        let _room = self.room.try_acquire().ok()?;
        let asked = *query.first_chunk::<2>()?;
        // Another id than the guest's, which somebody outside may know.
        let [id @ .., _, _, _, _, _, _] = random::number().to_le_bytes();
        query[..2].copy_from_slice(&id);
        for server in self.servers.iter() {
            let asking = async {
                match tcp {
                    true => over_tcp(*server, &query).await,
                    false => over_udp(*server, &query).await,
                }
            };
            match tokio::time::timeout(PATIENCE, asking).await {
                Ok(Ok(mut answer)) => {
                    answer[..2].copy_from_slice(&asked);
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%server, %error, "DNS server not reached"),
                Err(_) => tracing::debug!(%server, "DNS server silent"),
            }
        }
        None
    }
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local).await?;
    // The kernel then drops what comes from elsewhere; with the id and the port, 32 bits to guess.
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut answer = vec![0; ANSWER_BYTES_MAX];
    loop {
        let length = socket.recv(&mut answer).await?;
        if is_answer(&answer[..length], query) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(query).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    match is_answer(&answer, query) {
        true => Ok(answer),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether it can be the answer; whether it is to the question asked, the stack looks.
fn is_answer(answer: &[u8], query: &[u8]) -> bool {
    const RESPONSE: u8 = 0x80;
    answer.len() >= HEADER_BYTES && answer[..2] == query[..2] && answer[2] & RESPONSE != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    fn query() -> Vec<u8> {
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x07example\x03org\0\0\x01\0\x01");
        query
    }

    fn answered(query: &[u8]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer
    }

    #[tokio::test]
    async fn a_silent_server_is_passed_over_and_forgeries_are_not_believed() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = [silent.local_addr().unwrap(), server.local_addr().unwrap()];
        let serving = tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            let asked = buffer[..length].to_vec();
            assert_ne!(asked[..2], [0x12, 0x34], "the guest's own id");
            let mut forged = answered(&asked);
            forged[1] = forged[1].wrapping_add(1);
            for reply in [b"short".to_vec(), asked.clone(), forged, answered(&asked)] {
                server.send_to(&reply, from).await.unwrap();
            }
        });
        let forwarder = Forwarder::new(&servers);
        let answer = forwarder.ask(query(), false).await;
        assert_eq!(answer, Some(answered(&query())));
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn queries_over_tcp_are_forwarded_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let servers = [listener.local_addr().unwrap()];
        let serving = tokio::spawn(async move {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; client.read_u16().await.unwrap().into()];
            client.read_exact(&mut asked).await.unwrap();
            let mut answer = answered(&asked);
            answer.resize(5000, 7);
            client.write_u16(5000).await.unwrap();
            client.write_all(&answer).await.unwrap();
        });
        let answer = Forwarder::new(&servers).ask(query(), true).await.unwrap();
        assert_eq!((answer.len(), &answer[..2]), (5000, &[0x12, 0x34][..]));
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_server_there_is_no_answer() {
        assert_eq!(Forwarder::new(&[]).ask(query(), false).await, None);
        assert_eq!(Forwarder::new(&[]).ask(vec![1], false).await, None);
    }
}
