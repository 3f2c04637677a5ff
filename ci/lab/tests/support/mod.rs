//! What `cargo xtask test` tells the tests that it runs.
#![allow(dead_code)] // Each test program uses its part.

pub mod machine;

use std::path::PathBuf;

use wow_builder::manifest::Format;
use wow_builder::qemu::ImageFiles;
use wow_lab::Tools;

/// A path that a variable names.
pub fn path(variable: &str) -> PathBuf {
    let value = std::env::var_os(variable);
    value
        .unwrap_or_else(|| panic!("{variable} is not set: run `cargo xtask test`"))
        .into()
}

/// The programs that testbeds are made of.
pub fn tools() -> Tools {
    Tools {
        wow: path("WOW_TEST_WOW"),
        wan: path("WOW_TEST_WAN"),
    }
}

/// The files of the router's image.
pub fn built() -> ImageFiles {
    let image = path("WOW_TEST_IMAGE");
    ImageFiles {
        kernel: image.join("bzImage"),
        loader: None,
        disk: image.join("disk.raw"),
        disk_format: Format::Raw,
        own_disk: false,
    }
}
