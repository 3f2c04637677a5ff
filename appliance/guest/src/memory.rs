//! The in-memory twin: a guest that is the other end of a pair of queues.

use std::io;
use std::task::{Context, Poll};

use tokio::sync::mpsc;

use crate::{Guest, GuestGone, Offload, PACKET_MAX_BYTES, PacketBatch, WriteError};

/// Packets that wait in either direction before further ones are refused.
const QUEUE_PACKETS: usize = 256;

/// The router's end.
pub struct MemoryGuest {
    from_host: mpsc::Receiver<Vec<u8>>,
    to_host: mpsc::Sender<Vec<u8>>,
}

/// The guest's end: what an operating system would be to a TUN device.
pub struct MemoryHost {
    to_router: mpsc::Sender<Vec<u8>>,
    from_router: mpsc::Receiver<Vec<u8>>,
}

/// A guest with the host that stands behind it.
pub fn pair() -> (MemoryGuest, MemoryHost) {
    let (to_router, from_host) = mpsc::channel(QUEUE_PACKETS);
    let (to_host, from_router) = mpsc::channel(QUEUE_PACKETS);
    (
        MemoryGuest { from_host, to_host },
        MemoryHost {
            to_router,
            from_router,
        },
    )
}

impl MemoryHost {
    /// Sends one IP packet to the router; false when its queue is full, the packet too large or
    /// the router gone.
    pub fn send(&self, packet: Vec<u8>) -> bool {
        packet.len() <= PACKET_MAX_BYTES && self.to_router.try_send(packet).is_ok()
    }

    /// The next packet from the router; `None` when the router is gone.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        self.from_router.recv().await
    }
}

impl Guest for MemoryGuest {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        while !batch.is_full() {
            match self.from_host.poll_recv(cx) {
                Poll::Ready(Some(packet)) => {
                    let pushed = batch.push(Offload::default(), &packet);
                    debug_assert!(pushed, "neither is the batch full nor the packet too long");
                }
                Poll::Ready(None) if batch.is_empty() => {
                    return Poll::Ready(Err(GuestGone(io::ErrorKind::BrokenPipe.into())));
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if batch.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }

    fn write(&mut self, _: Offload, packet: &[u8]) -> Result<(), WriteError> {
        self.to_host
            .try_send(packet.to_vec())
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => WriteError::Full,
                mpsc::error::TrySendError::Closed(_) => {
                    WriteError::Refused(io::ErrorKind::BrokenPipe.into())
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn packets_pass_both_ways_and_a_full_queue_refuses() {
        let (mut guest, mut host) = pair();
        assert!(host.send(vec![1, 2, 3]));
        assert!(!host.send(vec![0; PACKET_MAX_BYTES + 1]));
        let mut batch = PacketBatch::new();
        poll_fn(|cx| guest.poll_read(cx, &mut batch)).await.unwrap();
        assert_eq!(
            (batch.len(), batch.packet_mut(0).1.to_vec()),
            (1, vec![1, 2, 3])
        );

        for _ in 0..QUEUE_PACKETS {
            guest.write(Offload::default(), &[4]).unwrap();
        }
        assert!(matches!(
            guest.write(Offload::default(), &[4]),
            Err(WriteError::Full)
        ));
        assert_eq!(host.receive().await, Some(vec![4]));
    }

    #[tokio::test]
    async fn a_vanished_host_is_reported_after_its_last_packet() {
        let (mut guest, host) = pair();
        assert!(host.send(vec![9]));
        drop(host);
        let mut batch = PacketBatch::new();
        poll_fn(|cx| guest.poll_read(cx, &mut batch)).await.unwrap();
        assert_eq!(batch.len(), 1);
        assert!(poll_fn(|cx| guest.poll_read(cx, &mut batch)).await.is_err());
    }
}
