//! Memory that a device may read and write: huge pages, which stay where they are, and of which it is
//! known where that is.
//!
//! What a device is told are physical addresses. The table that translates to them is one for the
//! process, because the queues' own callbacks know of no particular device.

use std::cell::Cell;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The size of a huge page on x86-64.
pub const PAGE_BYTES: usize = 2 << 20;

/// The end of each page is for rings; the rest is for packets.
pub const RING_BYTES: usize = 64 << 10;

/// What of a page holds packets.
pub const DATA_BYTES: usize = PAGE_BYTES - RING_BYTES;

/// Pages that a process can have; a card takes two.
const SLOTS: usize = 16;

/// What the kernel calls a page: the unit of its page map, and of ring memory.
const SMALL_PAGE_BYTES: usize = 4096;

/// Where the kernel keeps its stock of huge pages.
const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Why there is no such memory.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The kernel knows no huge pages.
    #[error("this kernel has no huge pages of 2 MiB ({POOL}: {0}; CONFIG_HUGETLBFS)")]
    NoPool(io::Error),
    /// Memory is short, or in pieces.
    #[error("of {wanted} huge pages of 2 MiB the kernel has {free}: memory is short or fragmented")]
    Short {
        /// How many are needed.
        wanted: usize,
        /// How many are free.
        free: usize,
    },
    /// More cards than the table has room for.
    #[error("this process has no room for more than {SLOTS} huge pages")]
    TooMany,
    /// The kernel refuses to map them.
    #[error("cannot map huge pages: {0}")]
    Map(io::Error),
    /// Without the page map nothing tells where they are.
    #[error("cannot read /proc/self/pagemap: {0} (CONFIG_PROC_PAGE_MONITOR)")]
    PageMap(io::Error),
    /// The page map is there and hides addresses.
    #[error("/proc/self/pagemap hides physical addresses: that needs root or CAP_SYS_ADMIN")]
    Hidden,
}

/// A page's place in the table; a start of zero is a free one.
struct Slot {
    start: AtomicUsize,
    physical: AtomicU64,
}

static TABLE: [Slot; SLOTS] = [const {
    Slot {
        start: AtomicUsize::new(0),
        physical: AtomicU64::new(0),
    }
}; SLOTS];

thread_local! {
    /// The memory that rings made on this thread come from, while [`Pages::with_rings`] runs.
    static RINGS: Cell<Option<Rings>> = const { Cell::new(None) };
}

/// Ring memory that is left.
#[derive(Clone, Copy)]
struct Rings {
    next: NonNull<u8>,
    left_bytes: usize,
}

/// Huge pages of this process.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<u8>,
    count: usize,
    /// How many were added to the kernel's stock for this.
    added: usize,
}

// SAFETY: the memory belongs to this value alone, whichever thread holds it.
unsafe impl Send for Pages {}

impl Pages {
    /// Takes `count` pages, zeroed, from the kernel's stock, which grows if need be.
    ///
    /// # Errors
    /// See [`PagesError`]. Nothing is left behind.
    pub fn reserve(count: usize) -> Result<Self, PagesError> {
        let added = grow_pool(Path::new(POOL), count)?;
        let pages = map(count).map(|start| Pages {
            start,
            count,
            added,
        });
        let pages = match pages {
            Ok(pages) => pages,
            Err(error) => {
                shrink_pool(Path::new(POOL), added);
                return Err(PagesError::Map(error));
            }
        };
        let map = std::fs::File::open("/proc/self/pagemap").map_err(PagesError::PageMap)?;
        for number in 0..count {
            let start = pages.page(number).as_ptr().addr();
            let mut entry = [0; 8];
            let at = (start / SMALL_PAGE_BYTES * entry.len()) as u64;
            map.read_exact_at(&mut entry, at)
                .map_err(PagesError::PageMap)?;
            let physical = physical(u64::from_ne_bytes(entry)).ok_or(PagesError::Hidden)?;
            enter(start, physical)?;
        }
        Ok(pages)
    }

