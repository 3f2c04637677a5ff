//! Every target holds on its seeds, on what the fuzzer found, and on mutations of both.
//!
//! `WOW_FUZZ_MUTATIONS` replaces the number of mutations of each target.

use std::path::Path;

use rand::seq::IndexedRandom;
use rand::{Rng as _, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng as Rng;
use wow_fuzz::{TARGETS, Target};

const MUTATIONS: usize = 300;
const SEED: u64 = 1;
/// All corpora together, in bytes.
const CORPORA_BYTES_MAX: u64 = 1 << 20;
/// Changes to one input.
const CHANGES_MAX: usize = 6;

fn corpus(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name);
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .iter()
        .map(|file| std::fs::read(file).unwrap())
        .collect()
}

/// Runs a target; a panic names the input.
fn run(target: &Target, input: &[u8], what: &str) {
    let outcome = std::panic::catch_unwind(|| (target.run)(input));
    assert!(
        outcome.is_ok(),
        "{} fails on {what}: {input:02x?}",
        target.name
    );
}

fn mutate(inputs: &[Vec<u8>], limit: usize, rng: &mut Rng) -> Vec<u8> {
    let mut input = inputs.choose(rng).cloned().unwrap_or_default();
    for _ in 0..rng.random_range(1..=CHANGES_MAX) {
        let at = rng.random_range(0..=input.len());
        match rng.random_range(0..5) {
            0 if at < input.len() => input[at] = rng.random(),
            1 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            2 => input.insert(at, rng.random()),
            3 => input.truncate(at),
            // The end of another one in the place of this one's.
            _ => {
                let other = inputs.choose(rng).cloned().unwrap_or_default();
                let from = rng.random_range(0..=other.len());
                input.truncate(at);
                input.extend(&other[from..]);
            }
        }
    }
    input.truncate(limit);
    input
}

fn check(target: &Target) {
    let mutations = std::env::var("WOW_FUZZ_MUTATIONS").map_or(MUTATIONS, |text| {
        text.parse().expect("WOW_FUZZ_MUTATIONS is a number")
    });
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} begins with nothing", target.name);
    for (index, seed) in seeds.iter().enumerate() {
        assert!(
            seed.len() <= target.input_bytes_max,
            "seed {index} is too long"
        );
        run(target, seed, &format!("seed {index}"));
    }
    let mut inputs = corpus(target);
    for input in &inputs {
        run(target, input, "its corpus");
    }
    inputs.extend(seeds);
    let mut rng = Rng::seed_from_u64(SEED ^ rng_of(target.name));
    for mutation in 0..mutations {
        let input = mutate(&inputs, target.input_bytes_max, &mut rng);
        run(target, &input, &format!("mutation {mutation}"));
    }
}

/// A number of its own for each target.
fn rng_of(name: &str) -> u64 {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    Rng::from_seed(seed).next_u64()
}

macro_rules! replay {
    ($($test:ident: $name:literal,)*) => {
        $(#[test]
        fn $test() {
            check(wow_fuzz::target($name).unwrap());
        })*

        #[test]
        fn every_target_is_replayed() {
            let replayed = [$($name),*];
            let all: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!(all, replayed);
        }
    };
}

replay! {
    outer: "outer",
    frame: "frame",
    control: "control",
    query: "query",
    answer: "answer",
    claim: "claim",
    hello: "hello",
    ticket: "ticket",
    ticket_payload: "ticket-payload",
    pool_file: "pool-file",
    pool_payload: "pool-payload",
    certificate: "certificate",
    revocation: "revocation",
    identity: "identity",
    words: "words",
    replay_window: "replay-window",
    node: "node",
    kernel_command_line: "kernel-command-line",
    fw_cfg: "fw-cfg",
    image_file: "image-file",
    ovf_environment: "ovf-environment",
    config_disk: "config-disk",
    slots: "slots",
    dhcp: "dhcp",
    requests: "requests",
    dns: "dns",
    time: "time",
    control_address: "control-address",
    names: "names",
    times: "times",
    lan: "lan",
    upnp_search: "upnp-search",
    upnp_description: "upnp-description",
    upnp_action: "upnp-action",
    segment: "segment",
    coalesce: "coalesce",
    wan: "wan",
    wan_config: "wan-config",
    definition: "definition",
    fragment: "fragment",
}

#[test]
fn the_corpora_are_small_and_of_known_targets() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut total = 0;
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert!(wow_fuzz::target(&name).is_some(), "no target {name}");
        for file in std::fs::read_dir(entry.path()).unwrap() {
            total += file.unwrap().metadata().unwrap().len();
        }
    }
    assert!(total < CORPORA_BYTES_MAX, "{total} bytes");
}
