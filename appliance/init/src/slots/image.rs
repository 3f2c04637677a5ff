//! What a kernel must be before it is written to a slot: a Linux kernel for this machine that both firmwares
//! start, with the mark of our builder (`builder/src/mark.rs`) at its end.

use sha2::{Digest, Sha256};

use super::SlotsError;
use super::table::text;

/// The mark's length.
pub const MARK_BYTES: usize = 128;
/// Bytes from the beginning that [`check_head`] must see.
pub const FIRST_BYTES_MIN: usize = 1024;

const MAGIC: &[u8] = b"WOW APPLIANCE\0\0\0";
const FORMAT: [u8; 4] = 1u32.to_le_bytes();
const ARCHITECTURE: &[u8] = b"x86_64\0\0";
/// What the digest stands behind.
const AT_DIGEST: usize = 92;

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The kernel's version.
    pub version: String,
    /// The image's name.
    pub name: String,
    digest: [u8; 32],
}

impl Mark {
    /// Reads the last [`MARK_BYTES`] of an image.
    pub fn parse(bytes: &[u8; MARK_BYTES]) -> Result<Self, SlotsError> {
        if !bytes.starts_with(MAGIC) || bytes[16..20] != FORMAT {
            return Err(SlotsError::NotOurs("it has no mark of ours at its end"));
        }
        if &bytes[20..28] != ARCHITECTURE {
            return Err(SlotsError::NotOurs("it is for another architecture"));
        }
        Ok(Self {
            version: text(&bytes[28..60]),
            name: text(&bytes[60..AT_DIGEST]),
            digest: *bytes[AT_DIGEST..].first_chunk().expect("a mark is longer"),
        })
    }

    /// The mark of a whole image, which must be what its mark vouches for.
    pub fn of(image: &[u8]) -> Result<Self, SlotsError> {
        check_head(image)?;
        let mark = image.last_chunk().map(Self::parse).transpose()?;
        let mark = mark.ok_or(SlotsError::NotOurs("it is too short"))?;
        let vouched = &image[..image.len() - (MARK_BYTES - AT_DIGEST)];
        mark.vouches(Sha256::digest(vouched).into())
    }

    /// The same, if the digest of what comes before its own is this.
    fn vouches(self, digest: [u8; 32]) -> Result<Self, SlotsError> {
        match self.digest == digest {
            true => Ok(self),
            false => Err(SlotsError::NotOurs("it is not what its mark says")),
        }
    }
}

/// Checks the first bytes of an image: Linux's boot protocol (Documentation/arch/x86/boot.rst) and PE's header.
pub fn check_head(head: &[u8]) -> Result<(), SlotsError> {
    let at = |offset: usize, bytes: &[u8]| {
        let field = head.get(offset..offset + bytes.len());
        field == Some(bytes)
    };
    if !at(0x1fe, &[0x55, 0xaa]) || !at(0x202, b"HdrS") {
        return Err(SlotsError::NotOurs("it is no Linux kernel"));
    }
    let pe = head.get(0x3c..0x40).and_then(<[u8]>::first_chunk);
    let pe = pe.map_or(0, |field| u32::from_le_bytes(*field) as usize);
    let is_64_bit = head.get(0x236).is_some_and(|flags| flags & 1 == 1);
    let starts_by_uefi = at(0, b"MZ") && pe < FIRST_BYTES_MIN && at(pe, b"PE\0\0\x64\x86");
    if !is_64_bit || !starts_by_uefi {
        return Err(SlotsError::NotOurs("it is no kernel for UEFI on x86-64"));
    }
    Ok(())
}

/// Checks an image that passes by in pieces.
#[derive(Debug)]
pub(super) struct Passing {
    left: u64,
    whole: Sha256,
    vouched: Sha256,
    mark: Vec<u8>,
}

impl Passing {
    pub(super) fn new(length_bytes: u64) -> Self {
        Self {
            left: length_bytes,
            whole: Sha256::new(),
            vouched: Sha256::new(),
            mark: Vec::with_capacity(MARK_BYTES),
        }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        self.whole.update(piece);
        let before = |end: usize| {
            let keep = self.left.saturating_sub(end as u64);
            piece.len().min(usize::try_from(keep).unwrap_or(usize::MAX))
        };
        self.vouched
            .update(&piece[..before(MARK_BYTES - AT_DIGEST)]);
        self.mark.extend_from_slice(&piece[before(MARK_BYTES)..]);
        self.left = self.left.saturating_sub(piece.len() as u64);
    }

    /// The mark and the digest of the whole.
    pub(super) fn finish(self) -> Result<(Mark, [u8; 32]), SlotsError> {
        let mark = self.mark.first_chunk();
        let mark = mark.ok_or(SlotsError::NotOurs("it is too short"))?;
        let mark = Mark::parse(mark)?.vouches(self.vouched.finalize().into())?;
        Ok((mark, self.whole.finalize().into()))
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// An image as the builder marks it, of `length` bytes before its mark.
    pub(in crate::slots) fn image(length: usize, fill: u8, version: &str) -> Vec<u8> {
        let mut image = vec![fill; length];
        image[..2].copy_from_slice(b"MZ");
        image[0x3c..0x40].copy_from_slice(&0x240u32.to_le_bytes());
        image[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x236] = 0x3f;
        image[0x240..0x246].copy_from_slice(b"PE\0\0\x64\x86");
        image.extend_from_slice(MAGIC);
        image.extend_from_slice(&FORMAT);
        image.extend_from_slice(ARCHITECTURE);
        let field = |text: &str| {
            let mut field = [0; 32];
            field[..text.len()].copy_from_slice(text.as_bytes());
            field
        };
        image.extend_from_slice(&field(version));
        image.extend_from_slice(&field("router"));
        let digest = Sha256::digest(&image);
        image.extend_from_slice(&digest);
        image.extend_from_slice(&[0; 4]);
        image
    }
}

#[cfg(test)]
mod tests {
    use super::testing::image;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_image_of_ours_is_known_and_others_are_refused_with_the_reason() {
        let good = image(2048, 7, "0.1.0-abc");
        let mark = Mark::of(&good).unwrap();
        assert_eq!((&*mark.version, &*mark.name), ("0.1.0-abc", "router"));
        let refused = |at: usize, reason: &str| {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let error = Mark::of(&bad).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        refused(0x202, "no Linux kernel");
        refused(0x244, "no kernel for UEFI");
        refused(2048, "no mark");
        refused(2048 + 20, "another architecture");
        refused(2048 + 30, "not what its mark says");
        refused(1500, "not what its mark says");
        assert!(Mark::of(&good[..good.len() - 1]).is_err());
        assert!(Mark::of(&[]).is_err());
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_give_what_the_whole_gives(cuts in proptest::collection::vec(1usize..900, 1..20)) {
            let image = image(2048, 3, "1");
            let mut passing = Passing::new(image.len() as u64);
            let mut rest = &image[..];
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                passing.update(piece);
                rest = after;
            }
            passing.update(rest);
            let (mark, digest) = passing.finish().unwrap();
            prop_assert_eq!(mark, Mark::of(&image).unwrap());
            prop_assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&image)));
        }
    }
}
