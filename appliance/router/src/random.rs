//! Randomness from the operating system, to seed the overlay's generators.

use rand_chacha::rand_core::SeedableRng;
use rustix::rand::{GetRandomFlags, getrandom};
use wow_overlay::Rng;
use zeroize::Zeroizing;

/// Bytes that nobody can foresee.
pub fn seed() -> Zeroizing<[u8; 32]> {
    let mut seed = Zeroizing::new([0; 32]);
    let mut filled = 0;
    while filled < seed.len() {
        match getrandom(&mut seed[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            // Without it no key would be safe.
            Err(error) => panic!("the kernel gives no randomness: {error}"),
        }
    }
    seed
}

/// A freshly seeded generator.
pub fn rng() -> Rng {
    Rng::from_seed(*seed())
}

/// An unpredictable number.
pub fn number() -> u64 {
    let seed = seed();
    u64::from_le_bytes(*seed.first_chunk().expect("32 bytes begin with 8"))
}

/// A number between two, evenly drawn.
pub fn share(from: f64, to: f64) -> f64 {
    let drawn = (number() >> 11) as f64 / (1u64 << 53) as f64;
    from + (to - from) * drawn
}
