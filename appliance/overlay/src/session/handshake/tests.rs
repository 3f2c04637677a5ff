//! Handshakes end to end, and what must not disturb them.

use curve25519_dalek::MontgomeryPoint;
use proptest::prelude::*;
use rand::SeedableRng as _;

use super::*;
use crate::Rng;
use crate::session::{
    CipherPreference, Gate, GateLimits, OpenError, REKEY_AFTER, REKEY_TAKEOVER_AFTER, Rate,
    ReplayError, StaticKey, Verdict,
};
use crate::wire::outer::{self, Final, Init, Outer, Pattern, Response};

const POOL: [u8; 32] = [0x77; 32];
const NOW: Instant = Instant::from_micros(1_000_000);
/// As long as a certificate.
const ALICE_SAYS: [u8; 450] = [0xa1; 450];
const BOB_SAYS: [u8; 450] = [0xb0; 450];

fn endpoint(number: u8, pool: [u8; 32], ciphers: CipherPreference) -> Endpoint {
    let secret = [number; 32];
    let public = curve_public(&secret);
    Endpoint::new(StaticKey::new(secret, public), &pool, ciphers)
}

fn curve_public(secret: &[u8; 32]) -> [u8; 32] {
    MontgomeryPoint::mul_base_clamped(*secret).to_bytes()
}

fn rng(seed: u64) -> Rng {
    Rng::seed_from_u64(seed)
}

fn init(datagram: &[u8]) -> Init<'_> {
    match Outer::parse(datagram) {
        Ok(Outer::Init(init)) => init,
        other => panic!("expected an Init, got {other:?}"),
    }
}

fn response(datagram: &[u8]) -> Response<'_> {
    match Outer::parse(datagram) {
        Ok(Outer::Response(response)) => response,
        other => panic!("expected a Response, got {other:?}"),
    }
}

fn last(datagram: &[u8]) -> Final<'_> {
    match Outer::parse(datagram) {
        Ok(Outer::Final(last)) => last,
        other => panic!("expected a Final, got {other:?}"),
    }
}

struct Pair {
    alice: Endpoint,
    bob: Endpoint,
    pattern: Pattern,
}

impl Pair {
    fn new(pattern: Pattern) -> Self {
        let aes = CipherPreference::aes_first();
        Pair {
            alice: endpoint(1, POOL, aes),
            bob: endpoint(2, POOL, aes),
            pattern,
        }
    }

    fn initiator(&self, seed: u64) -> Initiator {
        let remote = match self.pattern {
            Pattern::Ik => Some(*self.bob.key().public()),
            Pattern::Xx => None,
        };
        Initiator::start(&mut rng(seed), &self.alice, remote, 11, &ALICE_SAYS).unwrap()
    }

    fn accept(&self, seed: u64, datagram: &[u8]) -> Result<Accepted, HandshakeError> {
        Responder::accept(
            &mut rng(seed),
            NOW,
            &self.bob,
            &init(datagram),
            22,
            &BOB_SAYS,
        )
    }

    /// Alice's end and Bob's.
    fn shake(&self) -> (Finished, Finished) {
        let mut initiator = self.initiator(1);
        match self.accept(2, initiator.datagram()).unwrap() {
            Accepted::Finished {
                response: datagram,
                finished: bobs,
            } => {
                let alices = initiator.on_response(NOW, &response(&datagram)).unwrap();
                assert_eq!(alices.final_datagram, None);
                (alices, bobs)
            }
            Accepted::Pending {
                response: datagram,
                mut responder,
            } => {
                let alices = initiator.on_response(NOW, &response(&datagram)).unwrap();
                let bobs = responder
                    .on_final(NOW, &last(alices.final_datagram.as_ref().unwrap()))
                    .unwrap();
                (alices, bobs)
            }
        }
    }
}

fn carry(from: &Session, to: &mut Session, text: &[u8]) {
    let mut datagram = Vec::new();
    from.sealer.seal(&[text], &mut datagram).unwrap();
    assert_eq!(to.opener.open(&mut datagram).unwrap(), text);
}

