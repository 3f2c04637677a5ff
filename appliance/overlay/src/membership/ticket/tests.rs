//! Tests of tickets: each refusal by name, and what is never shown.

use proptest::prelude::*;

use super::*;
use crate::membership::fixtures::*;
use crate::membership::label::{NodeName, PoolName};
use crate::membership::pool::{DEFAULT_RANGE, PoolKey};

fn ticket() -> Ticket {
    let label = Some(TicketLabel::new("lab-3").unwrap());
    Ticket::issue(&ca(), &facts(), &delegation(), label, &ticket_key()).unwrap()
}

fn refusal(payload: &[u8]) -> TicketError {
    Ticket::parse(&armour::encode(KIND, payload)).unwrap_err()
}

#[test]
fn a_ticket_survives_its_text_with_white_space_around() {
    let text = format!("\n  {}\r\n", ticket().encode());
    let ticket = Ticket::parse(&text).unwrap();
    assert_eq!(ticket.id(), super::tests::ticket().id());
    assert_eq!(ticket.label().unwrap().as_str(), "lab-3");
    assert_eq!(ticket.roles(), Roles::WORKER | Roles::ROUTER);
    assert_eq!(ticket.not_before(), delegation().validity.not_before());
    assert_eq!(ticket.not_after(), delegation().validity.not_after());
    assert_eq!(ticket.facts().summary(), facts().summary());
    assert_eq!(ticket.facts().key.0, facts().key.0);
    assert_eq!(ticket.encode(), text.trim());
    ticket.check(NOW).unwrap();
    ticket.check_pool(facts().pool_id()).unwrap();
}

#[test]
fn sizes_stay_within_bounds() {
    let usual = ticket().encode().len();
    let seed = |n| format!("{}{n}.example.org:65535", "abcdefg.".repeat(29));
    let facts = PoolFacts::new(
        PoolName::new(&"p".repeat(63)).unwrap(),
        ca().verifying_key().to_bytes(),
        PoolKey([1; 32]),
        DEFAULT_RANGE,
        (10..18).map(|n| seed(n).parse().unwrap()).collect(),
    )
    .unwrap();
    let label = Some(TicketLabel::new(&"l".repeat(63)).unwrap());
    let longest = Ticket::issue(&ca(), &facts, &delegation(), label, &ticket_key()).unwrap();
    let longest = longest.encode();
    println!(
        "ticket: {usual} characters, at most about {}",
        longest.len()
    );
    assert!(usual <= 500 && longest.len() <= TEXT_BYTES_MAX);
    Ticket::parse(&longest).unwrap();
}

#[test]
fn a_ticket_makes_certificates_within_its_limits() {
    let (ticket, node) = (ticket(), identity(1));
    let certificate = ticket.certify(&node, &request()).unwrap();
    assert!(certificate.is_of(&node));
    assert_eq!(certificate.ticket_id(), ticket.id());
    let again = Certificate::verify(certificate.bytes(), &facts(), NOW).unwrap();
    assert_eq!(again, certificate);

    let mut wanted = request();
    wanted.roles = Roles::HEAD;
    let error = ticket.certify(&node, &wanted).unwrap_err();
    assert!(matches!(error, CertificateError::RolesExceedTicket { .. }));
    wanted = request();
    wanted.not_after = UnixTime(ticket.not_after().0 + 1);
    let error = ticket.certify(&node, &wanted).unwrap_err();
    assert!(matches!(
        error,
        CertificateError::ValidityExceedsTicket { .. }
    ));
    wanted = request();
    wanted.not_after = wanted.not_before;
    let error = ticket.certify(&node, &wanted).unwrap_err();
    assert!(matches!(error, CertificateError::Malformed { .. }));
    wanted = request();
    wanted.fixed_address = Some([10, 128, 0, 1].into());
    let error = ticket.certify(&node, &wanted).unwrap_err();
    assert!(matches!(error, CertificateError::Address(_)));
    wanted = request();
    wanted.name = NodeName::new(&"n".repeat(63)).unwrap();
    wanted.fixed_address = None;
    ticket.certify(&node, &wanted).unwrap();
}

#[test]
fn every_cut_and_every_mistyped_character_is_told_from_forgery() {
    let text = ticket().encode();
    for found in 1..text.len() {
        let error = Ticket::parse(&text[..found]).unwrap_err();
        assert_eq!(error, TicketError::Truncated { found });
    }
    for at in "wow-ticket-1.".len()..text.len() {
        let typo = if &text[at..=at] == "x" { "y" } else { "x" };
        let mut text = text.clone();
        text.replace_range(at..=at, typo);
        let error = Ticket::parse(&text).unwrap_err();
        let fits = matches!(error, TicketError::Damaged | TicketError::Truncated { .. });
        assert!(fits, "character {at}: {error}");
    }
}

#[test]
fn every_flipped_bit_under_a_good_checksum_is_forgery() {
    let good = ticket().bytes;
    let secret = good.len() - 32;
    for bit in 0..8 * good.len() {
        let mut bytes = good.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = refusal(&bytes);
        let fits = if bit / 8 < secret {
            matches!(
                error,
                TicketError::Forged { .. } | TicketError::Malformed { .. }
            )
        } else {
            error == TicketError::ForeignSecret
        };
        assert!(fits, "byte {}: {error}", bit / 8);
    }
}

#[test]
fn every_shorter_or_longer_payload_under_a_good_checksum_is_malformed() {
    let good = ticket().bytes;
    for length in 0..good.len() {
        let error = refusal(&good[..length]);
        assert!(matches!(error, TicketError::Malformed { .. }), "{error}");
    }
    let error = refusal(&[good.as_slice(), &[0]].concat());
    assert!(matches!(error, TicketError::Malformed { .. }), "{error}");
}

