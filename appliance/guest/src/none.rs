//! No guest: the router only carries other nodes' traffic.

use std::task::{Context, Poll};

use crate::{Guest, GuestGone, Offload, PacketBatch, WriteError};

/// Sends nothing and takes nothing.
pub struct NoGuest;

impl Guest for NoGuest {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        batch: &mut PacketBatch,
    ) -> Poll<Result<(), GuestGone>> {
        batch.clear();
        Poll::Pending
    }

    fn write(&mut self, _: Offload, _: &[u8]) -> Result<(), WriteError> {
        Err(WriteError::NoGuest)
    }
}