fn check_end_to_end(pattern: Pattern, ciphers: [CipherPreference; 2], agreed: CipherSuite) {
    let pair = Pair {
        alice: endpoint(1, POOL, ciphers[0]),
        bob: endpoint(2, POOL, ciphers[1]),
        pattern,
    };
    let (mut alices, mut bobs) = pair.shake();
    assert_eq!(&alices.remote_static, pair.bob.key().public());
    assert_eq!(&bobs.remote_static, pair.alice.key().public());
    assert_eq!(alices.payload, BOB_SAYS);
    assert_eq!(bobs.payload, ALICE_SAYS);
    let (alice, bob) = (&mut alices.session, &mut bobs.session);
    assert_eq!((alice.suite(), bob.suite()), (agreed, agreed));
    assert_eq!((alice.local_index(), alice.remote_index()), (11, 22));
    assert_eq!((bob.local_index(), bob.remote_index()), (22, 11));
    assert_eq!(alice.handshake_hash(), bob.handshake_hash());
    assert_eq!(alice.is_confirmed(), pattern == Pattern::Ik);
    assert_eq!(bob.is_confirmed(), pattern == Pattern::Xx);
    carry(alice, bob, b"ping");
    carry(bob, alice, b"pong");
    carry(bob, alice, b"");
    assert!(alice.is_confirmed() && bob.is_confirmed());
    assert_eq!((alice.sealed_count(), bob.sealed_count()), (1, 2));
}

#[test]
fn both_patterns_carry_both_ciphers() {
    let (aes, chacha) = (
        CipherPreference::aes_first(),
        CipherPreference::chacha_first(),
    );
    for pattern in [Pattern::Ik, Pattern::Xx] {
        check_end_to_end(pattern, [aes, aes], CipherSuite::Aes256Gcm);
        check_end_to_end(pattern, [aes, chacha], CipherSuite::ChaCha20Poly1305);
        let only = CipherPreference::only(CipherSuite::Aes256Gcm);
        check_end_to_end(pattern, [only, chacha], CipherSuite::Aes256Gcm);
    }
}

#[cfg(feature = "stand-in")]
#[test]
fn the_stand_in_agrees_with_itself_refuses_the_real_and_notices_damage() {
    let stand_in = CipherPreference::stand_in();
    for pattern in [Pattern::Ik, Pattern::Xx] {
        check_end_to_end(pattern, [stand_in, stand_in], CipherSuite::StandIn);
        let aes = CipherPreference::aes_first();
        for (alice, bob) in [(stand_in, aes), (aes, stand_in)] {
            let pair = Pair {
                alice: endpoint(1, POOL, alice),
                bob: endpoint(2, POOL, bob),
                pattern,
            };
            assert!(pair.accept(2, pair.initiator(1).datagram()).is_err());
        }
    }
    let pair = Pair {
        alice: endpoint(1, POOL, stand_in),
        bob: endpoint(2, POOL, stand_in),
        pattern: Pattern::Ik,
    };
    let mut damaged = pair.initiator(1).datagram().to_vec();
    damaged[100] ^= 1;
    assert!(pair.accept(2, &damaged).is_err());
    let (alices, mut bobs) = pair.shake();
    let mut record = Vec::new();
    alices.session.sealer.seal(&[b"ping"], &mut record).unwrap();
    let mut damaged = record.clone();
    damaged[17] ^= 1;
    let opener = &mut bobs.session.opener;
    assert_eq!(opener.open(&mut damaged), Err(OpenError::Forged));
    assert_eq!(opener.open(&mut record.clone()).unwrap(), b"ping");
    assert!(opener.open(&mut record).is_err(), "seen before");
}

#[test]
fn a_handshake_without_a_common_cipher_is_refused() {
    let pair = Pair {
        alice: endpoint(1, POOL, CipherPreference::only(CipherSuite::Aes256Gcm)),
        bob: endpoint(
            2,
            POOL,
            CipherPreference::only(CipherSuite::ChaCha20Poly1305),
        ),
        pattern: Pattern::Ik,
    };
    let refused = pair.accept(2, pair.initiator(1).datagram());
    assert_eq!(refused.unwrap_err(), HandshakeError::NoCommonCipher);
}

#[test]
fn the_same_seeds_give_the_same_bytes_and_others_do_not() {
    for pattern in [Pattern::Ik, Pattern::Xx] {
        let pair = Pair::new(pattern);
        let sealed = || {
            let mut datagram = Vec::new();
            let (alices, _) = pair.shake();
            alices.session.sealer.seal(&[b"x"], &mut datagram).unwrap();
            (alices.final_datagram, datagram)
        };
        assert_eq!(sealed(), sealed());
        assert_eq!(pair.initiator(1).datagram(), pair.initiator(1).datagram());
        assert_ne!(pair.initiator(1).datagram(), pair.initiator(2).datagram());
    }
}