    /// Where a page begins.
    ///
    /// # Panics
    /// There is no such page.
    pub fn page(&self, number: usize) -> NonNull<u8> {
        assert!(number < self.count, "there are {} pages", self.count);
        // SAFETY: the mapping is `count` pages long.
        unsafe { self.start.add(number * PAGE_BYTES) }
    }

    /// Runs `make`, whose rings come from the first page's end. Call it once: what it takes is free
    /// again with this value only, which must outlive the rings.
    pub fn with_rings<T>(&self, make: impl FnOnce() -> T) -> T {
        // SAFETY: the offset lies within the first page.
        let next = unsafe { self.page(0).add(DATA_BYTES) };
        RINGS.set(Some(Rings {
            next,
            left_bytes: RING_BYTES,
        }));
        let made = make();
        RINGS.set(None);
        made
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for number in 0..self.count {
            forget(self.page(number).as_ptr().addr());
        }
        // SAFETY: the mapping was made by `map` with this length; whoever owns this value has
        // stopped the device and dropped what pointed here.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * PAGE_BYTES) };
        shrink_pool(Path::new(POOL), self.added);
    }
}

/// Takes `bytes` of ring memory, page by page; `None` when there is none left, or outside
/// [`Pages::with_rings`].
pub(super) fn take_rings(pages: usize) -> Option<NonNull<u8>> {
    let rings = RINGS.get()?;
    let bytes = pages.checked_mul(SMALL_PAGE_BYTES)?;
    let left_bytes = rings.left_bytes.checked_sub(bytes)?;
    // SAFETY: `bytes` are left from `next` on.
    let next = unsafe { rings.next.add(bytes) };
    RINGS.set(Some(Rings { next, left_bytes }));
    Some(rings.next)
}

/// The physical address of what lies in one of this process's pages.
pub(super) fn translate(address: usize) -> Option<u64> {
    TABLE.iter().find_map(|slot| {
        // What is translated has been entered by the same thread, or was handed to it since.
        let start = slot.start.load(Ordering::Relaxed);
        let offset = address.wrapping_sub(start);
        let inside = start != 0 && offset < PAGE_BYTES;
        inside.then(|| slot.physical.load(Ordering::Relaxed) + offset as u64)
    })
}

fn enter(start: usize, physical: u64) -> Result<(), PagesError> {
    for slot in &TABLE {
        let taken = slot
            .start
            .compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_ok() {
            slot.physical.store(physical, Ordering::Release);
            return Ok(());
        }
    }
    Err(PagesError::TooMany)
}

fn forget(start: usize) {
    for slot in &TABLE {
        // One that was never entered is not found, and that is as good.
        let _ = slot
            .start
            .compare_exchange(start, 0, Ordering::AcqRel, Ordering::Relaxed);
    }
}

/// Makes sure that the stock has `wanted` free pages; how many it grew by.
fn grow_pool(pool: &Path, wanted: usize) -> Result<usize, PagesError> {
    let free = count(pool, "free_hugepages")?;
    let Some(missing) = wanted.checked_sub(free).filter(|missing| *missing > 0) else {
        return Ok(0);
    };
    let before = count(pool, "nr_hugepages")?;
    std::fs::write(pool.join("nr_hugepages"), (before + missing).to_string())
        .map_err(PagesError::NoPool)?;
    let added = count(pool, "nr_hugepages")?.saturating_sub(before);
    let free = count(pool, "free_hugepages")?;
    if free < wanted {
        shrink_pool(pool, added);
        return Err(PagesError::Short { wanted, free });
    }
    Ok(added)
}

/// Gives back what [`grow_pool`] has taken. If that fails the kernel keeps a few pages more in stock.
fn shrink_pool(pool: &Path, added: usize) {
    if added > 0
        && let Ok(now) = count(pool, "nr_hugepages")
    {
        let less = now.saturating_sub(added).to_string();
        let _ = std::fs::write(pool.join("nr_hugepages"), less);
    }
}

