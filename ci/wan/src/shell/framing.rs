//! QEMU's stream framing: a 4-byte big-endian length, then the frame. Bytes in, frames out; no
//! sockets.

use crate::wire::MAX_FRAME;

/// Bytes of the length.
pub(super) const PREFIX: usize = 4;
/// Read at most this much at a time.
const BUFFER: usize = 4 * MAX_FRAME;

/// Cuts a stream into frames.
pub(super) struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

/// A length no frame can have: the other side does not speak this protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes was announced, more than a frame can have")]
pub(super) struct TooLong(u32);

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder {
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
        }
    }

    /// Where to read into; never empty once all whole frames have been taken.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.buffer.len() - self.end < PREFIX + MAX_FRAME {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// So many bytes were read into [`Decoder::space`].
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// The next whole frame.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, TooLong> {
        let pending = &self.buffer[self.start..self.end];
        let Some((prefix, rest)) = pending.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX);
        if bytes > MAX_FRAME {
            return Err(TooLong(length));
        }
        if rest.len() < bytes {
            return Ok(None);
        }
        let begin = self.start + PREFIX;
        self.start = begin + bytes;
        Ok(Some(&self.buffer[begin..begin + bytes]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_any_cutting_of_the_stream() {
        let frames: Vec<Vec<u8>> = (0..400)
            .map(|n| vec![n as u8; (n * 977) % (MAX_FRAME + 1)])
            .collect();
        let mut stream = Vec::new();
        for frame in &frames {
            stream.extend_from_slice(&(frame.len() as u32).to_be_bytes());
            stream.extend_from_slice(frame);
        }
        for chunk in [1, 3, 1000, 70_000, usize::MAX] {
            let chunk_limit = if chunk < 10 { 300_000 } else { usize::MAX };
            let stream = &stream[..stream.len().min(chunk_limit)];
            let mut decoder = Decoder::new();
            let (mut position, mut seen) = (0, 0);
            while position < stream.len() {
                let space = decoder.space();
                assert!(!space.is_empty());
                let bytes = space.len().min(chunk).min(stream.len() - position);
                space[..bytes].copy_from_slice(&stream[position..position + bytes]);
                decoder.filled(bytes);
                position += bytes;
                while let Some(frame) = decoder.next().unwrap() {
                    assert_eq!(frame, frames[seen]);
                    seen += 1;
                }
            }
            assert!(
                seen > 3 && (chunk < 10 || seen == frames.len()),
                "{seen} by {chunk}"
            );
        }
    }

    #[test]
    fn an_impossible_length_is_an_error() {
        let mut decoder = Decoder::new();
        decoder.space()[..4].copy_from_slice(b"HTTP");
        decoder.filled(4);
        assert_eq!(decoder.next(), Err(TooLong(0x4854_5450)));
    }
}