#[test]
fn handshake_datagrams_stay_within_their_sizes() {
    let largest = [7; MAX_PAYLOAD_BYTES];
    for pattern in [Pattern::Ik, Pattern::Xx] {
        let pair = Pair::new(pattern);
        assert!(pair.initiator(1).datagram().len() <= XX_INIT_BYTES);
        let remote = (pattern == Pattern::Ik).then(|| *pair.bob.key().public());
        let mut initiator =
            Initiator::start(&mut rng(1), &pair.alice, remote, 11, &largest).unwrap();
        let init = init(initiator.datagram());
        let accepted = Responder::accept(&mut rng(2), NOW, &pair.bob, &init, 22, &largest).unwrap();
        let (Accepted::Finished {
            response: answer, ..
        }
        | Accepted::Pending {
            response: answer, ..
        }) = accepted;
        let finished = initiator.on_response(NOW, &response(&answer)).unwrap();
        let last = finished.final_datagram.unwrap_or_default();
        for datagram in [initiator.datagram(), &answer, &last] {
            assert!(
                datagram.len() <= HANDSHAKE_MAX_BYTES,
                "{pattern:?} {}",
                datagram.len()
            );
        }
        let too_long = Initiator::start(
            &mut rng(1),
            &pair.alice,
            remote,
            11,
            &[7; MAX_PAYLOAD_BYTES + 1],
        );
        assert_eq!(too_long.unwrap_err(), HandshakeError::PayloadTooLong);
    }
}

/// Alters each byte of `datagram` in turn, MACs included or not, and hands it to `attempt`.
fn each_byte_altered(datagram: &[u8], mut attempt: impl FnMut(usize, &[u8])) {
    for at in 0..datagram.len() {
        let mut altered = datagram.to_vec();
        altered[at] ^= 0x40;
        attempt(at, &altered);
    }
}

#[test]
fn an_altered_init_is_refused_even_without_its_mac() {
    let pair = Pair::new(Pattern::Ik);
    let initiator = pair.initiator(1);
    let covered = initiator.datagram().len() - 2 * MAC_BYTES;
    each_byte_altered(initiator.datagram(), |at, altered| {
        let Ok(Outer::Init(_)) = Outer::parse(altered) else {
            return;
        };
        let accepted = pair.accept(2, altered);
        assert_eq!(accepted.is_err(), at < covered, "byte {at}");
    });
}

#[test]
fn an_altered_xx_init_yields_no_session() {
    let pair = Pair::new(Pattern::Xx);
    // Ciphers offered, favourite, index and ephemeral key: nothing in message 1 is encrypted, the
    // transcript protects it.
    for at in [5, 9, 10, INIT_HEADER_BYTES, INIT_HEADER_BYTES + 31] {
        let mut initiator = pair.initiator(1);
        let mut altered = initiator.datagram().to_vec();
        altered[at] ^= 0x04;
        let Accepted::Pending {
            response: mut answer,
            ..
        } = pair.accept(2, &altered).unwrap()
        else {
            panic!("XX pends");
        };
        // Whoever altered the index would alter it back.
        answer[4..8].copy_from_slice(&11u32.to_be_bytes());
        let refused = initiator.on_response(NOW, &response(&answer));
        assert_eq!(refused.unwrap_err(), HandshakeError::Rejected, "byte {at}");
    }
}

