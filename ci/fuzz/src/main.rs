//! libFuzzer around one target, named by `WOW_FUZZ_TARGET`. With `WOW_FUZZ_SEEDS` it only writes
//! the target's seeds into that directory.
#![no_main]

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use wow_fuzz::Target;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("WOW_FUZZ_TARGET").unwrap_or_default();
    let Some(target) = wow_fuzz::target(&name) else {
        let names: Vec<_> = wow_fuzz::TARGETS.iter().map(|t| t.name).collect();
        eprintln!("WOW_FUZZ_TARGET must be one of: {}", names.join(" "));
        std::process::exit(2);
    };
    if let Some(directory) = std::env::var_os("WOW_FUZZ_SEEDS") {
        for (index, seed) in (target.seeds)().into_iter().enumerate() {
            let path = Path::new(&directory).join(format!("seed-{index}"));
            std::fs::write(&path, seed).expect("the seeds' directory takes files");
        }
        std::process::exit(0);
    }
    TARGET.get_or_init(|| target);
}

fuzz_target!(init: choose(), |data: &[u8]| -> Corpus {
    match TARGET.get() {
        Some(target) if data.len() <= target.input_bytes_max => {
            (target.run)(data);
            Corpus::Keep
        }
        _ => Corpus::Reject,
    }
});
