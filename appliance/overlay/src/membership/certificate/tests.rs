//! Tests of certificates: each refusal by name, sizes, and what only the signers can make.

use proptest::prelude::*;

use super::*;
use crate::membership::codec::SIGNATURE_BYTES;
use crate::membership::delegation::Delegation;
use crate::membership::fixtures::*;

/// Appends what claims to be the holder's signature.
type SignAsHolder = dyn Fn(&mut Zeroizing<Vec<u8>>);

/// Spoils a body.
type Spoil<'a> = &'a dyn Fn(&mut Body);

/// What an attacker with a ticket's secret can make: any body, with any holder's signature.
struct Forgery {
    delegation: Vec<u8>,
    body: Vec<u8>,
    holder: Box<SignAsHolder>,
    ticket: SigningKey,
}

fn body() -> Body {
    let (identity, request) = (identity(1), request());
    Body {
        signing_key: identity.signing_public(),
        static_key: identity.static_public(),
        name: request.name.to_string(),
        roles: request.roles.bits(),
        fixed_address: request.fixed_address.map(|address| address.octets()),
        not_before: request.not_before,
        not_after: request.not_after,
    }
}

impl Forgery {
    /// Nothing forged yet.
    fn new() -> Self {
        Forgery {
            delegation: delegation().sign(&ca()).to_vec(),
            body: postcard::to_allocvec(&body()).unwrap(),
            holder: Box::new(|bytes| {
                write_signature(bytes, Domain::Holder, identity(1).signing_key());
            }),
            ticket: ticket_key(),
        }
    }

    fn body(mut self, change: impl FnOnce(&mut Body)) -> Self {
        let mut body = body();
        change(&mut body);
        self.body = postcard::to_allocvec(&body).unwrap();
        self
    }

    fn delegation(mut self, change: impl FnOnce(&mut Delegation)) -> Self {
        let mut delegation = delegation();
        change(&mut delegation);
        self.delegation = delegation.sign(&ca()).to_vec();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Zeroizing::new(vec![VERSION]);
        bytes.extend_from_slice(&self.delegation);
        bytes.extend_from_slice(&self.body);
        (self.holder)(&mut bytes);
        write_signature(&mut bytes, Domain::Certificate, &self.ticket);
        bytes.to_vec()
    }

    fn refusal(&self) -> CertificateError {
        refusal(&self.bytes())
    }
}

fn good() -> Vec<u8> {
    let delegation = delegation().sign(&ca());
    sign(&delegation, &ticket_key(), &identity(1), &request()).to_vec()
}

fn verify(bytes: &[u8]) -> Result<Certificate, CertificateError> {
    Certificate::verify(bytes, &facts(), NOW)
}

fn refusal(bytes: &[u8]) -> CertificateError {
    verify(bytes).unwrap_err()
}

/// Where the parts of `good()` end.
struct Layout {
    delegation: usize,
    holder: usize,
    ticket: usize,
}

fn layout() -> Layout {
    let ticket = good().len();
    Layout {
        delegation: 1 + delegation().sign(&ca()).len(),
        holder: ticket - SIGNATURE_BYTES,
        ticket,
    }
}

#[test]
fn a_good_certificate_says_what_was_requested() {
    let certificate = verify(&good()).unwrap();
    let (identity, request) = (identity(1), request());
    assert_eq!(certificate.bytes(), good());
    assert_eq!(certificate.node_id(), identity.node_id());
    assert_eq!(certificate.signing_key(), identity.signing_public());
    assert_eq!(certificate.static_key(), identity.static_public());
    assert_eq!(certificate.name(), &request.name);
    assert_eq!(certificate.roles(), request.roles);
    assert_eq!(certificate.fixed_address(), request.fixed_address);
    assert_eq!(certificate.not_before(), request.not_before);
    assert_eq!(certificate.not_after(), request.not_after);
    assert_eq!(certificate.pool_id(), facts().pool_id());
    assert!(
        certificate.is_of(&identity) && !certificate.is_of(&super::super::fixtures::identity(2))
    );
    assert_eq!(
        Forgery::new().bytes(),
        good(),
        "the forger begins with an honest certificate"
    );
}

#[test]
fn sizes_stay_within_bounds() {
    let usual = good().len();
    let longest = Forgery::new()
        .delegation(|d| {
            d.validity = Validity::new(UnixTime(u64::MAX - 9), UnixTime(u64::MAX)).unwrap();
        })
        .body(|b| {
            b.name = "n".repeat(63);
            b.not_before = UnixTime(u64::MAX - 9);
            b.not_after = UnixTime(u64::MAX);
        })
        .bytes();
    println!(
        "certificate: {usual} bytes with a name of 20, at most {}",
        longest.len()
    );
    assert!(usual <= 370 && longest.len() <= CERTIFICATE_BYTES_MAX);
    Certificate::verify(&longest, &facts(), UnixTime(u64::MAX - 1)).unwrap();
}

