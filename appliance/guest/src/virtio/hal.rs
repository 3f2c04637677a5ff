//! What the queues and the PCI transport ask of the platform: memory for rings, addresses, registers.

use std::cell::RefCell;
use std::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use super::pages;

/// A card's registers: physical memory that is mapped here.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Where the card's bus has it.
    pub physical: u64,
    /// Its length.
    pub bytes: usize,
    /// Where it is mapped.
    pub start: NonNull<u8>,
}

impl Window {
    /// Where a range of physical addresses is mapped, if all of it is.
    pub fn find(&self, physical: u64, bytes: usize) -> Option<NonNull<u8>> {
        let offset = usize::try_from(physical.checked_sub(self.physical)?).ok()?;
        let inside = offset.checked_add(bytes)? <= self.bytes;
        // SAFETY: the offset lies within the window, which is one mapping.
        inside.then(|| unsafe { self.start.add(offset) })
    }
}

thread_local! {
    /// The registers of the card that is being opened on this thread.
    static WINDOWS: RefCell<Vec<Window>> = const { RefCell::new(Vec::new()) };
}

/// Runs `open`, which finds registers in these windows.
pub fn with_windows<T>(windows: &[Window], open: impl FnOnce() -> T) -> T {
    WINDOWS.replace(windows.to_vec());
    let opened = open();
    WINDOWS.take();
    opened
}

/// The platform: [`Pages`](pages::Pages) and [`Window`]s.
#[derive(Debug)]
pub struct Platform;

// SAFETY: rings come from pages that nobody else uses, zeroed when they were mapped and handed out
// once; registers are answered from windows that hold the whole range.
unsafe impl Hal for Platform {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let found = pages::take_rings(pages).and_then(|start| {
            let physical = pages::translate(start.as_ptr().addr())?;
            Some((physical, start))
        });
        // A physical address of zero is how an error is told.
        found.unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        // The memory goes with its pages.
        0
    }

    unsafe fn mmio_phys_to_virt(physical: PhysAddr, bytes: usize) -> NonNull<u8> {
        WINDOWS.with_borrow(|windows| {
            let found = windows
                .iter()
                .find_map(|window| window.find(physical, bytes));
            found.expect(
                "every memory region of the card is mapped before its registers are looked for",
            )
        })
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        let address = buffer.cast::<u8>().as_ptr().addr();
        pages::translate(address).expect("the queues are given nothing but parts of pages")
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_reaches_out_of_its_window_is_not_found() {
        let mut memory = [0_u8; 64];
        let window = Window {
            physical: 0xfe00_0000,
            bytes: memory.len(),
            start: NonNull::new(memory.as_mut_ptr()).unwrap(),
        };
        let at = |physical, bytes| {
            window
                .find(physical, bytes)
                .map(|found| found.as_ptr().addr())
        };
        let start = memory.as_ptr().addr();
        assert_eq!(at(0xfe00_0000, 64), Some(start));
        assert_eq!(at(0xfe00_0010, 48), Some(start + 16));
        assert_eq!(at(0xfe00_0010, 49), None);
        assert_eq!(at(0xfdff_ffff, 1), None);
        assert_eq!(at(0xfe00_0000, usize::MAX), None);
    }

    #[test]
    fn rings_outside_of_pages_are_an_error_and_no_panic() {
        let (physical, _) = Platform::dma_alloc(1, BufferDirection::Both);
        assert_eq!(physical, 0);
    }
}
