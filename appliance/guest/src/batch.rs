//! The buffer that guest packets are read into: allocated once, filled from its front for every batch.

use std::io;
use std::ops::Range;

use crate::offload::{OFFLOAD_BYTES, Offload};

/// Longest packet, superpackets included: what an IP header can describe.
pub const PACKET_MAX_BYTES: usize = 65_535;

/// Packets moved in one turn of the event loop, so that a busy guest leaves room for the others.
pub const BATCH_PACKETS: usize = 64;

/// An Ethernet header without a VLAN's tag.
pub const ETHERNET_BYTES: usize = 14;

/// What the longest packet takes, with all that a device may put before it.
pub(crate) const SLOT_BYTES: usize = OFFLOAD_BYTES + ETHERNET_BYTES + PACKET_MAX_BYTES;

/// Room in all. Packets are put in while the longest one still fits, so seven superpackets at least.
const ROOM_BYTES: usize = 8 * SLOT_BYTES;

/// Packets that were read side by side are moved together if they are no longer than this: to copy the
/// others costs more than the room that they waste.
const MOVED_BYTES_MAX: usize = 4096;

/// Up to [`BATCH_PACKETS`] IP packets, each with what the device said of it.
pub struct PacketBatch {
    room: Box<[u8]>,
    packets: Vec<(Offload, Range<usize>)>,
}

impl PacketBatch {
    /// An empty batch.
    pub fn new() -> Self {
        PacketBatch {
            // Pages that no packet has reached yet cost nothing.
            room: vec![0; ROOM_BYTES].into_boxed_slice(),
            packets: Vec::with_capacity(BATCH_PACKETS),
        }
    }

    /// Forgets the packets in it.
    pub fn clear(&mut self) {
        self.packets.clear();
    }

    /// Whether no further packet fits.
    pub fn is_full(&self) -> bool {
        self.packets.len() == BATCH_PACKETS || ROOM_BYTES - self.end() < SLOT_BYTES
    }

    /// Whether no packet is in it.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// How many packets are in it.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// One of the packets, counted in order of arrival.
    ///
    /// # Panics
    /// There is no such packet.
    pub fn packet_mut(&mut self, index: usize) -> (Offload, &mut [u8]) {
        let (offload, range) = self.packets[index].clone();
        (offload, &mut self.room[range])
    }

    /// Copies a packet in; false when the batch is full or the packet too long.
    pub fn push(&mut self, offload: Offload, packet: &[u8]) -> bool {
        if self.is_full() || packet.len() > PACKET_MAX_BYTES {
            return false;
        }
        let pushed = self.push_with(|slot| {
            slot[..packet.len()].copy_from_slice(packet);
            Ok((Some(offload), 0..packet.len()))
        });
        pushed.is_ok()
    }

    /// Lets `fill` write into the free room, which holds a header and the longest packet, and say where
    /// in it the packet lies. One without an offload is passed over.
    ///
    /// # Panics
    /// The batch is full, or `fill` claims more than it was given.
    pub(crate) fn push_with(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> io::Result<(Option<Offload>, Range<usize>)>,
    ) -> io::Result<()> {
        assert!(!self.is_full(), "callers look first");
        let start = self.end();
        let (offload, packet) = fill(&mut self.room[start..])?;
        assert!(start + packet.end <= ROOM_BYTES, "it was given no more");
        if let Some(offload) = offload {
            let packet = start + packet.start..start + packet.end;
            self.packets.push((offload, packet));
        }
        Ok(())
    }

    /// The free room as places for the longest packet each, to be read into at once; and where in the
    /// room they begin, for [`keep`](Self::keep).
    pub(crate) fn slots(&mut self) -> (usize, std::slice::ChunksExactMut<'_, u8>) {
        let start = self.end();
        (start, self.room[start..].chunks_exact_mut(SLOT_BYTES))
    }

    /// What was read into a slot.
    pub(crate) fn read_at(&self, range: Range<usize>) -> &[u8] {
        &self.room[range]
    }

