//! The second thread, on machines with a second processor: it writes packets to the guest while the event loop opens
//! those that came after them.
//!
//! It is used when more waits than the loop has taken, and not else: a hand-over costs a wake-up. What is handed over
//! leaves in order. Where too much is under way the loop waits for it, so nothing is lost here.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use wow_guest::{GuestWriter, Offload, WriteError};

/// Hand-overs that wait, besides the one that is being written.
const WAITING_MAX: usize = 2;

/// Packets with what the guest is to know of each.
pub type Packets = Vec<(Offload, Vec<u8>)>;

/// What became of a hand-over.
#[derive(Debug)]
pub struct Written {
    /// The packets, whose buffers are free.
    pub packets: Packets,
    /// Why some were lost.
    pub errors: Vec<WriteError>,
}

/// The thread. It ends when this is dropped, after what it was handed.
#[derive(Debug)]
pub struct Second {
    handed: SyncSender<Packets>,
    written: Receiver<Written>,
    under_way: usize,
}

impl Second {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for one.
    pub fn start(writer: Box<dyn GuestWriter>) -> io::Result<Self> {
        let (handed, taken) = sync_channel(WAITING_MAX);
        let (tell, written) = channel();
        let thread = thread::Builder::new().name("guest writer".into());
        thread.spawn(move || write_all(writer, &taken, &tell))?;
        Ok(Second {
            handed,
            written,
            under_way: 0,
        })
    }

    /// Whether something that was handed over may not be written yet: what follows must go the same way.
    pub fn is_busy(&self) -> bool {
        self.under_way > 0
    }

    /// Hands packets over, and waits where too many are under way.
    pub fn hand(&mut self, packets: Packets) {
        // The thread lives as long as this end.
        if self.handed.send(packets).is_ok() {
            self.under_way += 1;
        }
    }

    /// What is written by now.
    pub fn poll_written(&mut self) -> Option<Written> {
        let written = self.written.try_recv().ok()?;
        self.under_way -= 1;
        Some(written)
    }
}

fn write_all(mut writer: Box<dyn GuestWriter>, handed: &Receiver<Packets>, tell: &Sender<Written>) {
    while let Ok(packets) = handed.recv() {
        let outcomes = packets.iter();
        let outcomes = outcomes.map(|(offload, packet)| writer.write(*offload, packet));
        let errors = outcomes.filter_map(Result::err).collect();
        if tell.send(Written { packets, errors }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Refuses every third packet, and passes the others on.
    struct Picky(Sender<u8>);

    impl GuestWriter for Picky {
        fn write(&mut self, _: Offload, packet: &[u8]) -> Result<(), WriteError> {
            if packet[0].is_multiple_of(3) {
                return Err(WriteError::Full);
            }
            self.0.send(packet[0]).unwrap();
            Ok(())
        }
    }

    #[test]
    fn what_is_handed_over_is_written_in_order_and_losses_are_told() {
        let (sender, seen) = channel();
        let mut second = Second::start(Box::new(Picky(sender))).unwrap();
        // More than may wait.
        for first in (0..100u8).step_by(5) {
            let packets = first..first + 5;
            second.hand(packets.map(|n| (Offload::default(), vec![n])).collect());
        }
        let (mut buffers, mut lost) = (0, 0);
        while second.is_busy() {
            if let Some(written) = second.poll_written() {
                buffers += written.packets.len();
                lost += written.errors.len();
            }
            thread::yield_now();
        }
        assert_eq!((buffers, lost), (100, 34));
        drop(second);
        // The writer is gone with the thread, so this ends.
        let expected = (0..100).filter(|n: &u8| !n.is_multiple_of(3));
        assert!(seen.iter().eq(expected));
    }
}
