//! Budgets, cookies and silence.

use rand::SeedableRng as _;

use super::*;
use crate::session::{CipherPreference, Endpoint, Initiator, StaticKey};
use crate::wire::outer::INIT_HEADER_BYTES;

const POOL: [u8; 32] = [0x77; 32];
const NOW: Instant = Instant::from_micros(500_000_000);

fn gate(limits: GateLimits) -> Gate {
    Gate::new(&mut Rng::seed_from_u64(1), &POOL, limits)
}

fn initiator(pool: [u8; 32], index: u32) -> Initiator {
    let key = StaticKey::new([1; 32], [2; 32]);
    let endpoint = Endpoint::new(key, &pool, CipherPreference::aes_first());
    Initiator::start(&mut Rng::seed_from_u64(2), &endpoint, None, index, b"").unwrap()
}

fn source(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [10, a, b, c, d, 1]
}

/// How many of `attempts` repetitions of `datagram` pass, are sent cookies, and are dropped.
fn tally(
    gate: &mut Gate,
    datagram: &[u8],
    sources: impl Iterator<Item = u32>,
) -> (u32, u32, Vec<DropReason>) {
    let (mut passed, mut cookies, mut drops) = (0, 0, Vec::new());
    for number in sources {
        match gate.check(NOW, &source(number), datagram) {
            Verdict::Pass(_) => passed += 1,
            Verdict::Cookie(_) => cookies += 1,
            Verdict::Drop(reason) => drops.push(reason),
        }
    }
    drops.dedup();
    (passed, cookies, drops)
}

fn prove(gate: &mut Gate, initiator: &mut Initiator, from: u32) {
    loop {
        match gate.check(NOW, &source(from), initiator.datagram()) {
            Verdict::Pass(_) => continue,
            Verdict::Cookie(datagram) => {
                let Ok(Outer::Cookie(cookie)) = Outer::parse(&datagram) else {
                    panic!("a cookie parses");
                };
                return initiator.on_cookie(&cookie).unwrap();
            }
            Verdict::Drop(reason) => panic!("no cookie: {reason}"),
        }
    }
}

#[test]
fn strangers_get_silence_at_any_rate() {
    let mut gate = gate(GateLimits::default());
    let foreign = initiator([0x66; 32], 1);
    let (passed, cookies, drops) = tally(&mut gate, foreign.datagram(), 0..5000);
    assert_eq!((passed, cookies, drops), (0, 0, vec![DropReason::WrongMac]));
    // And they have used up nobody's budget.
    let (passed, _, _) = tally(&mut gate, initiator(POOL, 1).datagram(), 0..100);
    assert_eq!(passed, 100);
}

#[test]
fn every_covered_byte_of_an_init_is_under_the_mac() {
    let mut gate = gate(GateLimits::default());
    let init = initiator(POOL, 1);
    for at in 0..init.datagram().len() - MAC_BYTES {
        let mut altered = init.datagram().to_vec();
        altered[at] ^= 1;
        let verdict = gate.check(NOW, &source(1), &altered);
        assert!(
            matches!(verdict, Verdict::Drop(_)),
            "byte {at}: {verdict:?}"
        );
    }
}

#[test]
fn one_source_empties_its_own_budget_and_not_that_of_others() {
    let limits = GateLimits::default();
    let mut gate = gate(limits);
    let init = initiator(POOL, 1);
    let (passed, cookies, _) = tally(&mut gate, init.datagram(), std::iter::repeat_n(1, 500));
    assert_eq!(passed, limits.unproven_source.burst);
    assert_eq!(cookies, 500 - limits.unproven_source.burst);
    assert!(matches!(
        gate.check(NOW, &source(2), init.datagram()),
        Verdict::Pass(_)
    ));
}

#[test]
fn forged_sources_are_bounded_together_and_proof_lifts_one_above_them() {
    let limits = GateLimits::default();
    let mut gate = gate(limits);
    let init = initiator(POOL, 1);
    let flood = limits.unproven.burst + limits.cookies.burst + 500;
    let (passed, cookies, drops) = tally(&mut gate, init.datagram(), 0..flood);
    assert_eq!(passed, limits.unproven.burst);
    assert_eq!(cookies, limits.cookies.burst);
    assert_eq!(drops, [DropReason::CookieLimit]);

    let mut gate = self::gate(GateLimits {
        unproven: Rate {
            per_second: 1,
            burst: 1,
        },
        ..limits
    });
    let mut honest = initiator(POOL, 2);
    prove(&mut gate, &mut honest, 7);
    let proven = honest.datagram().to_vec();
    let (passed, _, drops) = tally(&mut gate, &proven, std::iter::repeat_n(7, 100));
    assert_eq!(passed, limits.proven_source.burst);
    assert_eq!(drops, [DropReason::SourceLimit]);
}

