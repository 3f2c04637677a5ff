//! The connections that there are, and the limits on them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::outbox::Outbox;
use super::stream::Received;
use super::{Refusal, connection};
use crate::DATAGRAM_MAX_BYTES;

/// Connections at once, of both directions.
pub(super) const CONNECTIONS_MAX: usize = 256;
/// Of them accepted ones: some room is left for those that we open.
pub(super) const ACCEPTED_MAX: usize = 192;
/// Accepted connections from one IP address: many members may sit behind one translator.
pub(super) const ACCEPTED_PER_IP_MAX: usize = 32;
/// Accepted connections that have not earned an answer yet; the oldest gives way to the newest.
pub(super) const UNPROVEN_MAX: usize = 32;
/// How long a far end that took no connection is left alone.
const FAILURE_PAUSE: Duration = Duration::from_secs(5);
/// Such far ends remembered.
const FAILURES_MAX: usize = 64;

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallies {
    /// Connections that are there now.
    pub connections: usize,
    /// Connections refused because there were too many, or too many of one address.
    pub refused: u64,
    /// Connections closed because they sent nothing that earned an answer.
    pub unproven: u64,
    /// Connections closed because of a length that no datagram has.
    pub malformed: u64,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was never made.
    NotMade,
    /// It earned no answer in time.
    Unproven,
    /// A length that no datagram has.
    Malformed,
    /// Anything else: closed, idle, failed, given up by us.
    Closed,
}

struct Entry {
    outbox: Arc<Outbox>,
    serial: u64,
    accepted: bool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.outbox.close();
    }
}

#[derive(Default)]
struct Table {
    entries: BTreeMap<SocketAddr, Entry>,
    /// Accepted connections without an answer yet, oldest first.
    unproven: VecDeque<SocketAddr>,
    failures: VecDeque<(SocketAddr, Instant)>,
    serial: u64,
    closed: bool,
    tallies: Tallies,
}

/// What the underlay and its connections' tasks share.
pub(super) struct Shared {
    pub(super) inbox: mpsc::Sender<Received>,
    table: Mutex<Table>,
}

impl Shared {
    pub(super) fn new(inbox: mpsc::Sender<Received>) -> Self {
        Shared {
            inbox,
            table: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics under this lock")
    }

    pub(super) fn tallies(&self) -> Tallies {
        let table = self.table();
        Tallies {
            connections: table.entries.len(),
            ..table.tallies
        }
    }

    /// Ends every connection: their tasks end with their queues.
    pub(super) fn close(&self) {
        let mut table = self.table();
        table.closed = true;
        table.entries.clear();
    }

    pub(super) fn send(
        shared: &Arc<Shared>,
        to: SocketAddr,
        datagrams: &[u8],
        datagram_bytes: usize,
    ) -> Result<(), Refusal> {
        if datagrams.is_empty() || !(1..=DATAGRAM_MAX_BYTES).contains(&datagram_bytes) {
            return Err(Refusal::TooBig);
        }
        let push = |outbox: &Outbox| match outbox.push(datagrams, datagram_bytes) {
            0 => Ok(()),
            lost => Err(Refusal::Full { lost }),
        };
        let mut table = shared.table();
        if let Some(entry) = table.entries.get(&to) {
            let sent = push(&entry.outbox);
            if entry.accepted {
                table.unproven.retain(|unproven| *unproven != to);
            }
            return sent;
        }
        let now = Instant::now();
        table.failures.retain(|(_, until)| *until > now);
        if table.failures.iter().any(|(failed, _)| *failed == to) {
            return Err(Refusal::Failed);
        }
        if table.closed || table.entries.len() >= CONNECTIONS_MAX {
            return Err(Refusal::TooMany);
        }
        let (serial, outbox) = table.insert(to, false);
        let sent = push(&outbox);
        tokio::spawn(connection::dial(Arc::clone(shared), to, serial, outbox));
        sent
    }

    pub(super) fn accepted(shared: &Arc<Shared>, stream: TcpStream, from: SocketAddr) {
        let mut table = shared.table();
        let of_ip = SocketAddr::new(from.ip(), 0)..=SocketAddr::new(from.ip(), u16::MAX);
        let same = table.entries.range(of_ip).filter(|(_, e)| e.accepted);
        let too_many_of_ip = same.count() >= ACCEPTED_PER_IP_MAX;
        let accepted = table.entries.values().filter(|entry| entry.accepted);
        let too_many = accepted.count() >= ACCEPTED_MAX || table.entries.len() >= CONNECTIONS_MAX;
        if table.closed || too_many || too_many_of_ip || table.entries.contains_key(&from) {
            table.tallies.refused += 1;
            return;
        }
        if table.unproven.len() >= UNPROVEN_MAX
            && let Some(oldest) = table.unproven.pop_front()
        {
            table.entries.remove(&oldest);
            table.tallies.unproven += 1;
        }
        let (serial, outbox) = table.insert(from, true);
        table.unproven.push_back(from);
        tokio::spawn(connection::serve(
            Arc::clone(shared),
            stream,
            from,
            serial,
            outbox,
        ));
    }

    /// A connection's task ends.
    pub(super) fn ended(&self, remote: SocketAddr, serial: u64, end: End) {
        let mut table = self.table();
        match end {
            End::NotMade => {
                if table.failures.len() >= FAILURES_MAX {
                    table.failures.pop_front();
                }
                let until = Instant::now() + FAILURE_PAUSE;
                table.failures.push_back((remote, until));
            }
            End::Unproven => table.tallies.unproven += 1,
            End::Malformed => table.tallies.malformed += 1,
            End::Closed => {}
        }
        let ours = table.entries.get(&remote);
        if ours.is_some_and(|entry| entry.serial == serial) {
            table.entries.remove(&remote);
            table.unproven.retain(|unproven| *unproven != remote);
        }
    }
}

impl Table {
    fn insert(&mut self, remote: SocketAddr, accepted: bool) -> (u64, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::default());
        self.serial += 1;
        let serial = self.serial;
        let entry = Entry {
            outbox: Arc::clone(&outbox),
            serial,
            accepted,
        };
        self.entries.insert(remote, entry);
        (serial, outbox)
    }
}
