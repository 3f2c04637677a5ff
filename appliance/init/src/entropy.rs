//! Waits until the kernel's random generator is seeded, and helps it with the hardware's.
//!
//! Keys made before that could be guessed, and `getrandom` would block for an unknown time later; so
//! this step waits here, bounded. The kernel credits virtio-rng by itself when it gets to it; reading
//! /dev/hwrng and crediting it here only makes that happen now.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::step::StepError;
use crate::system;

/// How often the hardware generator is asked while waiting.
const ASK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 50_000_000,
};

/// Whether the kernel's random generator is seeded.
pub fn is_ready() -> bool {
    getrandom(&mut [0u8; 1][..], GetRandomFlags::NONBLOCK).is_ok()
}

pub(crate) fn step(limit: Duration) -> Result<String, StepError> {
    let begun = Instant::now();
    if is_ready() {
        return Ok("random generator is seeded".into());
    }
    let random = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/random")
        .map_err(|error| StepError::new(format!("cannot open /dev/random: {error}")))?;
    let mut credited = 0;
    while begun.elapsed() < limit {
        match credit_from_hardware(&random) {
            Ok(()) => credited += system::ENTROPY_BYTES,
            Err(error) => tracing::debug!("hardware random generator: {error}"),
        }
        if is_ready() {
            return Ok(format!(
                "random generator is seeded, {credited} bytes from hardware"
            ));
        }
        // Readable means seeded. The timer interrupts that happen meanwhile are themselves a source.
        let _ = poll(&mut [PollFd::new(&random, PollFlags::IN)], Some(&ASK_EVERY));
    }
    Err(StepError::new(
        "the random generator is still not seeded, so no key may be made; give the machine a \
         virtio-rng device (QEMU: -device virtio-rng-pci) or a CPU with RDRAND",
    ))
}

fn credit_from_hardware(random: &File) -> io::Result<()> {
    let mut bytes = [0; system::ENTROPY_BYTES];
    let mut device = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/hwrng")?;
    device.read_exact(&mut bytes)?;
    system::credit_entropy(random, &bytes)
}
