//! The mark at the end of an appliance's kernel, by which an appliance knows it for one of ours before it is
//! written over an older one. It says what the kernel is, and is no signature: who may update is asked elsewhere.
//!
//! 128 bytes, a multiple of 512 from the kernel's start away: magic, the format's version, the architecture,
//! the kernel's version, the image's name, and the SHA-256 of all bytes before it. Firmware and boot loaders pass over it.

use crate::digest::Digest;

/// The mark's length.
pub const BYTES: usize = 128;
/// The bytes of a text in it, padded with zeros.
pub const TEXT_BYTES: usize = 32;

const MAGIC: &[u8; 16] = b"WOW APPLIANCE\0\0\0";
const FORMAT: u32 = 1;
const ARCHITECTURE: &[u8; 8] = b"x86_64\0\0";
/// Digits of the kernel's digest in its version.
const DIGITS: usize = 12;
/// A kernel is padded to whole pieces of this many bytes before its mark.
const ALIGN: usize = 512;

/// What a mark says.
#[derive(Debug, Clone)]
pub struct Mark {
    version: String,
}

impl Mark {
    /// The mark at the end of a kernel that has one.
    pub fn of(kernel: &[u8]) -> Option<Self> {
        let mark = &kernel[kernel.len().checked_sub(BYTES)?..];
        let version = mark[28..28 + TEXT_BYTES].split(|byte| *byte == 0).next()?;
        let version = String::from_utf8(version.to_vec()).ok()?;
        mark.starts_with(MAGIC).then_some(Self { version })
    }

    /// The version as a field of fixed length.
    pub fn version(&self) -> [u8; TEXT_BYTES] {
        text(&self.version)
    }
}

/// The kernel of the image `name` with its mark. Its version is the release's with the kernel's own digest, so
/// that two builds of different sources never have the same.
pub fn append(mut kernel: Vec<u8>, name: &str) -> (Vec<u8>, Mark) {
    kernel.resize(kernel.len().next_multiple_of(ALIGN), 0);
    let digest = Digest::of(&kernel).to_string();
    let mark = Mark {
        version: format!("{}-{}", env!("CARGO_PKG_VERSION"), &digest[..DIGITS]),
    };
    kernel.extend_from_slice(MAGIC);
    kernel.extend_from_slice(&FORMAT.to_le_bytes());
    kernel.extend_from_slice(ARCHITECTURE);
    kernel.extend_from_slice(&mark.version());
    kernel.extend_from_slice(&text(name));
    let digest = Digest::of(&kernel);
    kernel.extend_from_slice(digest.as_bytes());
    kernel.extend_from_slice(&[0; 4]);
    (kernel, mark)
}

fn text(text: &str) -> [u8; TEXT_BYTES] {
    let mut field = [0; TEXT_BYTES];
    let length = text.len().min(TEXT_BYTES);
    field[..length].copy_from_slice(&text.as_bytes()[..length]);
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_ends_the_kernel_and_vouches_for_it() {
        let (bytes, mark) = append(vec![7; 1000], "router");
        assert_eq!(bytes.len(), 1024 + BYTES);
        let own = &bytes[1024..];
        assert_eq!(&own[..16], MAGIC);
        assert_eq!(own[28..60], mark.version());
        assert_eq!(Mark::of(&bytes).unwrap().version, mark.version);
        assert!(Mark::of(&bytes[1..bytes.len() - 1]).is_none());
        assert_eq!(&own[60..66], b"router");
        assert_eq!(&own[92..124], Digest::of(&bytes[..1024 + 92]).as_bytes());
    }

    #[test]
    fn another_kernel_has_another_version() {
        let version = |kernel: &[u8]| append(kernel.to_vec(), "router").1.version;
        assert_eq!(version(b"one"), version(b"one"));
        assert_ne!(version(b"one"), version(b"two"));
        assert!(version(b"one").len() <= TEXT_BYTES);
    }
}
