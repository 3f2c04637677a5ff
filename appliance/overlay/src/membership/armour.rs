//! The one-line text form of tickets and pool files, which tells a cut-off copy from a mistyped one.
//!
//! `wow-KIND-1.` and then, in base64url: the payload's length in two bytes, the payload, and four
//! bytes of checksum over both. The checksum is against accidents; forgery is for signatures.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

/// Longest text that is looked at.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// The version that is written, and the only one that is read.
const VERSION: &str = "1";
const LENGTH_BYTES: usize = 2;
const CHECK_BYTES: usize = 4;

/// Why a text was refused. What that means to a user is for the caller to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ArmourError {
    NotThis,
    TooLong { found: usize },
    UnsupportedVersion { found: String },
    Truncated { found: usize },
    Damaged,
}

/// Encodes `payload`; `kind` is for example `wow-ticket-`.
pub(super) fn encode(kind: &str, payload: &[u8]) -> String {
    let length = u16::try_from(payload.len()).expect("payloads are bounded well below 64 KiB");
    let mut bytes = Zeroizing::new(length.to_be_bytes().to_vec());
    bytes.extend_from_slice(payload);
    let check = checksum(&bytes);
    bytes.extend_from_slice(&check);
    let mut text = format!("{kind}{VERSION}.");
    BASE64URL_NOPAD.encode_append(&bytes, &mut text);
    text
}

/// The payload of `text`, which may have white space around it.
pub(super) fn decode(kind: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, ArmourError> {
    let text = text.trim_ascii();
    let found = text.len();
    if found > TEXT_BYTES_MAX {
        return Err(ArmourError::TooLong { found });
    }
    if !text.is_empty() && format!("{kind}{VERSION}.").starts_with(text) {
        return Err(ArmourError::Truncated { found });
    }
    let (version, body) = text
        .strip_prefix(kind)
        .and_then(|rest| rest.split_once('.'))
        .ok_or(ArmourError::NotThis)?;
    if version != VERSION {
        let is_number =
            (1..=4).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if is_number {
            ArmourError::UnsupportedVersion {
                found: version.to_owned(),
            }
        } else {
            ArmourError::NotThis
        });
    }
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if !body.bytes().all(is_base64url) {
        return Err(ArmourError::Damaged);
    }
    let head = body.get(..4).ok_or(ArmourError::Truncated { found })?;
    let head = decode_base64url(head)?;
    let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
    let expected = BASE64URL_NOPAD.encode_len(LENGTH_BYTES + length + CHECK_BYTES);
    if body.len() < expected {
        return Err(ArmourError::Truncated { found });
    }
    if body.len() > expected {
        return Err(ArmourError::Damaged);
    }
    let bytes = decode_base64url(body)?;
    let (covered, check) = bytes.split_at(LENGTH_BYTES + length);
    if checksum(covered) != check {
        return Err(ArmourError::Damaged);
    }
    Ok(Zeroizing::new(covered[LENGTH_BYTES..].to_vec()))
}

fn decode_base64url(text: &str) -> Result<Zeroizing<Vec<u8>>, ArmourError> {
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map(Zeroizing::new)
        .map_err(|_| ArmourError::Damaged)
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    *digest(&SHA256, bytes)
        .as_ref()
        .first_chunk()
        .expect("a digest is longer than its beginning")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIND: &str = "wow-test-";

    proptest! {
        #[test]
        fn payloads_come_back(payload in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = format!(" \n{}\r\n", encode(KIND, &payload));
            prop_assert_eq!(decode(KIND, &text).unwrap().to_vec(), payload);
        }

        #[test]
        fn a_text_cut_short_anywhere_is_truncated(
            payload in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let text = encode(KIND, &payload);
            for found in 1..text.len() {
                prop_assert_eq!(
                    decode(KIND, &text[..found]),
                    Err(ArmourError::Truncated { found })
                );
            }
        }

        #[test]
        fn a_mistyped_character_is_noticed(
            payload in proptest::collection::vec(any::<u8>(), 0..60),
            at: proptest::sample::Index,
            replacement in "[a-zA-Z0-9_-]",
        ) {
            let good = encode(KIND, &payload);
            let body = KIND.len() + 2;
            let at = body + at.index(good.len() - body);
            let mut text = good.clone();
            text.replace_range(at..=at, &replacement);
            if text != good {
                let error = decode(KIND, &text).unwrap_err();
                let noticed = matches!(error, ArmourError::Damaged | ArmourError::Truncated { .. });
                prop_assert!(noticed, "{text}: {error:?}");
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text: String, body in "[a-zA-Z0-9_-]{0,20}") {
            let _ = decode(KIND, &text);
            let _ = decode(KIND, &format!("{KIND}1.{text}"));
            let _ = decode(KIND, &format!("{KIND}1.{body}"));
        }
    }

    #[test]
    fn other_kinds_versions_and_lengths_are_told_apart() {
        let good = encode(KIND, b"payload");
        let newer = good.replacen("-1.", "-2.", 1);
        for (text, expected) in [
            (String::new(), ArmourError::NotThis),
            ("hello".to_owned(), ArmourError::NotThis),
            (encode("wow-else-", b"payload"), ArmourError::NotThis),
            (good.replacen("-1.", "-x.", 1), ArmourError::NotThis),
            (good.replacen("-1.", "-12345.", 1), ArmourError::NotThis),
            (newer, ArmourError::UnsupportedVersion { found: "2".into() }),
            (format!("{good}A"), ArmourError::Damaged),
            (format!("{good}="), ArmourError::Damaged),
            (good.replacen("-1.", "-1. ", 1), ArmourError::Damaged),
            ("a".repeat(5000), ArmourError::TooLong { found: 5000 }),
        ] {
            assert_eq!(decode(KIND, &text), Err(expected), "{text}");
        }
    }
}
