//! Waits until the kernel's random generator is seeded, and helps it with the hardware's.
//!
//! Keys made before that could be guessed. The kernel credits virtio-rng by itself when it gets to it;
//! reading /dev/hwrng and crediting it here only makes that happen now. Without any hardware a
//! *blocking* `getrandom` makes the kernel gather timing jitter, within a second or so; asking without
//! blocking, or polling /dev/random, does not, and waits for ever on an idle machine. So this step
//! blocks, on its own thread, and its deadline bounds it.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::step::StepError;
use crate::system;

/// Whether the kernel's random generator is seeded.
pub fn is_ready() -> bool {
    getrandom(&mut [0u8; 1][..], GetRandomFlags::NONBLOCK).is_ok()
}

pub(crate) fn step() -> Result<String, StepError> {
    if is_ready() {
        return Ok("random generator is seeded".into());
    }
    match credit_from_hardware() {
        Ok(()) if is_ready() => return Ok("random generator is seeded from hardware".into()),
        Ok(()) => {}
        Err(error) => tracing::debug!("no hardware random generator: {error}"),
    }
    match getrandom(&mut [0u8; 1][..], GetRandomFlags::empty()) {
        Ok(_) => Ok("random generator is seeded, after a wait".into()),
        Err(error) => Err(StepError::new(format!(
            "the random generator is not seeded ({error}), so no key may be made; give the machine a \
             virtio-rng device (QEMU: -device virtio-rng-pci) or a CPU with RDRAND"
        ))),
    }
}

fn credit_from_hardware() -> io::Result<()> {
    let mut bytes = [0; system::ENTROPY_BYTES];
    let mut device = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/hwrng")?;
    device.read_exact(&mut bytes)?;
    let random = OpenOptions::new().write(true).open("/dev/random")?;
    system::credit_entropy(&random, &bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_generator_needs_no_wait() {
        assert_eq!(is_ready(), step().is_ok());
    }
}
