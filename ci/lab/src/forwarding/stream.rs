//! One TCP flow through the machine, as fast as it takes it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::machine::{ADDRESSES, Machine};
use crate::{inside, interrupt};

/// The listener's port.
const PORT: u16 = 7007;

/// One write or read: large, so that system calls of the ends are no part of the figures.
const CHUNK_BYTES: usize = 256 << 10;

/// How long a connection may take, and one read or write.
const LIMIT: Duration = Duration::from_secs(15);

/// Sends for `span` from the first peer to the second; the bytes that arrived.
pub fn run(machine: &Machine, span: Duration) -> Result<u64> {
    let (ready, is_ready) = std::sync::mpsc::channel();
    let receiver = inside::spawn(machine.space(1), move || {
        let listener = TcpListener::bind((ADDRESSES[1], PORT)).context("cannot listen")?;
        // Who waits for it hears of an error when this thread is joined.
        let _ = ready.send(());
        let stream = accept(&listener)?;
        receive(stream)
    })?;
    let _ = is_ready.recv();
    let sender = inside::spawn(machine.space(0), move || {
        let address = (ADDRESSES[1], PORT).into();
        let stream = TcpStream::connect_timeout(&address, LIMIT);
        send(
            stream.context("no TCP connection through the machine")?,
            span,
        )
    })?;
    let sent = sender.join().expect("a sender does not panic");
    let arrived = receiver.join().expect("a receiver does not panic");
    sent.and(arrived)
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + LIMIT;
    while Instant::now() < deadline {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        interrupt::check()?;
        std::thread::sleep(Duration::from_millis(2));
    }
    bail!("nobody connected")
}

fn send(mut stream: TcpStream, span: Duration) -> Result<()> {
    stream.set_write_timeout(Some(LIMIT))?;
    let chunk = vec![0x5a; CHUNK_BYTES];
    let end = Instant::now() + span;
    while Instant::now() < end {
        interrupt::check()?;
        stream.write_all(&chunk).context("the flow stalls")?;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(())
}

fn receive(mut stream: TcpStream) -> Result<u64> {
    stream.set_read_timeout(Some(LIMIT))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut arrived = 0;
    loop {
        match stream.read(&mut buffer).context("the flow stalls")? {
            0 => return Ok(arrived),
            count => arrived += count as u64,
        }
        interrupt::check()?;
    }
}
