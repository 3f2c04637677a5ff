//! Debian images: which packages and versions a suite gives, and the root file system out of them.

pub mod archive;
pub mod root;

/// No file of an image is younger: the day on which Debian 13 appeared. Files that packages carry keep
/// their own times unless they are later than this.
pub const TIME: u64 = 1_754_697_600;
