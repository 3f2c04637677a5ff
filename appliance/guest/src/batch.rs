//! The buffers that guest packets are read into: allocated once, reused for every batch.

/// Room for one packet: above any MTU that the overlay gives its guests today.
pub const PACKET_MAX_BYTES: usize = 2048;

/// Packets moved in one turn of the event loop, so that a busy guest leaves room for the others.
pub const BATCH_PACKETS: usize = 32;

/// Up to [`BATCH_PACKETS`] IP packets.
pub struct PacketBatch {
    room: Box<[u8]>,
    lengths: Vec<usize>,
}

impl PacketBatch {
    /// An empty batch.
    pub fn new() -> Self {
        PacketBatch {
            room: vec![0; PACKET_MAX_BYTES * BATCH_PACKETS].into_boxed_slice(),
            lengths: Vec::with_capacity(BATCH_PACKETS),
        }
    }

    /// Forgets the packets in it.
    pub fn clear(&mut self) {
        self.lengths.clear();
    }

    /// Whether no further packet fits.
    pub fn is_full(&self) -> bool {
        self.lengths.len() == BATCH_PACKETS
    }

    /// Whether no packet is in it.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The packets in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.lengths
            .iter()
            .zip(self.room.chunks_exact(PACKET_MAX_BYTES))
            .map(|(&length, slot)| &slot[..length])
    }

    /// Lets `fill` write the next packet and say its length.
    ///
    /// # Panics
    /// The batch is full, or `fill` claims more than it was given.
    pub(crate) fn push_with<E>(
        &mut self,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<(), E> {
        let start = self.lengths.len() * PACKET_MAX_BYTES;
        let length = fill(&mut self.room[start..start + PACKET_MAX_BYTES])?;
        assert!(length <= PACKET_MAX_BYTES, "a slot holds what was written");
        self.lengths.push(length);
        Ok(())
    }
}

impl Default for PacketBatch {
    fn default() -> Self {
        Self::new()
    }
}
