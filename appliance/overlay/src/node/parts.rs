//! Frames in parts: what is too long for a direct path travels in several records, and is put together
//! again at the path's other end.
//!
//! Nothing is asked for again: a part that is lost loses its frame, as a datagram would be.

/// Longest frame: the largest packet of a guest, sealed for its peer and routed.
pub(super) const FRAME_BYTES_MAX: usize = 9216;
/// Parts of one frame: of the shortest path's length, with room to spare.
const PARTS_MAX: usize = 16;
/// Frames that are waited for at once. A further one takes the place of the one that many before it.
const FRAMES_MAX: usize = 4;

/// What stands before a part: its frame's number, its place, and how many there are.
pub(super) const PART_HEADER_BYTES: usize = 4;

/// Cuts `frame` into parts of at most `room` bytes, headers included. Gives `take` each of them, the
/// header apart.
pub(super) fn cut(
    frame: &[u8],
    number: u16,
    room: usize,
    mut take: impl FnMut([u8; PART_HEADER_BYTES], &[u8]),
) {
    let room = room.saturating_sub(PART_HEADER_BYTES).max(1);
    let count = frame.len().div_ceil(room);
    if count > PARTS_MAX || frame.len() > FRAME_BYTES_MAX {
        return;
    }
    // Of equal length, so that no record is much shorter than the others.
    let length = frame.len().div_ceil(count.max(1)).max(1);
    let [high, low] = number.to_be_bytes();
    for (index, part) in frame.chunks(length).enumerate() {
        take([high, low, index as u8, count as u8], part);
    }
}

/// Frames of one peer of which some parts have come.
#[derive(Default)]
pub(super) struct Parts {
    frames: [Incomplete; FRAMES_MAX],
}

#[derive(Default)]
struct Incomplete {
    number: u16,
    parts: Vec<Vec<u8>>,
}

impl Parts {
    /// Takes a part with its header. Returns the frame that it completes; an error where it is none.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, Malformed> {
        let (header, part) = bytes
            .split_first_chunk::<PART_HEADER_BYTES>()
            .ok_or(Malformed)?;
        let number = u16::from_be_bytes([header[0], header[1]]);
        let (index, count) = (usize::from(header[2]), usize::from(header[3]));
        if count > PARTS_MAX || index >= count || part.is_empty() {
            return Err(Malformed);
        }
        let frame = &mut self.frames[usize::from(number) % FRAMES_MAX];
        if frame.number != number || frame.parts.len() != count {
            *frame = Incomplete {
                number,
                parts: vec![Vec::new(); count],
            };
        }
        let others = frame.parts.iter().map(Vec::len).sum::<usize>();
        if others + part.len() > FRAME_BYTES_MAX {
            frame.parts.clear();
            return Err(Malformed);
        }
        frame.parts[index] = part.to_vec();
        if frame.parts.iter().any(Vec::is_empty) {
            return Ok(None);
        }
        let whole = frame.parts.concat();
        frame.parts.clear();
        Ok(Some(whole))
    }
}

/// No part of any frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts_of(frame: &[u8], number: u16, room: usize) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        cut(frame, number, room, |header, part| {
            parts.push([&header[..], part].concat());
        });
        parts
    }

    #[test]
    fn parts_of_several_frames_may_come_in_any_order_and_again() {
        let frames: Vec<Vec<u8>> = (0..3).map(|n| vec![n; 3000 + usize::from(n)]).collect();
        let mut mixed: Vec<_> = (0..3u16)
            .flat_map(|n| parts_of(&frames[usize::from(n)], n, 1200))
            .collect();
        assert!(mixed.iter().all(|part| part.len() <= 1200));
        mixed.reverse();
        let again = mixed[1].clone();
        mixed.insert(2, again);
        let mut parts = Parts::default();
        let whole: Vec<_> = mixed
            .iter()
            .filter_map(|part| parts.take(part).unwrap())
            .collect();
        assert_eq!(whole, [2, 1, 0].map(|n| frames[n].clone()));
    }

    #[test]
    fn a_frame_that_misses_a_part_gives_way_to_later_ones() {
        let mut parts = Parts::default();
        let frame = vec![7; 2000];
        for number in 0..100 {
            let of = parts_of(&frame, number, 1200);
            assert_eq!(of.len(), 2);
            if number % 10 != 0 {
                assert_eq!(parts.take(&of[0]), Ok(None));
                assert_eq!(parts.take(&of[1]), Ok(Some(frame.clone())));
            } else {
                assert_eq!(parts.take(&of[1]), Ok(None));
            }
        }
    }

    #[test]
    fn what_is_no_part_or_makes_too_long_a_frame_is_refused() {
        let mut parts = Parts::default();
        for wrong in [
            &[0, 0, 0][..],
            &[0, 0, 0, 1],
            &[0, 0, 1, 1, 9],
            &[0, 0, 0, 17, 9],
        ] {
            assert_eq!(parts.take(wrong), Err(Malformed), "{wrong:?}");
        }
        let long = [&[0, 1, 0, 2][..], &vec![1; FRAME_BYTES_MAX]].concat();
        assert_eq!(parts.take(&long), Ok(None));
        assert_eq!(parts.take(&[0, 1, 1, 2, 1]), Err(Malformed));
        assert!(parts_of(&vec![0; FRAME_BYTES_MAX + 1], 0, 1200).is_empty());
    }

    proptest! {
        #[test]
        fn what_was_cut_becomes_one_again(frame in prop::collection::vec(any::<u8>(), 1..9000), room in 700usize..2000) {
            let mut parts = Parts::default();
            let whole: Vec<_> = parts_of(&frame, 5, room).iter().filter_map(|part| parts.take(part).unwrap()).collect();
            prop_assert_eq!(whole, vec![frame]);
        }

        #[test]
        fn arbitrary_parts_never_panic(all: Vec<Vec<u8>>) {
            let mut parts = Parts::default();
            for one in all {
                let _ = parts.take(&one);
            }
        }
    }
}
