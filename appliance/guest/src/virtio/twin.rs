//! The card's twin for tests: the device's side of both queues, by the letter of the specification's
//! split virtqueues (section 2.7), on the same memory.

use std::alloc::{Layout, alloc_zeroed};
use std::ptr::NonNull;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Error, Hal, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::header::HEADER_BYTES;
use super::pages::DATA_BYTES;
use super::receive::QUEUE;

/// A platform on which addresses are what they seem. Its memory is never freed: tests are short.
#[derive(Debug)]
pub struct Flat;

/// Zeroed memory of a page's data.
pub fn data() -> NonNull<u8> {
    allocate(DATA_BYTES)
}

fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, 4096).unwrap();
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap()
}

// SAFETY: the memory is fresh and zeroed each time.
unsafe impl Hal for Flat {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let start = allocate(pages * 4096);
        (start.as_ptr().expose_provenance() as u64, start)
    }

    unsafe fn dma_dealloc(_: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        0
    }

    unsafe fn mmio_phys_to_virt(_: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("the twin has no registers")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr().expose_provenance() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}

/// A buffer that the card has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// The token.
    pub id: u16,
    address: u64,
    /// Its size.
    pub bytes: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Ring {
    descriptors: u64,
    available: u64,
    used: u64,
    next_available: u16,
    next_used: u16,
}

/// The card.
pub struct Twin {
    offered: u64,
    taken: u64,
    insists: u64,
    status: DeviceStatus,
    gone: bool,
    rings: [Ring; 2],
    /// How large its queues are.
    pub queue_size: u32,
}

impl Twin {
    /// A card that offers these features.
    pub fn new(offered: u64) -> Self {
        Twin {
            offered,
            taken: 0,
            insists: 0,
            status: DeviceStatus::empty(),
            gone: false,
            rings: [Ring::default(); 2],
            queue_size: QUEUE as u32,
        }
    }

    /// Features without which it does nothing.
    pub fn insist_on(&mut self, features: u64) {
        self.insists = features;
    }

    /// From now on every register reads as ones.
    pub fn unplug(&mut self) {
        self.gone = true;
    }

