//! One connection: its framing, its deadlines, its end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BufMut;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::{sleep, timeout};

use super::LENGTH_BYTES;
use super::outbox::Outbox;
use super::stream::{self, Received};
use super::table::{End, Shared};
use crate::DATAGRAM_MAX_BYTES;

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
/// Read at once, and where the far end sends much.
const READ_BYTES: usize = 2 * (LENGTH_BYTES + DATAGRAM_MAX_BYTES);
const READ_BYTES_MAX: usize = 1 << 16;
/// What the kernel holds that is not on its way yet: what waits delays what comes after.
const UNSENT_BYTES: u32 = 128 << 10;

/// Opens a connection and serves it.
pub(super) async fn dial(shared: Arc<Shared>, to: SocketAddr, serial: u64, outbox: Arc<Outbox>) {
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
    outbox: Arc<Outbox>,
) {
    let end = run(&shared, stream, from, outbox, false).await;
    shared.ended(from, serial, end);
}

async fn run(
    shared: &Shared,
    mut stream: TcpStream,
    remote: SocketAddr,
    outbox: Arc<Outbox>,
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
        _ = write(writer, &outbox, &proven) => End::Closed,
        () = unproven(&proven) => End::Unproven,
    };
    tracing::trace!(%remote, ?end, "connection ended");
    end
}

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)?;
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
    let mut room = READ_BYTES;
    let mut read = Vec::with_capacity(room);
    loop {
        let left = room - read.len();
        let mut into = (&mut read).limit(left);
        let Ok(Ok(1..)) = timeout(IDLE_MAX, stream.read_buf(&mut into)).await else {
            return End::Closed;
        };
        let Ok(whole) = stream::whole(&read) else {
            return End::Malformed;
        };
        if whole == 0 {
            continue;
        }
        // There may be more where there was so much.
        room = match read.len() == room {
            true => READ_BYTES_MAX,
            false => READ_BYTES,
        };
        let mut next = Vec::with_capacity(room);
        next.extend_from_slice(&read[whole..]);
        read.truncate(whole);
        let received = Received {
            from: remote,
            stream: std::mem::replace(&mut read, next),
        };
        if shared.inbox.send(received).await.is_err() {
            return End::Closed;
        }
    }
}

async fn write(mut stream: WriteHalf<'_>, outbox: &Outbox, proven: &AtomicBool) -> io::Result<()> {
    let mut bytes = Vec::new();
    while outbox.take(&mut bytes).await {
        proven.store(true, Ordering::Relaxed);
        timeout(WRITE_MAX, stream.write_all(&bytes)).await??;
    }
    // The table has dropped this connection; the far end learns it by the end of the stream.
    stream.shutdown().await
}