#[test]
fn altered_responses_are_refused_and_the_true_one_still_counts() {
    for pattern in [Pattern::Ik, Pattern::Xx] {
        let pair = Pair::new(pattern);
        let mut initiator = pair.initiator(1);
        let (Accepted::Finished {
            response: answer, ..
        }
        | Accepted::Pending {
            response: answer, ..
        }) = pair.accept(2, initiator.datagram()).unwrap();
        // In the ephemeral key, the encrypted static key (XX), payload and tag; and cut short.
        let end = answer.len() - MAC_BYTES;
        for at in [8, 39, 40, 71, 88, 89, end - 17, end - 1] {
            let mut altered = answer.clone();
            altered[at] ^= 1;
            let refused = initiator.on_response(NOW, &response(&altered));
            assert_eq!(refused.unwrap_err(), HandshakeError::Rejected, "byte {at}");
        }
        let refused = initiator.on_response(NOW, &response(&answer[..answer.len() - 1]));
        assert_eq!(refused.unwrap_err(), HandshakeError::Rejected);
        // A low-order ephemeral key.
        let mut degenerate = answer.clone();
        degenerate[8..40].fill(0);
        let refused = initiator.on_response(NOW, &response(&degenerate));
        assert_eq!(refused.unwrap_err(), HandshakeError::Rejected);

        let finished = initiator.on_response(NOW, &response(&answer)).unwrap();
        assert_eq!(finished.payload, BOB_SAYS);
        let again = initiator.on_response(NOW, &response(&answer));
        assert_eq!(again.unwrap_err(), HandshakeError::AlreadyFinished);
    }
}

#[test]
fn altered_finals_are_refused_and_the_true_one_still_counts() {
    let pair = Pair::new(Pattern::Xx);
    let mut initiator = pair.initiator(1);
    let Accepted::Pending {
        response: answer,
        mut responder,
    } = pair.accept(2, initiator.datagram()).unwrap()
    else {
        panic!("XX pends");
    };
    let mut alices = initiator.on_response(NOW, &response(&answer)).unwrap();
    let datagram = alices.final_datagram.take().unwrap();
    let end = datagram.len() - MAC_BYTES;
    // In the static key and its tag, then in the payload, after snow has taken the former.
    for at in [8, 40, 55, 56, 200, end - 1] {
        let mut altered = datagram.clone();
        altered[at] ^= 1;
        let refused = responder.on_final(NOW, &last(&altered));
        assert_eq!(refused.unwrap_err(), HandshakeError::Rejected, "byte {at}");
    }
    let mut bobs = responder.on_final(NOW, &last(&datagram)).unwrap();
    carry(&alices.session, &mut bobs.session, b"first");
    // The same keys a second time would repeat nonces.
    let again = responder.on_final(NOW, &last(&datagram));
    assert_eq!(again.unwrap_err(), HandshakeError::AlreadyFinished);
}

#[test]
fn work_for_forged_messages_is_bounded() {
    let pair = Pair::new(Pattern::Ik);
    let mut initiator = pair.initiator(1);
    let Accepted::Finished {
        response: answer, ..
    } = pair.accept(2, initiator.datagram()).unwrap()
    else {
        panic!("IK finishes");
    };
    let mut altered = answer.clone();
    altered[40] ^= 1;
    for _ in 0..MAX_FORGERIES {
        let refused = initiator.on_response(NOW, &response(&altered));
        assert_eq!(refused.unwrap_err(), HandshakeError::Rejected);
    }
    let refused = initiator.on_response(NOW, &response(&answer));
    assert_eq!(refused.unwrap_err(), HandshakeError::TooManyForgeries);
}

#[test]
fn a_repeated_init_makes_sessions_of_its_own_and_one_wins() {
    let pair = Pair::new(Pattern::Ik);
    let mut initiator = pair.initiator(1);
    let Accepted::Finished {
        response: first,
        finished: mut first_bob,
    } = pair.accept(2, initiator.datagram()).unwrap()
    else {
        panic!("IK finishes");
    };
    let Accepted::Finished {
        finished: mut second_bob,
        ..
    } = pair.accept(3, initiator.datagram()).unwrap()
    else {
        panic!("IK finishes");
    };
    let alice = initiator
        .on_response(NOW, &response(&first))
        .unwrap()
        .session;
    let mut datagram = Vec::new();
    alice.sealer.seal(&[b"x"], &mut datagram).unwrap();
    let refused = second_bob
        .session
        .opener
        .open(&mut datagram.clone())
        .map(|_| ());
    assert_eq!(refused, Err(OpenError::Forged));
    assert!(!second_bob.session.is_confirmed());
    assert_eq!(first_bob.session.opener.open(&mut datagram).unwrap(), b"x");
}

