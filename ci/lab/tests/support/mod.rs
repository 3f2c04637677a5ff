//! What `cargo xtask test` tells the tests that it runs.
#![allow(dead_code)] // Each test program uses its part.

pub mod machine;

use std::path::PathBuf;

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