    /// Takes a packet in that was read into one of the slots, if there is a place for it: they are kept
    /// in order, and those before it are kept already. `packet` counts from the room's beginning.
    pub(crate) fn keep(&mut self, offload: Offload, packet: Range<usize>) {
        let end = self.end();
        assert!(end <= packet.start, "slots are kept in their order");
        if self.packets.len() == BATCH_PACKETS {
            return;
        }
        let packet = match packet.len() <= MOVED_BYTES_MAX {
            true => {
                let length = packet.len();
                self.room.copy_within(packet, end);
                end..end + length
            }
            false => packet,
        };
        self.packets.push((offload, packet));
    }

    /// Shows every packet once to `look`, which says what of it stays under which description, if
    /// anything does.
    pub(crate) fn sift(
        &mut self,
        mut look: impl FnMut(Offload, &mut [u8]) -> Option<(Offload, Range<usize>)>,
    ) {
        let room = &mut self.room;
        self.packets.retain_mut(|(offload, range)| {
            let Some((described, part)) = look(*offload, &mut room[range.clone()]) else {
                return false;
            };
            assert!(part.end <= range.len(), "it was shown no more");
            *offload = described;
            *range = range.start + part.start..range.start + part.end;
            true
        });
    }

    fn end(&self) -> usize {
        self.packets.last().map_or(0, |(_, range)| range.end)
    }
}

impl Default for PacketBatch {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_full_of_packets_or_of_bytes() {
        let mut batch = PacketBatch::new();
        for number in 0..BATCH_PACKETS {
            assert!(batch.push(Offload::default(), &[number as u8]));
        }
        assert!(!batch.push(Offload::default(), &[0]));
        assert_eq!(batch.packet_mut(9).1, [9]);
        batch.clear();
        assert!(!batch.push(Offload::default(), &[0; PACKET_MAX_BYTES + 1]));
        let mut count = 0;
        while batch.push(Offload::default(), &[7; PACKET_MAX_BYTES]) {
            count += 1;
        }
        assert!((7..=8).contains(&count), "{count}");
        assert_eq!(batch.packet_mut(count - 1).1, [7; PACKET_MAX_BYTES]);
    }

    #[test]
    fn what_is_read_side_by_side_stays_whole_and_wastes_no_room() {
        let mut batch = PacketBatch::new();
        let lengths = [60, 60_000, 1514, 7];
        let (base, slots) = batch.slots();
        assert_eq!((base, slots.len()), (0, 8));
        for (slot, length) in slots.zip(lengths) {
            slot[10..10 + length].fill(length as u8);
        }
        for (number, length) in lengths.into_iter().enumerate() {
            let start = base + number * SLOT_BYTES + 10;
            batch.keep(Offload::default(), start..start + length);
        }
        assert_eq!(batch.len(), lengths.len());
        for (number, length) in lengths.into_iter().enumerate() {
            assert_eq!(batch.packet_mut(number).1, vec![length as u8; length]);
        }
        // The short ones lie behind the long one, not in slots of their own.
        assert_eq!(batch.end(), SLOT_BYTES + 10 + 60_000 + 1514 + 7);
        assert_eq!(batch.slots().1.len(), 6);
    }

    #[test]
    fn packets_are_sifted_where_they_lie() {
        let mut batch = PacketBatch::new();
        for byte in 1..=4 {
            assert!(batch.push(Offload::default(), &[byte, byte + 10, byte + 20]));
        }
        batch.sift(|offload, packet| (packet[0] % 2 == 0).then_some((offload, 1..2)));
        assert_eq!(batch.len(), 2);
        assert_eq!(batch.packet_mut(0).1, [12]);
        assert_eq!(batch.packet_mut(1).1, [14]);
    }

    #[test]
    fn what_is_passed_over_takes_no_place() {
        let mut batch = PacketBatch::new();
        batch.push_with(|_| Ok((None, 0..50))).unwrap();
        assert!(batch.is_empty());
        assert!(batch.push(Offload::default(), &[1]));
        assert_eq!((batch.len(), batch.packet_mut(0).1.len()), (1, 1));
    }
}
