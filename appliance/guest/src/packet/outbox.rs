//! Frames that leave together: short ones are copied side by side and go by one call, long ones go at
//! once from where they are.

use std::io;

use super::socket::{FRAMES_MAX, Socket};
use crate::offload::OFFLOAD_BYTES;
use crate::{Offload, WriteError};

/// Up to here a copy costs less than a call.
const COPIED_BYTES_MAX: usize = 2048;
/// Room for a whole batch of them.
const ROOM_BYTES: usize = FRAMES_MAX * COPIED_BYTES_MAX;

/// The frames of one batch.
#[derive(Default)]
pub struct Outbox {
    room: Vec<u8>,
    /// Where each frame ends, its description included.
    ends: Vec<usize>,
    lost: u64,
}

impl Outbox {
    /// Takes a frame. One that is copied may still be lost; see [`lost`](Self::lost).
    pub fn write(
        &mut self,
        socket: &Socket,
        offload: Offload,
        header: &[u8],
        rest: &[u8],
    ) -> Result<(), WriteError> {
        let description = offload.encode();
        let length = OFFLOAD_BYTES + header.len() + rest.len();
        if length > COPIED_BYTES_MAX {
            // Those before it go first.
            self.flush(socket);
            return socket.send(&description, header, rest).map_err(refusal);
        }
        if self.ends.len() == FRAMES_MAX || self.room.len() + length > ROOM_BYTES {
            self.flush(socket);
        }
        for part in [&description[..], header, rest] {
            self.room.extend_from_slice(part);
        }
        self.ends.push(self.room.len());
        Ok(())
    }

    /// Sends what was copied.
    pub fn flush(&mut self, socket: &Socket) {
        let mut first = 0;
        while first < self.ends.len() {
            let sent = socket.send_all(&self.room, first, &self.ends);
            match sent {
                Ok(count) => first += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The card's queue is full: so it is for all that follow.
                Err(error) if is_full(&error) => {
                    self.lost += (self.ends.len() - first) as u64;
                    break;
                }
                Err(error) => {
                    tracing::trace!(%error, "frame not sent");
                    self.lost += 1;
                    first += 1;
                }
            }
        }
        self.room.clear();
        self.ends.clear();
    }

    /// Forgets what was copied.
    pub fn clear(&mut self) {
        self.lost += self.ends.len() as u64;
        self.room.clear();
        self.ends.clear();
    }

    /// Frames that were taken and not sent.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS))
}

fn refusal(error: io::Error) -> WriteError {
    match is_full(&error) {
        true => WriteError::Full,
        false => WriteError::Refused(error),
    }
}
