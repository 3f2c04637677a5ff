//! The builder's inputs: image definitions and kernel fragments.

use std::path::Path;

use wow_builder::definition::Definition;
use wow_builder::kernel::fragment::{self, Merged};

use super::{TEXT_BYTES_MAX, text, texts};
use crate::Target;

/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub(super) const DEFINITION: Target = Target {
    name: "definition",
    // A whole system's packages and files take more than most texts.
    input_bytes_max: 4 * TEXT_BYTES_MAX,
    run: |input| {
        if let Some(text) = text(input) {
            for file in ["images/router.toml", "images/workstation.toml"] {
                if let Err(error) = Definition::parse(Path::new(ROOT), Path::new(file), text) {
                    assert!(error.line > 0 && error.line <= text.lines().count().max(1) + 1);
                }
            }
        }
    },
    seeds: || {
        texts(&[
            include_str!("../../../../images/router.toml"),
            include_str!("../../../../images/workstation.toml"),
        ])
    },
};

pub(super) const FRAGMENT: Target = Target {
    name: "fragment",
    input_bytes_max: TEXT_BYTES_MAX,
    run: |input| {
        if let Some(text) = text(input) {
            fragment(text);
        }
    },
    seeds: || {
        texts(&[
            "# A reason.\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"text\"\nCONFIG_D=0x10\n",
            "# One.\nCONFIG_A=y\n\n# Two.\nCONFIG_A=n\n",
        ])
    },
};

/// What a fragment asks for survives in the form that Kconfig reads.
fn fragment(text: &str) {
    let file = Path::new("kernel-config/fuzzed.config");
    let mut merged = Merged::default();
    let Ok(wanted) = fragment::parse(file, text) else {
        return;
    };
    if merged.add(wanted).is_ok() {
        merged.check(&merged.canonical()).expect("it holds itself");
    }
}