    /// The features that the driver took.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    fn at<T: Copy>(address: u64) -> *mut T {
        std::ptr::with_exposed_provenance_mut(address as usize)
    }

    /// Takes the next buffer that the driver has lent to a queue.
    pub fn take(&mut self, queue: u16) -> Option<Buffer> {
        let ring = &mut self.rings[usize::from(queue)];
        // SAFETY: the addresses are those of the driver's rings, whose layout this is.
        unsafe {
            let available = Self::at::<u16>(ring.available);
            if available.add(1).read_volatile() == ring.next_available {
                return None;
            }
            let slot = usize::from(ring.next_available) % QUEUE;
            let id = available.add(2 + slot).read_volatile();
            let descriptor = ring.descriptors + 16 * u64::from(id);
            let address = Self::at::<u64>(descriptor).read_volatile();
            let bytes = Self::at::<u32>(descriptor + 8).read_volatile();
            let flags = Self::at::<u16>(descriptor + 12).read_volatile();
            assert_eq!(flags & 1, 0, "buffers of one descriptor each");
            ring.next_available = ring.next_available.wrapping_add(1);
            Some(Buffer {
                id,
                address,
                bytes: bytes as usize,
            })
        }
    }

    /// Hands a buffer back, with so many bytes in it.
    pub fn give(&mut self, queue: u16, id: u32, bytes: u32) {
        let ring = &mut self.rings[usize::from(queue)];
        // SAFETY: as above.
        unsafe {
            let slot = usize::from(ring.next_used) % QUEUE;
            let element = Self::at::<u32>(ring.used + 4 + 8 * slot as u64);
            element.write_volatile(id);
            element.add(1).write_volatile(bytes);
            ring.next_used = ring.next_used.wrapping_add(1);
            Self::at::<u16>(ring.used + 2).write_volatile(ring.next_used);
        }
    }

    /// Sets whether the driver need not ring the doorbell.
    pub fn set_no_notify(&mut self, queue: u16, wanted: bool) {
        let ring = &self.rings[usize::from(queue)];
        // SAFETY: as above.
        unsafe { Self::at::<u16>(ring.used).write_volatile(wanted.into()) };
    }

    /// Whether the driver wants no interrupts.
    pub fn no_interrupts(&self, queue: u16) -> bool {
        let ring = &self.rings[usize::from(queue)];
        // SAFETY: as above.
        unsafe { Self::at::<u16>(ring.available).read_volatile() == 1 }
    }

    /// Writes into a buffer.
    pub fn fill(&self, buffer: Buffer, bytes: &[u8]) {
        assert!(bytes.len() <= buffer.bytes);
        // SAFETY: the driver has lent the buffer.
        unsafe {
            let target = Self::at::<u8>(buffer.address);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// What is in a buffer.
    pub fn read(&self, buffer: Buffer) -> Vec<u8> {
        // SAFETY: the driver has lent the buffer.
        unsafe { std::slice::from_raw_parts(Self::at::<u8>(buffer.address), buffer.bytes) }.to_vec()
    }

    /// Delivers a frame as a card does: in as many buffers as it needs. Its header is `header` with
    /// the count filled in. False when too few buffers are lent.
    pub fn deliver(&mut self, header: [u8; HEADER_BYTES], frame: &[u8]) -> bool {
        let mut whole = [&header[..], frame].concat();
        let mut buffers = Vec::new();
        let mut room = 0;
        while room < whole.len() {
            let Some(buffer) = self.take(0) else {
                assert!(buffers.is_empty(), "the test delivers no more than fits");
                return false;
            };
            room += buffer.bytes;
            buffers.push(buffer);
        }
        whole[HEADER_BYTES - 2..HEADER_BYTES]
            .copy_from_slice(&(buffers.len() as u16).to_le_bytes());
        for (buffer, part) in buffers.iter().zip(whole.chunks(buffers[0].bytes)) {
            self.fill(*buffer, part);
            self.give(0, buffer.id.into(), part.len() as u32);
        }
        true
    }

    /// Sends the next frame; its header and bytes.
    pub fn send(&mut self) -> Option<([u8; HEADER_BYTES], Vec<u8>)> {
        let buffer = self.take(1)?;
        let whole = self.read(buffer);
        self.give(1, buffer.id.into(), 0);
        let (header, frame) = whole.split_first_chunk().unwrap();
        Some((*header, frame.to_vec()))
    }
}

impl Transport for Twin {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }

    fn read_device_features(&mut self) -> u64 {
        self.offered
    }

    fn write_driver_features(&mut self, taken: u64) {
        self.taken = taken;
    }

    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.queue_size
    }

    fn notify(&mut self, _: u16) {}

    fn get_status(&self) -> DeviceStatus {
        if self.gone {
            return DeviceStatus::from_bits_truncate(0xff);
        }
        self.status
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.status = status;
        if self.taken & self.insists != self.insists {
            self.status.remove(DeviceStatus::FEATURES_OK);
        }
    }

    fn set_guest_page_size(&mut self, _: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        available: PhysAddr,
        used: PhysAddr,
    ) {
        assert_eq!(size as usize, QUEUE);
        self.rings[usize::from(queue)] = Ring {
            descriptors,
            available,
            used,
            ..Ring::default()
        };
    }

    fn queue_unset(&mut self, _: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.rings[usize::from(queue)].descriptors != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        0
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, _: usize) -> Result<T, Error> {
        Err(Error::ConfigSpaceMissing)
    }

    fn write_config_space<T: IntoBytes + Immutable>(
        &mut self,
        _: usize,
        _: T,
    ) -> Result<(), Error> {
        Err(Error::ConfigSpaceMissing)
    }
}