#[test]
fn our_own_key_is_no_peer() {
    let aes = CipherPreference::aes_first();
    let alice = endpoint(1, POOL, aes);
    let own = Some(*alice.key().public());
    let refused = Initiator::start(&mut rng(1), &alice, own, 11, &[]);
    assert_eq!(refused.unwrap_err(), HandshakeError::OwnKey);
    // A reflected XX Init, answered by ourselves.
    let mut initiator = Initiator::start(&mut rng(1), &alice, None, 11, &[]).unwrap();
    let reflected = init(initiator.datagram());
    let Accepted::Pending {
        response: answer, ..
    } = Responder::accept(&mut rng(2), NOW, &alice, &reflected, 22, &[]).unwrap()
    else {
        panic!("XX pends");
    };
    let refused = initiator.on_response(NOW, &response(&answer));
    assert_eq!(refused.unwrap_err(), HandshakeError::OwnKey);
    // A low-order static key.
    let refused = Initiator::start(&mut rng(1), &alice, Some([0; 32]), 11, &[]);
    assert_eq!(refused.unwrap_err(), HandshakeError::Rejected);
}

#[test]
fn another_key_or_pool_is_refused_behind_the_gate_too() {
    let aes = CipherPreference::aes_first();
    let pair = Pair::new(Pattern::Ik);
    let meant_for_carol = Initiator::start(
        &mut rng(1),
        &pair.alice,
        Some(curve_public(&[3; 32])),
        11,
        &ALICE_SAYS,
    );
    let refused = pair.accept(2, meant_for_carol.unwrap().datagram());
    assert_eq!(refused.unwrap_err(), HandshakeError::Rejected);
    let foreign = Pair {
        alice: endpoint(1, [0x66; 32], aes),
        ..Pair::new(Pattern::Ik)
    };
    let refused = foreign.accept(2, foreign.initiator(1).datagram());
    assert_eq!(refused.unwrap_err(), HandshakeError::Rejected);
}

#[test]
fn sessions_fall_due_and_expire_by_role() {
    let (alices, bobs) = Pair::new(Pattern::Ik).shake();
    let (alice, bob) = (alices.session, bobs.session);
    assert_eq!(
        (alice.role(), bob.role()),
        (Role::Initiator, Role::Responder)
    );
    let within = |at: Instant, middle: std::time::Duration| {
        let after = at - NOW;
        after >= middle * 9 / 10 && after <= middle * 11 / 10
    };
    assert!(within(alice.rekey_at(), REKEY_AFTER));
    assert!(within(bob.rekey_at(), REKEY_TAKEOVER_AFTER));
    for session in [alice, bob] {
        let just_before = Instant::from_micros(session.rekey_at().as_micros() - 1);
        assert!(!session.rekey_due(just_before) && session.rekey_due(session.rekey_at()));
        assert!(!session.expired(session.rekey_at()) && session.expired(session.expires_at()));
    }
}

/// A gate that admits one Init without a cookie, in all.
fn strict_gate() -> Gate {
    let one = Rate {
        per_second: 1,
        burst: 1,
    };
    let limits = GateLimits {
        unproven: one,
        ..GateLimits::default()
    };
    Gate::new(&mut rng(9), &POOL, limits)
}

