//! The Internet checksum (RFC 1071) of headers and of transports over their pseudo-headers.

use std::net::IpAddr;

/// Adds bytes, as big-endian words, to a sum that is not folded yet. A lone last byte counts as if a
/// zero followed.
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    // The sum of words does not depend on their order in memory, only its result's does: eight
    // bytes at a time, in the machine's order, the two halves apart so that nothing overflows.
    let mut native = 0u64;
    let (chunks, rest) = bytes.as_chunks::<8>();
    for chunk in chunks {
        let word = u64::from_ne_bytes(*chunk);
        native += (word >> 32) + (word & 0xffff_ffff);
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let word = u64::from_ne_bytes(last);
    native += (word >> 32) + (word & 0xffff_ffff);
    sum + u64::from(u16::from_be(fold_native(native)))
}

/// Sixteen bits with the carries added in.
fn fold_native(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// A finished sum as the checksum that goes on the wire.
pub fn finish(sum: u64) -> u16 {
    !fold_native(sum)
}

/// The sum over a transport's pseudo-header, not folded.
pub fn pseudo(source: IpAddr, destination: IpAddr, protocol: u8, transport_bytes: usize) -> u64 {
    let addresses = [source, destination].map(|address| match address {
        IpAddr::V4(v4) => add(0, &v4.octets()),
        IpAddr::V6(v6) => add(0, &v6.octets()),
    });
    addresses.iter().sum::<u64>() + u64::from(protocol) + transport_bytes as u64
}

/// The sum over a pseudo-header as a device wants to find it where the checksum will stand.
pub fn partial(sum: u64) -> u16 {
    fold_native(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn by_words(bytes: &[u8]) -> u64 {
        let words = bytes.chunks(2).map(|pair| {
            let low = pair.get(1).copied().unwrap_or(0);
            u64::from(u16::from_be_bytes([pair[0], low]))
        });
        words.sum()
    }

    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(add(0, &bytes)), !0xddf2);
    }

    proptest! {
        #[test]
        fn wide_and_narrow_sums_agree(bytes: Vec<u8>, before in 0u64..1 << 40) {
            let wide = finish(add(before, &bytes));
            let narrow = finish(before + by_words(&bytes));
            prop_assert_eq!(wide, narrow);
        }
    }
}