#[test]
fn proven_sources_are_bounded_together() {
    let one = Rate {
        per_second: 1,
        burst: 1,
    };
    let two = Rate {
        per_second: 1,
        burst: 2,
    };
    let mut gate = gate(GateLimits {
        unproven: one,
        proven: two,
        ..GateLimits::default()
    });
    let mut reasons = Vec::new();
    for number in 1..=4 {
        let mut init = initiator(POOL, number);
        prove(&mut gate, &mut init, number);
        match gate.check(NOW, &source(number), init.datagram()) {
            Verdict::Pass(_) => reasons.push(None),
            Verdict::Drop(reason) => reasons.push(Some(reason)),
            Verdict::Cookie(_) => panic!("a proof is good"),
        }
    }
    let overload = Some(DropReason::Overload);
    assert_eq!(reasons, [None, None, overload, overload]);
}

#[test]
fn budgets_refill_with_time() {
    let mut gate = gate(GateLimits::default());
    let init = initiator(POOL, 1);
    tally(&mut gate, init.datagram(), std::iter::repeat_n(1, 100));
    let later = NOW + Duration::from_secs(1);
    assert!(matches!(
        gate.check(later, &source(1), init.datagram()),
        Verdict::Pass(_)
    ));
}

#[test]
fn an_invented_proof_counts_as_none() {
    let one = Rate {
        per_second: 1,
        burst: 1,
    };
    let mut gate = gate(GateLimits {
        unproven: one,
        ..GateLimits::default()
    });
    let mut datagram = initiator(POOL, 1).datagram().to_vec();
    let end = datagram.len();
    datagram[end - MAC_BYTES..].fill(0x5a);
    assert!(matches!(
        gate.check(NOW, &source(1), &datagram),
        Verdict::Pass(_)
    ));
    assert!(matches!(
        gate.check(NOW, &source(1), &datagram),
        Verdict::Cookie(_)
    ));
}

#[test]
fn a_demanding_gate_lets_only_proven_sources_pass() {
    let mut gate = gate(GateLimits::default());
    gate.demand_proof(true);
    let mut init = initiator(POOL, 1);
    let (passed, cookies, _) = tally(&mut gate, init.datagram(), 0..100);
    assert_eq!((passed, cookies), (0, 100));
    prove(&mut gate, &mut init, 7);
    let (passed, ..) = tally(&mut gate, init.datagram(), std::iter::once(7));
    assert_eq!(passed, 1);
    gate.demand_proof(false);
    let (passed, ..) = tally(&mut gate, initiator(POOL, 2).datagram(), 0..100);
    assert_eq!(passed, 100);
}

#[test]
fn replies_need_the_mac_and_records_do_not() {
    let mut gate = gate(GateLimits::default());
    let keys = PoolKeys::derive(&POOL);
    for header in [outer::response_header(9), outer::final_header(9)] {
        let mut reply = [&header[..], &[3; 96]].concat();
        let tag = mac(&keys.mac1, &[&reply]);
        reply.extend(tag);
        assert!(matches!(gate.check(NOW, b"", &reply), Verdict::Pass(_)));
        reply[INIT_HEADER_BYTES] ^= 1;
        let verdict = gate.check(NOW, b"", &reply);
        assert!(
            matches!(verdict, Verdict::Drop(DropReason::WrongMac)),
            "{verdict:?}"
        );
    }
    let record = [&outer::record_header(9, 0)[..], &[0; MAC_BYTES]].concat();
    assert!(matches!(
        gate.check(NOW, b"", &record),
        Verdict::Pass(Outer::Record(_))
    ));
    let verdict = gate.check(NOW, b"", &[0; 64]);
    assert!(
        matches!(verdict, Verdict::Drop(DropReason::Malformed(_))),
        "{verdict:?}"
    );
}