#[test]
fn every_flipped_bit_is_refused_for_the_part_it_is_in() {
    let (good, layout) = (good(), layout());
    for bit in 0..8 * good.len() {
        let at = bit / 8;
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (bit % 8);
        let error = refusal(&bytes);
        let malformed = matches!(
            error,
            CertificateError::Malformed { .. } | CertificateError::Truncated
        );
        let fits = if at == 0 {
            matches!(error, CertificateError::UnsupportedVersion { .. })
        } else if at < 17 {
            matches!(error, CertificateError::ForeignPool { .. })
        } else if at < layout.delegation {
            malformed || error == CertificateError::ForgedDelegation
        } else if at < layout.holder - SIGNATURE_BYTES {
            malformed || matches!(error, CertificateError::Forged { .. })
        } else {
            matches!(error, CertificateError::Forged { .. })
        };
        assert!(fits, "byte {at}: {error}");
    }
}

#[test]
fn every_shorter_length_is_truncated_and_a_longer_one_malformed() {
    let good = good();
    for length in 0..good.len() {
        assert_eq!(
            refusal(&good[..length]),
            CertificateError::Truncated,
            "{length}"
        );
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(matches!(
        refusal(&longer),
        CertificateError::Malformed { .. }
    ));
    assert_eq!(refusal(&[1; 513]), CertificateError::TooLong { found: 513 });
}

#[test]
fn another_version_is_refused_by_number() {
    let mut bytes = good();
    bytes[0] = 2;
    assert_eq!(
        refusal(&bytes),
        CertificateError::UnsupportedVersion { found: 2 }
    );
    assert!(refusal(&bytes).to_string().contains("version 2"));
}

#[test]
fn a_foreign_pool_is_named_and_cannot_claim_to_be_ours() {
    let foreign_ca = SigningKey::from_bytes(&[0xcb; 32]);
    let foreign = facts_of(&foreign_ca);
    let error = Certificate::verify(&good(), &foreign, NOW).unwrap_err();
    assert_eq!(
        error,
        CertificateError::ForeignPool {
            expected: foreign.pool_id(),
            found: facts().pool_id(),
        }
    );
    let mut forgery = Forgery::new();
    forgery.delegation = delegation().sign(&foreign_ca).to_vec();
    assert_eq!(forgery.refusal(), CertificateError::ForgedDelegation);
    // Nor can a ticket act as a CA.
    forgery.delegation = delegation().sign(&ticket_key()).to_vec();
    assert_eq!(forgery.refusal(), CertificateError::ForgedDelegation);
}

#[test]
fn a_certificate_signed_by_another_ticket_is_forged() {
    let mut forgery = Forgery::new();
    forgery.ticket = SigningKey::from_bytes(&[0x72; 32]);
    let ticket = verify(&good()).unwrap().ticket_id();
    assert_eq!(forgery.refusal(), CertificateError::Forged { ticket });
    assert!(forgery.refusal().to_string().contains(&ticket.to_string()));
}

#[test]
fn a_ticket_s_holder_cannot_claim_another_node_s_id() {
    let victim = identity(1);
    let claimed = CertificateError::IdentityNotProven {
        claimed: victim.node_id(),
    };
    // With a signature of the attacker's own.
    let mut forgery = Forgery::new();
    forgery.holder = Box::new(|bytes| {
        write_signature(bytes, Domain::Holder, identity(2).signing_key());
    });
    assert_eq!(forgery.refusal(), claimed);
    // With the victim's signature from its true certificate, over other contents.
    let layout = layout();
    let stolen = good()[layout.holder - SIGNATURE_BYTES..layout.holder].to_vec();
    forgery.holder = Box::new(move |bytes| bytes.extend_from_slice(&stolen));
    verify(&forgery.bytes()).expect("the stolen signature is good where it was made");
    let forgery = forgery.body(|b| b.static_key = identity(2).static_public());
    assert_eq!(forgery.refusal(), claimed);
    // Over the same contents, under another ticket.
    let forgery = forgery.body(|_| ()).delegation(|d| d.roles = Roles::ALL);
    assert_eq!(forgery.refusal(), claimed);
}

#[test]
fn a_weak_node_key_proves_nothing() {
    let mut weak = [0; 32];
    weak[0] = 1;
    let mut forgery = Forgery::new().body(|b| b.signing_key = weak);
    forgery.holder = Box::new(move |bytes| {
        bytes.extend_from_slice(&weak);
        bytes.extend_from_slice(&[0; 32]);
    });
    assert!(matches!(
        forgery.refusal(),
        CertificateError::IdentityNotProven { .. }
    ));
}

#[test]
fn a_malleated_signature_is_refused_at_each_place() {
    let (good, layout) = (good(), layout());
    let malleated = |end: usize| {
        let mut bytes = good.clone();
        malleate(&mut bytes[end - SIGNATURE_BYTES..end]);
        bytes
    };
    assert_eq!(
        refusal(&malleated(layout.delegation)),
        CertificateError::ForgedDelegation
    );
    let ticket = verify(&good).unwrap().ticket_id();
    assert_eq!(
        refusal(&malleated(layout.ticket)),
        CertificateError::Forged { ticket }
    );
    let holder = malleated(layout.holder)[layout.holder - SIGNATURE_BYTES..layout.holder].to_vec();
    let mut forgery = Forgery::new();
    forgery.holder = Box::new(move |bytes| bytes.extend_from_slice(&holder));
    assert_eq!(
        forgery.refusal(),
        CertificateError::IdentityNotProven {
            claimed: identity(1).node_id()
        }
    );
}

#[test]
fn roles_beyond_the_ticket_s_are_refused_by_name() {
    let roles = Roles::ROUTER | Roles::HEAD | Roles::LOGIN;
    let error = Forgery::new().body(|b| b.roles = roles.bits()).refusal();
    assert_eq!(
        error,
        CertificateError::RolesExceedTicket {
            excess: Roles::HEAD | Roles::LOGIN,
            granted: Roles::WORKER | Roles::ROUTER,
        }
    );
    assert!(error.to_string().contains("head,login beyond"), "{error}");
}

#[test]
fn times_beyond_the_ticket_s_are_refused() {
    let granted = delegation().validity;
    let (from, until) = (granted.not_before(), granted.not_after());
    let check = |not_before, not_after| {
        let bytes = Forgery::new()
            .body(|b| (b.not_before, b.not_after) = (not_before, not_after))
            .bytes();
        verify(&bytes).map(|_| ())
    };
    assert_eq!(check(from, until), Ok(()));
    for (not_before, not_after) in [
        (UnixTime(from.0 - 1), until),
        (from, UnixTime(until.0 + 1)),
        (UnixTime(0), UnixTime(u64::MAX)),
    ] {
        assert_eq!(
            check(not_before, not_after),
            Err(CertificateError::ValidityExceedsTicket {
                claimed: Validity::new(not_before, not_after).unwrap(),
                granted,
            })
        );
    }
}

#[test]
fn it_holds_from_a_day_before_its_beginning_until_its_end() {
    let check = |now| Certificate::verify(&good(), &facts(), now).map(|_| ());
    let request = request();
    let (from, when) = (request.not_before, request.not_after);
    assert_eq!(check(when), Err(CertificateError::Expired { when }));
    assert_eq!(check(UnixTime(when.0 - 1)), Ok(()));
    assert_eq!(check(UnixTime(from.0 - 86_400)), Ok(()));
    let early = check(UnixTime(from.0 - 86_401));
    assert_eq!(early, Err(CertificateError::NotYetValid { when: from }));
    let held = verify(&good()).unwrap();
    assert_eq!(held.check(NOW), Ok(()));
    let error = held.check(when).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the certificate expired on 2027-01-22 08:00:00 UTC"
    );
}

