//! For fuzzers: texts whose checksum is right, so that what lies behind it is reached.

use super::{armour, authority, ticket};

/// The text of a ticket with this payload.
pub fn ticket_text(payload: &[u8]) -> String {
    armour::encode(ticket::KIND, payload)
}

/// The text of a pool file with this payload.
pub fn pool_text(payload: &[u8]) -> String {
    armour::encode(authority::KIND, payload)
}

/// The payload in a text of either kind.
pub fn payload(text: &str) -> Option<Vec<u8>> {
    let kinds = [ticket::KIND, authority::KIND];
    let payload = kinds
        .iter()
        .find_map(|kind| armour::decode(kind, text).ok());
    payload.map(|bytes| bytes.to_vec())
}
