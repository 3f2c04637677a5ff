//! Copies of frames into and out of the card's memory.
//!
//! The C library copies what is longer than two kilobytes by `rep movsb`, where the processor says that it
//! does this well. QEMU's emulation says so and goes byte by byte, at a third of a gigabyte a second: for
//! superpackets that was nearly all there was to do. Sixteen bytes at a time are as good on hardware.

/// Shorter copies are the C library's.
const LOOP_BYTES: usize = 512;

/// One turn of the loop.
const BLOCK_BYTES: usize = 64;

/// Copies `bytes` from `source` to `target`.
///
/// # Safety
/// As for [`std::ptr::copy_nonoverlapping`].
pub unsafe fn copy(source: *const u8, target: *mut u8, bytes: usize) {
    let done = match bytes {
        // SAFETY: as the caller has promised; the blocks are no more than `bytes`.
        LOOP_BYTES.. => unsafe { copy_blocks(source, target, bytes / BLOCK_BYTES) },
        _ => 0,
    };
    // SAFETY: as the caller has promised, for what is left.
    unsafe { std::ptr::copy_nonoverlapping(source.add(done), target.add(done), bytes - done) }
}

/// Copies whole blocks, at least one; how many bytes those are. In assembly, because the compiler takes such a
/// loop for what it is and calls the C library.
///
/// # Safety
/// As for [`copy`].
#[cfg(target_arch = "x86_64")]
unsafe fn copy_blocks(source: *const u8, target: *mut u8, blocks: usize) -> usize {
    // SAFETY: it reads and writes the blocks, with instructions that every x86-64 has, and names all that
    // it changes.
    unsafe {
        std::arch::asm!(
            "2:",
            "movdqu {a}, [{source}]",
            "movdqu {b}, [{source} + 16]",
            "movdqu {c}, [{source} + 32]",
            "movdqu {d}, [{source} + 48]",
            "movdqu [{target}], {a}",
            "movdqu [{target} + 16], {b}",
            "movdqu [{target} + 32], {c}",
            "movdqu [{target} + 48], {d}",
            "add {source}, 64",
            "add {target}, 64",
            "dec {blocks}",
            "jnz 2b",
            source = inout(reg) source => _,
            target = inout(reg) target => _,
            blocks = inout(reg) blocks => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
    blocks * BLOCK_BYTES
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_blocks(_: *const u8, _: *mut u8, _: usize) -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_alignment_is_copied_and_nothing_around_it() {
        let source: Vec<u8> = (0..2048_u32).map(|at| (at * 7 + at / 256) as u8).collect();
        for bytes in (0..140).chain(500..660).chain([1024, 1448, 1999]) {
            for (from, to) in [(0, 0), (1, 3), (13, 7)] {
                let mut target = vec![0xee; 2100];
                // SAFETY: both ranges lie within their vectors.
                unsafe { copy(source[from..].as_ptr(), target[to..].as_mut_ptr(), bytes) };
                assert_eq!(
                    target[to..to + bytes],
                    source[from..from + bytes],
                    "{bytes}"
                );
                assert!(target[..to].iter().all(|byte| *byte == 0xee));
                assert!(target[to + bytes..].iter().all(|byte| *byte == 0xee));
            }
        }
    }
}
