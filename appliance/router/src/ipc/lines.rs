//! Lines of bounded length from a stream.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const CHUNK_BYTES: usize = 4096;

/// One line, or what stood in its place.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Text(Vec<u8>),
    /// More than the limit; passed over.
    TooLong,
}

/// Splits what it reads into lines.
pub struct Lines {
    buffer: Vec<u8>,
    limit: usize,
    /// Whether the current line has outgrown the limit.
    overlong: bool,
}

impl Lines {
    /// With lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Lines {
            buffer: Vec::new(),
            limit,
            overlong: false,
        }
    }

    /// The next line; `None` at the end of the stream, where an unfinished line is dropped.
    /// Cancelling it loses nothing.
    pub async fn next(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<Option<Line>> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|&b| b == b'\n') {
                let rest = self.buffer.split_off(searched + at + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                line.pop();
                let overlong = std::mem::take(&mut self.overlong) || line.len() > self.limit;
                return Ok(Some(if overlong {
                    Line::TooLong
                } else {
                    Line::Text(line)
                }));
            }
            if self.buffer.len() > self.limit {
                self.overlong = true;
                self.buffer.clear();
            }
            searched = self.buffer.len();
            let mut chunk = [0; CHUNK_BYTES];
            let length = reader.read(&mut chunk).await?;
            if length == 0 {
                return Ok(None);
            }
            self.buffer.extend_from_slice(&chunk[..length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_and_overlong_ones_passed_over() {
        let mut input = b"one\n\n".to_vec();
        input.extend(vec![b'x'; 10_000]);
        input.extend(b"\nfour\nunfinished");
        let mut reader = &input[..];
        let mut lines = Lines::new(100);
        let mut found = Vec::new();
        while let Some(line) = lines.next(&mut reader).await.unwrap() {
            assert!(lines.buffer.len() <= 100 + CHUNK_BYTES);
            found.push(line);
        }
        let text = |text: &str| Line::Text(text.into());
        assert_eq!(found, [text("one"), text(""), Line::TooLong, text("four")]);
    }
}
