//! What waits for one connection: datagrams, each behind its length, as the stream carries them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::LENGTH_BYTES;

/// Bytes that wait; further datagrams are lost. More would only delay them: the kernel holds some too.
pub(super) const WAITING_BYTES_MAX: usize = 256 << 10;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    news: Notify,
}

#[derive(Default)]
struct Waiting {
    stream: Vec<u8>,
    is_closed: bool,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds datagrams of `datagram_bytes` each, the last of which may be shorter; how many are lost for want of
    /// room. A length must fit in its two bytes.
    pub(super) fn push(&self, datagrams: &[u8], datagram_bytes: usize) -> usize {
        let mut waiting = self.waiting();
        let before = waiting.stream.len();
        let mut lost = 0;
        for datagram in datagrams.chunks(datagram_bytes) {
            let Ok(length) = u16::try_from(datagram.len()) else {
                lost += 1;
                continue;
            };
            if waiting.stream.len() + LENGTH_BYTES + datagram.len() > WAITING_BYTES_MAX {
                lost += 1;
                continue;
            }
            waiting.stream.extend_from_slice(&length.to_be_bytes());
            waiting.stream.extend_from_slice(datagram);
        }
        if before == 0 && !waiting.stream.is_empty() {
            self.news.notify_one();
        }
        lost
    }

    /// Nothing is added any more.
    pub(super) fn close(&self) {
        self.waiting().is_closed = true;
        self.news.notify_one();
    }

    /// Waits for something, and puts it in the place of what `stream` held; whether there is more to come.
    pub(super) async fn take(&self, stream: &mut Vec<u8>) -> bool {
        stream.clear();
        loop {
            {
                let mut waiting = self.waiting();
                if !waiting.stream.is_empty() {
                    std::mem::swap(stream, &mut waiting.stream);
                    return true;
                }
                if waiting.is_closed {
                    return false;
                }
                // Whoever is idle holds no memory.
                waiting.stream = Vec::new();
            }
            *stream = Vec::new();
            self.news.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_wait_behind_their_lengths_until_it_is_closed() {
        let outbox = Outbox::default();
        assert_eq!(outbox.push(&[1, 2, 3, 4, 5], 2), 0);
        assert_eq!(outbox.push(&[6], 1), 0);
        let mut stream = vec![9; 9];
        assert!(outbox.take(&mut stream).await);
        assert_eq!(stream, [0, 2, 1, 2, 0, 2, 3, 4, 0, 1, 5, 0, 1, 6]);
        outbox.push(&[7], 1);
        outbox.close();
        assert!(outbox.take(&mut stream).await);
        assert_eq!(stream, [0, 1, 7]);
        assert!(!outbox.take(&mut stream).await);
    }

    #[tokio::test]
    async fn what_finds_no_room_is_lost_and_counted() {
        let outbox = Outbox::default();
        let fits = WAITING_BYTES_MAX / (LENGTH_BYTES + 1000);
        assert_eq!(outbox.push(&vec![0; 1000 * (fits + 3)], 1000), 3);
        let mut stream = Vec::new();
        assert!(outbox.take(&mut stream).await);
        assert_eq!(stream.len(), fits * (LENGTH_BYTES + 1000));
        assert_eq!(outbox.push(&[1], 1), 0);
    }
}
