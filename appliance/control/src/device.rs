//! The stack's network device: two bounded queues of IP packets.

use std::collections::VecDeque;
use std::task::Waker;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Packets that wait in either direction before further ones are lost: a few TCP windows' worth.
const QUEUE_PACKETS: usize = 64;

/// Packets between the guest and the stack.
pub struct Queues {
    inward: VecDeque<Vec<u8>>,
    outward: VecDeque<Vec<u8>>,
    mtu_bytes: u16,
    dropped: u64,
    /// Who waits for packets that leave.
    reader: Option<Waker>,
}

impl Queues {
    pub fn new(mtu_bytes: u16) -> Self {
        Queues {
            inward: VecDeque::new(),
            outward: VecDeque::new(),
            mtu_bytes,
            dropped: 0,
            reader: None,
        }
    }

    /// A packet from the guest.
    pub fn push(&mut self, packet: &[u8]) {
        if self.inward.len() < QUEUE_PACKETS {
            self.inward.push_back(packet.to_vec());
        } else {
            self.dropped += 1;
        }
    }

    /// A packet to the guest.
    pub fn pop(&mut self) -> Option<Vec<u8>> {
        self.outward.pop_front()
    }

    /// Wakes `reader` with the next packet that leaves.
    pub fn tell(&mut self, reader: &Waker) {
        self.reader = Some(reader.clone());
    }

    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

pub struct Inward(Vec<u8>);

pub struct Outward<'a> {
    queue: &'a mut VecDeque<Vec<u8>>,
    reader: &'a mut Option<Waker>,
}

impl RxToken for Inward {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Outward<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = vec![0; length];
        let result = write(&mut packet);
        self.queue.push_back(packet);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Inward;
    type TxToken<'a> = Outward<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Inward, Outward<'_>)> {
        // Without room for the reply the packet waits, which bounds both queues.
        if self.outward.len() >= QUEUE_PACKETS {
            return None;
        }
        let packet = self.inward.pop_front()?;
        let outward = Outward {
            queue: &mut self.outward,
            reader: &mut self.reader,
        };
        Some((Inward(packet), outward))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outward<'_>> {
        (self.outward.len() < QUEUE_PACKETS).then_some(Outward {
            queue: &mut self.outward,
            reader: &mut self.reader,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu_bytes.into();
        capabilities
    }
}
