//! Tickets, pool files, certificates, identities, and the words of which they are made.

use std::hint::black_box;

use wow_overlay::id::NodeId;
use wow_overlay::membership::revocation::{Revocation, Revoked};
use wow_overlay::membership::{
    Certificate, Identity, NodeName, PoolAuthority, PoolName, Roles, SeedAddr, Ticket, TicketLabel,
    fuzzing,
};

use super::{TEXT_BYTES_MAX, member, text, texts};
use crate::Target;

/// Beyond the longest of each kind.
const PAYLOAD_BYTES_MAX: usize = 2048;

pub(super) const TICKET: Target = Target {
    name: "ticket",
    input_bytes_max: TEXT_BYTES_MAX + 8,
    run: |input| {
        if let Some(text) = text(input) {
            ticket(text);
        }
    },
    seeds: || texts(&[&member::pool().ticket.encode()]),
};

pub(super) const TICKET_PAYLOAD: Target = Target {
    name: "ticket-payload",
    input_bytes_max: PAYLOAD_BYTES_MAX,
    run: |input| ticket(&fuzzing::ticket_text(input)),
    seeds: || {
        fuzzing::payload(&member::pool().ticket.encode())
            .into_iter()
            .collect()
    },
};

pub(super) const POOL_FILE: Target = Target {
    name: "pool-file",
    input_bytes_max: TEXT_BYTES_MAX + 8,
    run: |input| {
        if let Some(text) = text(input) {
            pool_file(text);
        }
    },
    seeds: || texts(&[&member::pool().authority.encode()]),
};

pub(super) const POOL_PAYLOAD: Target = Target {
    name: "pool-payload",
    input_bytes_max: PAYLOAD_BYTES_MAX,
    run: |input| pool_file(&fuzzing::pool_text(input)),
    seeds: || {
        fuzzing::payload(&member::pool().authority.encode())
            .into_iter()
            .collect()
    },
};

pub(super) const CERTIFICATE: Target = Target {
    name: "certificate",
    input_bytes_max: 1024,
    run: certificate,
    seeds: || {
        let members = member::pool().members.iter();
        members
            .map(|(_, certificate)| certificate.bytes().to_vec())
            .collect()
    },
};

pub(super) const REVOCATION: Target = Target {
    name: "revocation",
    input_bytes_max: 512,
    run: |input| {
        let facts = member::pool().authority.facts();
        match Revocation::verify(input, facts) {
            Ok(revocation) => assert_eq!(revocation.bytes(), input),
            Err(error) => said(&error),
        }
        if let Some(text) = text(input)
            && let Ok(revocation) = Revocation::parse(text, facts)
        {
            assert_eq!(revocation.encode(), text.trim_ascii(), "it has one form");
        }
    },
    seeds: || {
        let node = member::pool().members[2].0.node_id();
        let revocation = member::pool().authority.revoke(Revoked::Node(node));
        vec![
            revocation.bytes().to_vec(),
            revocation.encode().into_bytes(),
        ]
    },
};

pub(super) const IDENTITY: Target = Target {
    name: "identity",
    input_bytes_max: 256,
    run: |input| {
        if let Ok(identity) = Identity::from_bytes(input) {
            assert_eq!(*identity.to_bytes(), *input, "an identity has one form");
        }
    },
    seeds: || vec![member::pool().members[0].0.to_bytes().to_vec()],
};

pub(super) const WORDS: Target = Target {
    name: "words",
    input_bytes_max: 300,
    run: words,
    seeds: || {
        let words = [
            "seed.example.org:4001",
            "[2001:db8::1]:4001",
            "192.0.2.1:80",
            "node-1",
        ];
        let roles = [
            "router,worker",
            "all",
            "00112233445566778899aabbccddeeff00112233",
        ];
        [texts(&words), texts(&roles)].concat()
    },
};

fn ticket(text: &str) {
    match Ticket::parse(text) {
        Ok(ticket) => {
            assert_eq!(ticket.encode(), text.trim_ascii(), "a ticket has one form");
            assert!(ticket.check(ticket.not_before()).is_ok());
            ticket.summary();
        }
        Err(error) => said(&error),
    }
}

fn pool_file(text: &str) {
    match PoolAuthority::parse(text) {
        Ok(authority) => assert_eq!(authority.encode(), text.trim_ascii(), "it has one form"),
        Err(error) => said(&error),
    }
}

/// What is said of foreign text must not play with a terminal.
fn said(error: &dyn std::error::Error) {
    let message = error.to_string();
    assert!(!message.chars().any(char::is_control), "{message:?}");
}

fn certificate(input: &[u8]) {
    let facts = member::pool().authority.facts();
    match Certificate::verify(input, facts, member::WALL) {
        Ok(certificate) => {
            assert_eq!(certificate.bytes(), input);
            let known = &member::pool().members;
            let issued = known.iter().any(|(_, known)| known.bytes() == input);
            assert!(issued, "only what the ticket signed is believed");
        }
        Err(error) => said(&error),
    }
}

fn words(input: &[u8]) {
    let Some(text) = text(input) else {
        return;
    };
    if let Ok(seed) = text.parse::<SeedAddr>() {
        assert_eq!(seed.as_str().parse::<SeedAddr>(), Ok(seed.clone()));
        assert!(!seed.host().is_empty());
        black_box((seed.port(), seed.remote()));
    }
    if let Ok(id) = text.parse::<NodeId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(roles) = text.parse::<Roles>() {
        assert_eq!(roles.to_string().parse::<Roles>(), Ok(roles));
    }
    if let Ok(name) = NodeName::new(text) {
        assert_eq!(name.as_str(), text);
    }
    // The others are of the same form.
    black_box((PoolName::new(text).is_ok(), TicketLabel::new(text).is_ok()));
}