#[test]
fn a_loaded_gate_sends_a_cookie_that_its_source_alone_can_use() {
    let pair = Pair::new(Pattern::Ik);
    let mut initiator = pair.initiator(1);
    let mut gate = strict_gate();
    let (here, there) = (b"192.0.2.1:4001", b"192.0.2.1:4002");
    assert!(matches!(
        gate.check(NOW, here, initiator.datagram()),
        Verdict::Pass(Outer::Init(_))
    ));
    let Verdict::Cookie(datagram) = gate.check(NOW, here, initiator.datagram()) else {
        panic!("over budget: a cookie");
    };
    assert!(datagram.len() < initiator.datagram().len());
    let Ok(Outer::Cookie(cookie)) = Outer::parse(&datagram) else {
        panic!("a cookie parses");
    };
    // For another Init of the same index, it is void.
    let mut other = pair.initiator(7);
    assert_eq!(other.on_cookie(&cookie), Err(CookieError::WrongTag));
    each_byte_altered(&datagram, |at, altered| {
        if let Ok(Outer::Cookie(altered)) = Outer::parse(altered) {
            assert!(initiator.on_cookie(&altered).is_err(), "byte {at}");
        }
    });
    let mac1 = init(initiator.datagram()).mac1();
    initiator.on_cookie(&cookie).unwrap();
    assert_eq!(initiator.on_cookie(&cookie), Err(CookieError::Repeated));
    assert_eq!(init(initiator.datagram()).mac1(), mac1);

    assert!(matches!(
        gate.check(NOW, here, initiator.datagram()),
        Verdict::Pass(_)
    ));
    assert!(matches!(
        gate.check(NOW, there, initiator.datagram()),
        Verdict::Cookie(_)
    ));
    let epoch = crate::session::COOKIE_EPOCH;
    let mut later = strict_gate();
    let mut drained = pair.initiator(8);
    for (now, proven) in [(NOW + epoch, true), (NOW + 2 * epoch, false)] {
        assert!(matches!(
            later.check(now, there, drained.datagram()),
            Verdict::Pass(_)
        ));
        let verdict = later.check(now, here, initiator.datagram());
        assert_eq!(matches!(verdict, Verdict::Pass(_)), proven, "at {now}");
    }
    // The handshake goes on as if nothing had been.
    drained = initiator;
    let Accepted::Finished {
        response: answer, ..
    } = pair.accept(2, drained.datagram()).unwrap()
    else {
        panic!("IK finishes");
    };
    drained.on_response(NOW, &response(&answer)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Well-formed headers around arbitrary content, through everything that takes a datagram.
    #[test]
    fn arbitrary_datagrams_never_panic(
        kind in 1u8..6,
        pattern in 1u8..3,
        ciphers: [u8; 2],
        right_index: bool,
        tail in proptest::collection::vec(any::<u8>(), 0..1250),
        resize in prop::option::of(prop::sample::select(vec![XX_INIT_BYTES, outer::COOKIE_BYTES])),
    ) {
        let pair = Pair::new(Pattern::Xx);
        let mut initiator = pair.initiator(1);
        let Accepted::Pending { mut responder, .. } =
            pair.accept(2, initiator.datagram()).unwrap() else { panic!("XX pends") };
        let (mut alices, _) = Pair::new(Pattern::Ik).shake();
        let mut datagram = vec![kind, outer::VERSION, 0, 0];
        datagram.extend(tail);
        if let Some(size) = resize { datagram.resize(size, 0); }
        if kind == 1 && datagram.len() > 44 {
            datagram[8] = pattern;
            datagram[9..11].copy_from_slice(&ciphers);
            datagram[11] = 0;
            if pattern == 2 { datagram[44..].fill(0); }
        } else if right_index && datagram.len() >= 8 {
            let index: u32 = if kind == 3 { 22 } else { 11 };
            datagram[4..8].copy_from_slice(&index.to_be_bytes());
        }
        let mut gate = strict_gate();
        let verdict = gate.check(NOW, b"source", &datagram);
        prop_assert!(!matches!(verdict, Verdict::Pass(Outer::Init(_) | Outer::Response(_) | Outer::Final(_))));
        match Outer::parse(&datagram) {
            Ok(Outer::Init(init)) => {
                let accepted = Responder::accept(&mut rng(3), NOW, &pair.bob, &init, 1, &BOB_SAYS);
                prop_assert!(init.pattern() == Pattern::Xx || accepted.is_err());
            }
            Ok(Outer::Response(response)) => prop_assert!(initiator.on_response(NOW, &response).is_err()),
            Ok(Outer::Final(last)) => prop_assert!(responder.on_final(NOW, &last).is_err()),
            Ok(Outer::Cookie(cookie)) => prop_assert!(initiator.on_cookie(&cookie).is_err()),
            Ok(Outer::Record(_)) | Err(_) => {}
        }
        prop_assert!(alices.session.opener.open(&mut datagram).is_err());
        prop_assert_eq!(alices.session.opener.highest(), None);
    }
}

#[test]
fn a_forged_record_moves_nothing() {
    let (alices, mut bobs) = Pair::new(Pattern::Ik).shake();
    let bob = &mut bobs.session;
    let mut datagram = Vec::new();
    alices
        .session
        .sealer
        .seal(&[b"text"], &mut datagram)
        .unwrap();
    let mut forged = datagram.clone();
    forged[8..16].copy_from_slice(&1_000_000u64.to_be_bytes());
    assert_eq!(bob.opener.open(&mut forged).unwrap_err(), OpenError::Forged);
    assert!(!bob.is_confirmed());
    assert_eq!(bob.opener.open(&mut datagram.clone()).unwrap(), b"text");
    let replayed = bob.opener.open(&mut datagram).unwrap_err();
    assert_eq!(replayed, OpenError::Replay(ReplayError::Duplicate));
}
