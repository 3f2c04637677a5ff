//! One connection: its framing, its deadlines, its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::table::{End, Shared};
use crate::DATAGRAM_MAX_BYTES;

/// Bytes of a datagram's length before it.
const LENGTH_BYTES: usize = 2;
/// How long the far end may take to accept.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long an accepted connection may take to send something that is answered.
const PROOF_MAX: Duration = Duration::from_secs(5);
/// How long a connection may be silent: a path in use is probed several times in this.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How long the kernel may take to make room for what is written.
const WRITE_MAX: Duration = Duration::from_secs(15);
/// How long the kernel waits for an acknowledgement before it gives the connection up.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// Keeps a translator's mapping, which idle TCP ones often lose after minutes.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Read at once: several datagrams where the far end sends much.
const READ_BYTES: usize = 2 * (LENGTH_BYTES + DATAGRAM_MAX_BYTES);
/// Datagrams written at once.
const WRITE_DATAGRAMS: usize = 16;

/// Opens a connection and serves it.
pub(super) async fn dial(
    shared: Arc<Shared>,
    to: SocketAddr,
    serial: u64,
    outbox: mpsc::Receiver<Vec<u8>>,
) {
    let end = match timeout(CONNECT_MAX, TcpStream::connect(to)).await {
        Ok(Ok(stream)) => run(&shared, stream, to, outbox, true).await,
        Ok(Err(error)) => {
            tracing::debug!(%to, %error, "no connection");
            End::NotMade
        }
        Err(_) => End::NotMade,
    };
    shared.ended(to, serial, end);
}

/// Serves an accepted connection.
pub(super) async fn serve(
    shared: Arc<Shared>,
    stream: TcpStream,
    from: SocketAddr,
    serial: u64,
    outbox: mpsc::Receiver<Vec<u8>>,
) {
    let end = run(&shared, stream, from, outbox, false).await;
    shared.ended(from, serial, end);
}

async fn run(
    shared: &Shared,
    mut stream: TcpStream,
    remote: SocketAddr,
    outbox: mpsc::Receiver<Vec<u8>>,
    dialled: bool,
) -> End {
    if let Err(error) = set_options(&stream) {
        tracing::debug!(%remote, %error, "socket options");
    }
    let proven = AtomicBool::new(dialled);
    let (reader, writer) = stream.split();
    // Both at once: two ends that only write would wait for each other.
    let end = tokio::select! {
        end = read(shared, reader, remote) => end,
        _ = write(writer, outbox, &proven) => End::Closed,
        () = unproven(&proven) => End::Unproven,
    };
    tracing::trace!(%remote, ?end, "connection ended");
    end
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive.with_interval(KEEPALIVE / 3).with_retries(3))
}

/// Ends when the time is over in which an accepted connection must earn an answer.
async fn unproven(proven: &AtomicBool) {
    sleep(PROOF_MAX).await;
    if proven.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

async fn read(shared: &Shared, mut stream: ReadHalf<'_>, remote: SocketAddr) -> End {
    let mut room = vec![0; READ_BYTES].into_boxed_slice();
    let mut filled = 0;
    loop {
        let Ok(Ok(count @ 1..)) = timeout(IDLE_MAX, stream.read(&mut room[filled..])).await else {
            return End::Closed;
        };
        filled += count;
        let mut taken = 0;
        loop {
            match split(&room[taken..filled]) {
                Split::Datagram(datagram) => {
                    taken += LENGTH_BYTES + datagram.len();
                    if shared
                        .inbox
                        .send((remote, datagram.to_vec()))
                        .await
                        .is_err()
                    {
                        return End::Closed;
                    }
                }
                Split::Partial => break,
                Split::Malformed => return End::Malformed,
            }
        }
        room.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// What the bytes at the front of a stream are.
#[derive(Debug, PartialEq, Eq)]
enum Split<'a> {
    Datagram(&'a [u8]),
    Partial,
    Malformed,
}

fn split(bytes: &[u8]) -> Split<'_> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Split::Partial;
    };
    match usize::from(u16::from_be_bytes(*length)) {
        length @ 1..=DATAGRAM_MAX_BYTES => match rest.get(..length) {
            Some(datagram) => Split::Datagram(datagram),
            None => Split::Partial,
        },
        _ => Split::Malformed,
    }
}

async fn write(
    mut stream: WriteHalf<'_>,
    mut outbox: mpsc::Receiver<Vec<u8>>,
    proven: &AtomicBool,
) -> io::Result<()> {
    let mut datagrams = Vec::with_capacity(WRITE_DATAGRAMS);
    let mut bytes = Vec::new();
    while outbox.recv_many(&mut datagrams, WRITE_DATAGRAMS).await > 0 {
        proven.store(true, Ordering::Relaxed);
        bytes.clear();
        for datagram in datagrams.drain(..) {
            let length = u16::try_from(datagram.len()).map_err(io::Error::other)?;
            bytes.extend(length.to_be_bytes());
            bytes.extend(datagram);
        }
        timeout(WRITE_MAX, stream.write_all(&bytes)).await??;
    }
    // The table has dropped this connection; the far end learns it by the end of the stream.
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_split_by_lengths() {
        assert_eq!(split(&[]), Split::Partial);
        assert_eq!(split(&[0]), Split::Partial);
        assert_eq!(split(&[0, 2, 7]), Split::Partial);
        assert_eq!(split(&[0, 2, 7, 8, 9]), Split::Datagram(&[7, 8]));
        assert_eq!(split(&[0, 0, 1]), Split::Malformed);
        let beyond = u16::try_from(DATAGRAM_MAX_BYTES + 1).unwrap().to_be_bytes();
        assert_eq!(split(&beyond), Split::Malformed);
        // What a browser would say first.
        assert_eq!(split(b"GET / HTTP/1.1"), Split::Malformed);
    }
}