#[test]
fn a_fixed_address_must_be_one_that_a_node_may_have() {
    for (address, message) in [
        ([10, 127, 0, 5], "outside the pool's range 10.128.0.0/9"),
        ([10, 128, 0, 0], "the network address"),
        ([10, 128, 0, 1], "the control address"),
        ([10, 255, 255, 255], "the broadcast address"),
    ] {
        let forgery = Forgery::new().body(|b| b.fixed_address = Some(address));
        let error = forgery.refusal();
        assert!(matches!(error, CertificateError::Address(_)));
        assert!(error.to_string().contains(message), "{error}");
    }
    verify(&Forgery::new().body(|b| b.fixed_address = None).bytes()).unwrap();
}

#[test]
fn signed_nonsense_is_malformed() {
    let long = "n".repeat(64);
    let cases: [(&str, Spoil); 8] = [
        ("its name", &|b| b.name = String::new()),
        ("its name", &|b| b.name = "Router".to_owned()),
        ("its name", &|b| b.name = "a.b".to_owned()),
        ("its name", &|b| b.name = long.clone()),
        ("its roles", &|b| b.roles = 0),
        ("its roles", &|b| b.roles |= 16),
        ("its validity", &|b| b.not_after = b.not_before),
        ("its validity", &|b| b.not_before = UnixTime(u64::MAX)),
    ];
    for (what, change) in cases {
        let error = Forgery::new().body(change).refusal();
        assert_eq!(error, CertificateError::Malformed { what });
    }
    let error = Forgery::new()
        .delegation(|d| d.roles = Roles::NONE)
        .refusal();
    let what = "the roles of its delegation";
    assert_eq!(error, CertificateError::Malformed { what });
}

#[test]
fn a_second_encoding_of_the_same_body_is_malformed() {
    let mut forgery = Forgery::new();
    // The name's length, which fits one byte, in two.
    assert_eq!(forgery.body[64], 20);
    forgery.body.splice(64..65, [20 | 0x80, 0]);
    let what = "its body";
    assert_eq!(forgery.refusal(), CertificateError::Malformed { what });
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused(bytes: Vec<u8>) {
        prop_assert!(verify(&bytes).is_err());
        prop_assert!(verify(&[&[VERSION], bytes.as_slice()].concat()).is_err());
    }

    #[test]
    fn a_certificate_with_anything_spliced_in_is_refused(
        from: proptest::sample::Index,
        length in 0usize..80,
        insert in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let good = good();
        let from = from.index(good.len());
        let mut bytes = good.clone();
        bytes.splice(from..(from + length).min(good.len()), insert);
        prop_assert_eq!(verify(&bytes).is_ok(), bytes == good);
    }
}
