//! Builds images from the definitions under `images/`, and runs them under QEMU.
//!
//! [`image::build`] is the entrance: a definition becomes a plan, the plan's steps run against a
//! cache of content-hash keys, and the artefacts land under `target/images/NAME` with a manifest.
//! Nothing here links the appliance's crates: the router is a binary that cargo builds.
#![forbid(unsafe_code)]

mod archive;
pub mod bundle;
pub mod cache;
pub mod cpio;
pub mod debian;
pub mod definition;
pub mod deploy;
pub mod digest;
pub mod disk;
mod error;
pub mod host;
pub mod image;
pub mod kernel;
pub mod manifest;
pub mod mark;
pub mod ova;
pub mod plan;
mod process;
pub mod progress;
pub mod qemu;
pub mod repository;
pub mod sbom;

pub use error::BuildError;
