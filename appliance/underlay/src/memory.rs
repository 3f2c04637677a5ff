//! The in-memory twin: underlays that pass datagrams to each other inside one process.
//!
//! Delivery is instant, ordered and loses nothing but what overflows a queue or crosses a cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::batch::BATCH_DATAGRAMS;
use crate::{DATAGRAM_MAX_BYTES, Outgoing, ReceiveBatch, ReceiveError, SendError, Sent, Underlay};

/// Datagrams that wait at one receiver before further ones are lost, as in a router's queue.
const QUEUE_DATAGRAMS: usize = 1024;

/// The network that memory underlays attach to. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network(Arc<Mutex<Wiring>>);

#[derive(Default)]
struct Wiring {
    receivers: BTreeMap<SocketAddr, mpsc::Sender<(SocketAddr, Vec<u8>)>>,
    /// Addresses that nothing reaches and that reach nothing.
    cut: BTreeSet<SocketAddr>,
}

/// One attachment to a [`Network`].
pub struct MemoryUnderlay {
    address: SocketAddr,
    network: Network,
    inbox: mpsc::Receiver<(SocketAddr, Vec<u8>)>,
    oversized: u64,
}

impl Network {
    /// A network with nobody on it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Attaches at `address`, in place of whoever was there.
    pub fn attach(&self, address: SocketAddr) -> MemoryUnderlay {
        let (sender, inbox) = mpsc::channel(QUEUE_DATAGRAMS);
        self.wiring().receivers.insert(address, sender);
        MemoryUnderlay {
            address,
            network: self.clone(),
            inbox,
            oversized: 0,
        }
    }

    /// Cuts an address off, or heals it.
    pub fn set_cut(&self, address: SocketAddr, cut: bool) {
        let mut wiring = self.wiring();
        if cut {
            wiring.cut.insert(address);
        } else {
            wiring.cut.remove(&address);
        }
    }

    fn wiring(&self) -> MutexGuard<'_, Wiring> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

impl Underlay for MemoryUnderlay {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut ReceiveBatch,
    ) -> Poll<Result<(), ReceiveError>> {
        batch.clear();
        while batch.len() < BATCH_DATAGRAMS {
            match self.inbox.poll_recv(cx) {
                Poll::Ready(Some((from, datagram))) => {
                    if !batch.push(from, &datagram) {
                        self.oversized += 1;
                    }
                }
                // The sender lives in the network; it goes when another takes this address.
                Poll::Ready(None) => break,
                Poll::Pending => break,
            }
        }
        if batch.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn send(&mut self, batch: &[Outgoing]) -> Sent {
        let wiring = self.network.wiring();
        let mut sent = Sent::default();
        for (index, outgoing) in batch.iter().enumerate() {
            if outgoing.datagram_bytes > DATAGRAM_MAX_BYTES {
                sent.failures.push((index, SendError::TooBig));
            } else if !wiring.cut.contains(&self.address)
                && !wiring.cut.contains(&outgoing.to)
                && let Some(receiver) = wiring.receivers.get(&outgoing.to)
            {
                for datagram in outgoing.datagrams() {
                    // A full queue loses the datagram, and so does a receiver that went away.
                    let _ = receiver.try_send((self.address, datagram.to_vec()));
                }
            }
        }
        sent.taken = batch.len();
        sent
    }

    fn poll_sendable(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn bound(&self) -> Vec<SocketAddr> {
        vec![self.address]
    }

    fn oversized(&self) -> u64 {
        self.oversized
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn arrived(underlay: &mut MemoryUnderlay) -> usize {
        let mut batch = ReceiveBatch::new();
        match underlay.poll_receive(&mut Context::from_waker(Waker::noop()), &mut batch) {
            Poll::Ready(result) => {
                result.unwrap();
                batch.len()
            }
            Poll::Pending => 0,
        }
    }

    #[test]
    fn a_cut_address_is_silent_until_healed() {
        let network = Network::new();
        let (mut a, mut b) = (network.attach(address(1)), network.attach(address(2)));
        let hello = [Outgoing::one(address(2), b"hello".to_vec())];
        network.set_cut(address(2), true);
        assert_eq!(a.send(&hello).taken, 1);
        assert_eq!(arrived(&mut b), 0);
        network.set_cut(address(2), false);
        a.send(&hello);
        assert_eq!(arrived(&mut b), 1);
    }

    #[test]
    fn a_full_queue_loses_the_newest() {
        let network = Network::new();
        let (mut a, mut b) = (network.attach(address(1)), network.attach(address(2)));
        let flood = vec![Outgoing::one(address(2), vec![7]); QUEUE_DATAGRAMS + 10];
        assert_eq!(a.send(&flood).taken, flood.len());
        let mut total = 0;
        loop {
            match arrived(&mut b) {
                0 => break,
                count => total += count,
            }
        }
        assert_eq!(total, QUEUE_DATAGRAMS);
    }
}