fn count(pool: &Path, file: &str) -> Result<usize, PagesError> {
    let text = std::fs::read_to_string(pool.join(file)).map_err(PagesError::NoPool)?;
    let number = text.trim().parse();
    number.map_err(|_| PagesError::NoPool(io::ErrorKind::InvalidData.into()))
}

fn map(count: usize) -> io::Result<NonNull<u8>> {
    let bytes = count * PAGE_BYTES;
    let flags = libc::MAP_PRIVATE
        | libc::MAP_ANONYMOUS
        | libc::MAP_HUGETLB
        | libc::MAP_HUGE_2MB
        | libc::MAP_POPULATE
        | libc::MAP_LOCKED;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing else.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            flags,
            -1,
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // A child would share the pages until either writes, and the writer then moves to copies: the
    // device would go on with memory that is ours no more.
    // SAFETY: the range was just mapped.
    if unsafe { libc::madvise(start, bytes, libc::MADV_DONTFORK) } < 0 {
        let error = io::Error::last_os_error();
        // SAFETY: nobody knows of the range yet.
        unsafe { libc::munmap(start, bytes) };
        return Err(error);
    }
    let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
    for number in 0..count {
        // Populating may fail silently; a write does not.
        // SAFETY: the offset lies in the mapping, which nobody else knows of yet.
        unsafe { start.add(number * PAGE_BYTES).write_volatile(0) };
    }
    Ok(start)
}

/// The physical address that an entry of the page map tells: Documentation/admin-guide/mm/pagemap.rst.
fn physical(entry: u64) -> Option<u64> {
    const PRESENT: u64 = 1 << 63;
    const FRAME: u64 = (1 << 55) - 1;
    let frame = entry & FRAME;
    (entry & PRESENT != 0 && frame != 0).then_some(frame * SMALL_PAGE_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_page_map_tells_an_address_unless_it_is_hidden() {
        assert_eq!(physical(1 << 63 | 0x1234), Some(0x123_4000));
        assert_eq!(physical(1 << 63 | 1 << 55 | 7), Some(7 * 4096));
        assert_eq!(physical(1 << 63), None, "the kernel hides it");
        assert_eq!(physical(0x1234), None, "swapped out");
    }

    #[test]
    fn addresses_in_entered_pages_are_translated_and_others_are_not() {
        // Pages of nobody: the table only ever computes with them.
        let start = 0x10_0000_0000;
        enter(start, 0x8000_0000).unwrap();
        assert_eq!(translate(start), Some(0x8000_0000));
        assert_eq!(translate(start + PAGE_BYTES - 1), Some(0x801f_ffff));
        assert_eq!(translate(start + PAGE_BYTES), None);
        assert_eq!(translate(start - 1), None);
        forget(start);
        assert_eq!(translate(start), None);
    }

    #[test]
    fn the_stock_grows_by_what_is_missing_and_an_unwilling_kernel_is_told() {
        let pool = tempfile::tempdir().unwrap();
        let set = |file: &str, text: &str| std::fs::write(pool.path().join(file), text).unwrap();
        set("nr_hugepages", "3\n");
        set("free_hugepages", "2\n");
        assert_eq!(grow_pool(pool.path(), 2).unwrap(), 0);
        // A file does what no kernel does: it takes the number, and nothing becomes free.
        let error = grow_pool(pool.path(), 4).unwrap_err();
        assert!(matches!(error, PagesError::Short { wanted: 4, free: 2 }));
        let left = std::fs::read_to_string(pool.path().join("nr_hugepages")).unwrap();
        assert_eq!(left, "3", "what it took is given back");
        let nowhere = grow_pool(&pool.path().join("none"), 1).unwrap_err();
        assert!(
            nowhere.to_string().contains("CONFIG_HUGETLBFS"),
            "{nowhere}"
        );
    }
}
