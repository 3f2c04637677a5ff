//! TCP transfers through the overlay in both directions, and when their bytes arrived.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::inside;
use crate::interrupt;

/// The port of the listener; nothing else listens on a virtual address.
const PORT: u16 = 7007;

/// One write. Small enough that reads come often, which is what is measured.
const CHUNK_BYTES: usize = 4096;

/// How long a connection may take to be made, and a read or write to look at the end of the run.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
const SLICE: Duration = Duration::from_millis(100);

/// Arrivals remembered; at a kilobyte each that is more than a transfer of any experiment has.
const ARRIVALS_MAX: usize = 1 << 22;

/// What ends the transfers.
type Stop = Arc<AtomicBool>;

/// When bytes arrived, in order.
#[derive(Debug, Clone, Default)]
pub struct Arrivals(Arc<Mutex<Vec<Instant>>>);

/// Both transfers between two nodes.
#[derive(Debug)]
pub struct Streams {
    /// At the far end, from the near one.
    pub there: Arrivals,
    /// At the near end.
    pub back: Arrivals,
    stop: Stop,
    ends: Vec<JoinHandle<Result<()>>>,
}

/// A node that takes part: its namespace's full name, and its virtual address.
#[derive(Debug, Clone)]
pub struct End {
    /// See [`End`].
    pub space: String,
    /// See [`End`].
    pub v4: Ipv4Addr,
}

impl Arrivals {
    /// Whether anything arrived after `at`.
    pub fn any_after(&self, at: Instant) -> bool {
        let arrivals = self.0.lock().expect("no holder panics");
        arrivals.last().is_some_and(|last| *last > at)
    }

    /// The longest time without an arrival that begins within `within` and ends by `end`; it counts
    /// from the beginning of `within` at the earliest. None when nothing arrived.
    pub fn longest_gap(&self, within: RangeInclusive<Instant>, end: Instant) -> Option<Duration> {
        let arrivals = self.0.lock().expect("no holder panics");
        let from = *within.start();
        let times: Vec<Instant> = arrivals
            .iter()
            .filter(|time| (from..=end).contains(time))
            .copied()
            .collect();
        let begins = [from].into_iter().chain(times.iter().copied());
        // What is still open at the end is no gap that ended; the caller waits long enough.
        let gaps = begins
            .zip(&times)
            .filter(|(begin, _)| within.contains(begin));
        gaps.map(|(begin, end)| *end - begin).max()
    }

    fn note(&self) {
        let mut arrivals = self.0.lock().expect("no holder panics");
        if arrivals.len() < ARRIVALS_MAX {
            arrivals.push(Instant::now());
        }
    }
}

impl Streams {
    /// Connects from `near` to `far` and begins to send both ways, as fast as the network takes it.
    pub fn start(near: &End, far: &End) -> Result<Self> {
        let stop = Stop::default();
        let (there, back) = (Arrivals::default(), Arrivals::default());
        let address = SocketAddr::from((far.v4, PORT));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let far_end = {
            let (stop, arrivals) = (stop.clone(), there.clone());
            inside::spawn(&far.space, move || {
                let listener = TcpListener::bind(address).context("cannot listen")?;
                listener.set_nonblocking(true)?;
                let _ = ready.send(());
                let stream = accept(&listener, &stop)?;
                exchange(stream, &stop, &arrivals)
            })?
        };
        // An error there is told when it is joined.
        let _ = is_ready.recv();
        let near_end = {
            let (stop, arrivals) = (stop.clone(), back.clone());
            inside::spawn(&near.space, move || {
                let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)
                    .context("no TCP connection through the overlay")?;
                exchange(stream, &stop, &arrivals)
            })?
        };
        Ok(Self {
            there,
            back,
            stop,
            ends: vec![far_end, near_end],
        })
    }

    /// An error when one end has given up.
    pub fn check(&mut self) -> Result<()> {
        match self.ends.iter().position(JoinHandle::is_finished) {
            None => Ok(()),
            Some(at) => {
                join(self.ends.remove(at))?;
                bail!("a transfer ended by itself")
            }
        }
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for end in self.ends.drain(..) {
            // Its result matters to `check` alone.
            let _ = end.join();
        }
    }
}

fn join(end: JoinHandle<Result<()>>) -> Result<()> {
    end.join()
        .map_err(|_| anyhow::anyhow!("a transferring thread panicked"))?
}

fn accept(listener: &TcpListener, stop: &Stop) -> Result<TcpStream> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        if stop.load(Ordering::Relaxed) || interrupt::requested() || Instant::now() >= deadline {
            bail!("nobody connected");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Sends without end and notes what arrives, until `stop`.
fn exchange(stream: TcpStream, stop: &Stop, arrivals: &Arrivals) -> Result<()> {
    stream.set_read_timeout(Some(SLICE))?;
    stream.set_write_timeout(Some(SLICE))?;
    stream.set_nodelay(true)?;
    let ends = |stop: &Stop| stop.load(Ordering::Relaxed) || interrupt::requested();
    let idle = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
        )
    };
    thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let chunk = [0x5a; CHUNK_BYTES];
            while !ends(stop) {
                match (&stream).write(&chunk) {
                    Ok(_) => {}
                    Err(error) if idle(&error) => {}
                    Err(error) => return Err(error).context("a transfer broke"),
                }
            }
            Ok(())
        });
        let mut buffer = [0; 1 << 16];
        let received = loop {
            if ends(stop) {
                break Ok(());
            }
            match (&stream).read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(_) => arrivals.note(),
                Err(error) if idle(&error) => {}
                Err(error) => break Err(error).context("a transfer broke"),
            }
        };
        // Whatever ended one direction ends the other.
        let _ = stream.shutdown(Shutdown::Both);
        let sent = sender
            .join()
            .map_err(|_| anyhow::anyhow!("a sending thread panicked"))?;
        match ends(stop) {
            true => Ok(()),
            false => received.and(sent),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_from_the_beginning_and_only_to_arrivals() {
        let zero = Instant::now();
        let at = |ms| zero + Duration::from_millis(ms);
        let arrivals = Arrivals(Arc::new(Mutex::new(
            [10, 20, 400, 410, 900].map(at).to_vec(),
        )));
        let gap = |from, until, end| arrivals.longest_gap(at(from)..=at(until), at(end));
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(gap(0, 30, 30), ms(10));
        assert_eq!(gap(30, 600, 600), ms(370));
        assert_eq!(gap(30, 1000, 1000), ms(490));
        assert_eq!(gap(30, 405, 1000), ms(370), "the longest begins later");
        assert_eq!(gap(500, 800, 800), None);
        assert!(arrivals.any_after(at(899)) && !arrivals.any_after(at(900)));
    }
}
