//! The kernel: Debian's source, our configuration, and one bootable file with the initramfs in it.
//!
//! Objects are compiled once for a source, a configuration and a tool chain, and stay in the
//! cache as a build tree. A new initramfs only links: kbuild finds every object current and
//! repeats the last steps. What is linked does not depend on where the tree lies.

pub mod compile;
pub mod fragment;
pub mod source;
