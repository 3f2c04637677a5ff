//! Tests of pool facts: what a pool may look like, and what is never shown.

use super::*;
use ed25519_dalek::SigningKey;

fn facts(range: &str, seeds: &[&str]) -> Result<PoolFacts, PoolError> {
    PoolFacts::new(
        PoolName::new("physics").unwrap(),
        SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes(),
        PoolKey([0xa5; 32]),
        range.parse().unwrap(),
        seeds.iter().map(|seed| seed.parse().unwrap()).collect(),
    )
}

#[test]
fn usable_ranges_are_accepted() {
    for range in [
        "10.128.0.0/9",
        "10.0.0.0/8",
        "192.168.77.0/24",
        "100.64.0.0/10",
        "10.1.2.8/29",
    ] {
        facts(range, &[]).unwrap();
    }
    check_range(DEFAULT_RANGE).unwrap();
}

#[test]
fn unusable_ranges_are_refused_with_the_reason() {
    for (range, message) in [
        ("10.0.0.0/7", "its prefix must be from /8 to /29"),
        ("10.0.0.0/30", "its prefix must be from /8 to /29"),
        ("0.0.0.0/0", "its prefix must be from /8 to /29"),
        ("10.1.2.3/9", "did you mean 10.0.0.0/9?"),
        ("127.0.0.0/8", "127.0.0.0/8 is reserved for loopback"),
        ("127.5.0.0/16", "127.0.0.0/8 is reserved for loopback"),
        ("169.0.0.0/8", "reserved for link-local addresses"),
        ("0.0.0.0/8", "reserved for \"this network\""),
        ("230.1.0.0/16", "reserved for multicast"),
        ("255.0.0.0/8", "reserved for future use"),
    ] {
        let error = facts(range, &[]).unwrap_err().to_string();
        assert!(error.contains(message), "{range}: {error}");
    }
}

#[test]
fn seeds_are_bounded_and_distinct() {
    let many: Vec<String> = (1..=9)
        .map(|n| format!("seed{n}.example.org:4001"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    facts("10.0.0.0/8", &many[..8]).unwrap();
    assert_eq!(
        facts("10.0.0.0/8", &many).unwrap_err(),
        PoolError::TooManySeeds { found: 9 }
    );
    let error = facts("10.0.0.0/8", &["A.example:1", "b.example:1", "a.EXAMPLE:1"]);
    assert_eq!(
        error.unwrap_err().to_string(),
        "the seed a.example:1 is named twice"
    );
}

#[test]
fn a_ca_that_anybody_can_sign_for_is_refused() {
    let mut weak = [0; 32];
    weak[0] = 1;
    let name = PoolName::new("p").unwrap();
    let facts = PoolFacts::new(name, weak, PoolKey([0; 32]), DEFAULT_RANGE, vec![]);
    assert_eq!(facts.unwrap_err(), PoolError::UnsoundCa);
}

#[test]
fn neither_debug_nor_summary_shows_the_key() {
    let facts = facts("10.128.0.0/9", &["seed.example.org:4001"]).unwrap();
    for shown in [format!("{facts:?}"), format!("{:?}", facts.summary())] {
        assert!(shown.contains("physics"), "{shown}");
        assert!(
            !shown.contains("165") && !shown.to_lowercase().contains("a5a5"),
            "{shown}"
        );
    }
    assert!(format!("{facts:?}").contains("PoolKey(secret)"));
    let summary = facts.summary();
    assert_eq!(summary.control_address, Ipv4Addr::new(10, 128, 0, 1));
    assert_eq!(summary.id.to_string().len(), 32);
}