#[test]
fn a_malleated_signature_is_forgery() {
    let ticket = ticket();
    let mut bytes = ticket.bytes.to_vec();
    malleate(&mut bytes[ticket.delegation_bytes - 64..ticket.delegation_bytes]);
    let error = refusal(&bytes);
    assert!(
        error.to_string().contains("its key, roles and validity"),
        "{error}"
    );
    let mut bytes = ticket.bytes.to_vec();
    let secret = bytes.len() - 32;
    malleate(&mut bytes[secret - 64..secret]);
    let error = refusal(&bytes);
    assert!(
        error.to_string().contains("its facts about the pool"),
        "{error}"
    );
}

#[test]
fn nobody_else_can_sign_for_the_ca() {
    let stranger = SigningKey::from_bytes(&[0xbd; 32]);
    let issue = |ca: &SigningKey, facts: &PoolFacts| {
        Ticket::issue(ca, facts, &delegation(), None, &ticket_key()).unwrap_err()
    };
    let pool = facts().pool_id();
    let what = "its key, roles and validity";
    assert_eq!(
        issue(&stranger, &facts()),
        TicketError::Forged { pool, what }
    );
    // A CA of the stranger's own, under our pool's identifier.
    let what = "it under the key that it names";
    assert_eq!(
        issue(&stranger, &facts_of(&stranger)),
        TicketError::Forged { pool, what }
    );
    // A true delegation with other facts.
    let mut bytes = delegation().sign(&ca());
    let mut facts = facts();
    facts.seeds = vec!["evil.example.org:4001".parse().unwrap()];
    let body = Body {
        label: None,
        facts: FactsBody::new(&facts),
    };
    write_body(&mut bytes, &body);
    write_signature(&mut bytes, Domain::Ticket, &ticket_key());
    bytes.extend_from_slice(ticket_key().as_bytes());
    let what = "its facts about the pool";
    assert_eq!(refusal(&bytes), TicketError::Forged { pool, what });
}

#[test]
fn other_texts_are_named_for_what_they_are() {
    let text = ticket().encode();
    let newer = text.replacen("-1.", "-2.", 1);
    let found = "2".to_owned();
    for (text, expected) in [
        ("", TicketError::NotATicket),
        ("hello", TicketError::NotATicket),
        ("wow-pool-1.AAAA", TicketError::PoolFile),
        (newer.as_str(), TicketError::UnsupportedVersion { found }),
        (&"w".repeat(5000), TicketError::TooLong { found: 5000 }),
        (&text.replacen('.', ". ", 1), TicketError::Damaged),
        (&format!("{text} {text}"), TicketError::Damaged),
    ] {
        assert_eq!(Ticket::parse(text).unwrap_err(), expected, "{text}");
    }
    assert!(
        TicketError::NotATicket
            .to_string()
            .contains("begins with \"wow-ticket-1.\"")
    );
}

#[test]
fn a_ticket_holds_from_a_day_before_its_beginning_until_its_end() {
    let ticket = ticket();
    let (from, when) = (ticket.not_before(), ticket.not_after());
    assert_eq!(ticket.check(UnixTime(from.0 - 86_400)), Ok(()));
    assert_eq!(ticket.check(UnixTime(when.0 - 1)), Ok(()));
    assert_eq!(ticket.check(when), Err(TicketError::Expired { when }));
    let early = ticket.check(UnixTime(from.0 - 86_401)).unwrap_err();
    assert_eq!(early, TicketError::NotYetValid { when: from });
    assert!(
        early
            .to_string()
            .contains("not valid before 2027-01-14 08:00:00 UTC")
    );
    let late = ticket.check(when).unwrap_err().to_string();
    assert!(
        late.contains("expired on 2027-02-13 08:00:00 UTC"),
        "{late}"
    );
}

#[test]
fn a_foreign_pool_is_named() {
    let expected = facts_of(&SigningKey::from_bytes(&[1; 32])).pool_id();
    let found = facts().pool_id();
    let error = ticket().check_pool(expected).unwrap_err();
    assert_eq!(error, TicketError::ForeignPool { expected, found });
    let message = error.to_string();
    assert!(message.contains(&expected.to_string()) && message.contains(&found.to_string()));
}

#[test]
fn debug_and_summary_show_no_secret() {
    let ticket = ticket();
    assert_eq!(
        format!("{ticket:?}"),
        format!(
            "Ticket {{ id: {:?}, roles: {:?}, pool: physics, .. }}",
            ticket.id(),
            ticket.roles()
        )
    );
    // The ticket's secret is made of 0x71, the pool's key of 0xa5.
    let summary = format!("{:?}", ticket.summary());
    for secret in ["113, 113", "7171", "165, 165", "a5a5"] {
        assert!(!summary.contains(secret), "{summary}");
    }
}

proptest! {
    #[test]
    fn arbitrary_text_and_payloads_are_refused(
        text: String,
        payload in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        prop_assert!(Ticket::parse(&text).is_err());
        prop_assert!(Ticket::parse(&armour::encode(KIND, &payload)).is_err());
    }

    #[test]
    fn a_ticket_with_anything_spliced_in_is_refused(
        from: proptest::sample::Index,
        length in 0usize..80,
        insert in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let good = ticket().bytes;
        let from = from.index(good.len());
        let mut bytes = good.to_vec();
        bytes.splice(from..(from + length).min(good.len()), insert);
        let parsed = Ticket::parse(&armour::encode(KIND, &bytes));
        prop_assert_eq!(parsed.is_ok(), bytes == *good);
    }
}
