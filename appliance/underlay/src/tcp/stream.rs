//! What a stream of datagrams carries: each behind its length.

use std::net::SocketAddr;

use super::LENGTH_BYTES;
use crate::DATAGRAM_MAX_BYTES;

/// Whole datagrams that came on one connection.
pub struct Received {
    /// The connection's far end.
    pub from: SocketAddr,
    /// Each behind its length, and nothing after the last.
    pub(super) stream: Vec<u8>,
}

impl Received {
    /// The datagrams, in their order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let mut rest = &mut self.stream[..];
        std::iter::from_fn(move || {
            let (length, behind) = std::mem::take(&mut rest).split_first_chunk_mut()?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (datagram, behind) = behind.split_at_mut_checked(length)?;
            rest = behind;
            Some(datagram)
        })
    }
}

/// A length that no datagram has.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// How many bytes at the front are whole datagrams.
pub(super) fn whole(stream: &[u8]) -> Result<usize, Malformed> {
    let mut at = 0;
    while let Some(length) = stream[at..].first_chunk::<LENGTH_BYTES>() {
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 || length > DATAGRAM_MAX_BYTES {
            return Err(Malformed);
        }
        if stream.len() - at < LENGTH_BYTES + length {
            break;
        }
        at += LENGTH_BYTES + length;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_split_by_lengths() {
        assert_eq!(whole(&[]), Ok(0));
        assert_eq!(whole(&[0]), Ok(0));
        assert_eq!(whole(&[0, 2, 7]), Ok(0));
        assert_eq!(whole(&[0, 2, 7, 8, 0]), Ok(4));
        assert_eq!(whole(&[0, 2, 7, 8, 0, 1, 9, 0, 3, 1]), Ok(7));
        assert_eq!(whole(&[0, 0, 1]), Err(Malformed));
        assert_eq!(whole(&[0, 1, 9, 0, 0]), Err(Malformed));
        let beyond = u16::try_from(DATAGRAM_MAX_BYTES + 1).unwrap().to_be_bytes();
        assert_eq!(whole(&beyond), Err(Malformed));
        // What a browser would say first.
        assert_eq!(whole(b"GET / HTTP/1.1"), Err(Malformed));
    }

    #[test]
    fn whole_datagrams_come_in_order() {
        let mut received = Received {
            from: SocketAddr::from(([192, 0, 2, 1], 443)),
            stream: vec![0, 2, 7, 8, 0, 1, 9],
        };
        let datagrams: Vec<Vec<u8>> = received.iter_mut().map(|bytes| bytes.to_vec()).collect();
        assert_eq!(datagrams, [vec![7, 8], vec![9]]);
    }
}
