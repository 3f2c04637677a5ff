//! The outer datagram: what travels in one UDP datagram, or as the body of a routed packet.
//!
//! Six kinds. Handshake messages end in MACs keyed by the pool, records are sealed by a session. A carrier
//! is a link's record around one of another session: sealed is what says where that goes, not what its
//! own session has sealed. This file knows layouts only; it checks no MAC and decrypts nothing. Numbers are
//! big-endian.
//!
//! ```text
//! every kind     0 kind | 1 version | 2..4 zero, but in a Carrier
//! Init           4..8 sender index | 8 pattern | 9 ciphers offered | 10 favourite | 11 zero
//!                | Noise message 1 | mac1 (16) | mac2 (16, zero when there is no cookie)
//! Response       4..8 receiver index | Noise message 2 | mac1 (16)
//! Final (XX)     4..8 receiver index | Noise message 3 | mac1 (16)
//! Cookie         4..8 receiver index | cookie (16) | tag (16)
//! Record         4..8 receiver index | 8..16 counter | ciphertext | tag (16)
//! Carrier        2..4 length of the ciphertext | 4..8 receiver index | 8..16 counter
//!                | ciphertext | tag (16) | a Record
//! ```

/// Version of this format, the second byte of every datagram.
pub const VERSION: u8 = 1;
/// Length of a MAC, of a cookie and of an AEAD tag.
pub const MAC_BYTES: usize = 16;
/// Largest handshake datagram: passes every path that IPv6 admits, even inside a routed packet.
pub const HANDSHAKE_MAX_BYTES: usize = 1200;
/// Header of an Init; wholly part of the Noise prologue.
pub const INIT_HEADER_BYTES: usize = 12;
/// Header of the other handshake kinds.
pub const REPLY_HEADER_BYTES: usize = 8;
/// Header of a record; wholly its associated data.
pub const RECORD_HEADER_BYTES: usize = 16;
/// What sealing adds to a plaintext.
pub const RECORD_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + MAC_BYTES;
/// Size of a Cookie datagram, below that of any Init: a cookie never amplifies.
pub const COOKIE_BYTES: usize = REPLY_HEADER_BYTES + 2 * MAC_BYTES;
/// Size of every XX Init. Its Noise payload is zeros up to this size, so that a replayed one whose
/// source address is forged cannot draw a much larger Response onto a victim.
pub const XX_INIT_BYTES: usize = 800;

/// Bytes of an X25519 public key.
const KEY_BYTES: usize = 32;
/// Noise IK message 1 with an empty payload: e, encrypted s, tag.
const IK_NOISE_MIN_BYTES: usize = KEY_BYTES + KEY_BYTES + 2 * MAC_BYTES;
/// Noise message 2 with an empty payload in IK, the shorter pattern: e, tag.
const RESPONSE_NOISE_MIN_BYTES: usize = KEY_BYTES + MAC_BYTES;
/// Noise XX message 3 with an empty payload: encrypted s, tag.
const FINAL_NOISE_MIN_BYTES: usize = KEY_BYTES + 2 * MAC_BYTES;

const KIND_INIT: u8 = 1;
const KIND_RESPONSE: u8 = 2;
const KIND_FINAL: u8 = 3;
const KIND_COOKIE: u8 = 4;
const KIND_RECORD: u8 = 5;
const KIND_CARRIER: u8 = 6;

/// How every record begins.
const RECORD_START: [u8; 4] = [KIND_RECORD, VERSION, 0, 0];

/// Which Noise pattern an Init opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The initiator knows the responder's static key: one round trip.
    Ik = 1,
    /// It does not: one round trip and a Final.
    Xx = 2,
}

/// Why a datagram is none of ours. The node counts each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OuterError {
    /// Shorter than its kind can be.
    #[error("datagram too short")]
    TooShort,
    /// Longer than its kind can be.
    #[error("handshake datagram too long")]
    TooLong,
    /// A version that this build does not speak.
    #[error("unknown protocol version {0}")]
    UnknownVersion(u8),
    /// A first byte that names no kind.
    #[error("unknown datagram kind {0}")]
    UnknownKind(u8),
    /// Reserved bytes, or padding, that are not zero.
    #[error("reserved bytes are not zero")]
    Reserved,
    /// An Init of an unknown Noise pattern.
    #[error("unknown handshake pattern {0}")]
    UnknownPattern(u8),
    /// A carrier with something else than a record.
    #[error("carrier of no record")]
    CarriesNoRecord,
}

/// A datagram of a known kind and plausible size; nothing in it is authenticated yet.
#[derive(Clone, Copy, Debug)]
pub enum Outer<'a> {
    /// First handshake message.
    Init(Init<'a>),
    /// Second handshake message.
    Response(Response<'a>),
    /// Third handshake message, in XX only.
    Final(Final<'a>),
    /// "Send your Init again, with this": a responder under load.
    Cookie(Cookie<'a>),
    /// A sealed record, or a carrier.
    Record(Record<'a>),
}

/// First handshake message.
#[derive(Clone, Copy, Debug)]
pub struct Init<'a> {
    datagram: &'a [u8],
    pattern: Pattern,
}

/// Second handshake message.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    datagram: &'a [u8],
}

/// Third handshake message of XX.
#[derive(Clone, Copy, Debug)]
pub struct Final<'a> {
    datagram: &'a [u8],
}

/// A cookie for an initiator.
#[derive(Clone, Copy, Debug)]
pub struct Cookie<'a> {
    datagram: &'a [u8],
}

/// A sealed record, or a carrier.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    datagram: &'a [u8],
    /// Bytes after the header that are the session's own.
    sealed_bytes: usize,
}

impl<'a> Outer<'a> {
    /// Sorts `datagram` by kind, strictly: every byte that is not content has its one legal value.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, OuterError> {
        let [kind, version, reserved @ ..] = datagram else {
            return Err(OuterError::TooShort);
        };
        if *version != VERSION {
            return Err(OuterError::UnknownVersion(*version));
        }
        if !matches!(*kind, KIND_INIT..=KIND_CARRIER) {
            return Err(OuterError::UnknownKind(*kind));
        }
        match reserved {
            [0, 0, ..] => {}
            [_, _, ..] if *kind == KIND_CARRIER => {}
            [_, _, ..] => return Err(OuterError::Reserved),
            _ => return Err(OuterError::TooShort),
        }
        match *kind {
            KIND_INIT => Init::parse(datagram).map(Outer::Init),
            KIND_RESPONSE => {
                check_reply(datagram, RESPONSE_NOISE_MIN_BYTES)?;
                Ok(Outer::Response(Response { datagram }))
            }
            KIND_FINAL => {
                check_reply(datagram, FINAL_NOISE_MIN_BYTES)?;
                Ok(Outer::Final(Final { datagram }))
            }
            KIND_COOKIE => match datagram.len() {
                COOKIE_BYTES => Ok(Outer::Cookie(Cookie { datagram })),
                0..COOKIE_BYTES => Err(OuterError::TooShort),
                _ => Err(OuterError::TooLong),
            },
            _ => Record::parse(datagram).map(Outer::Record),
        }
    }
}

/// The receiver index of a record or a carrier, without looking at anything else: the fast path's dispatch.
/// `None` for any other datagram, which then belongs to [`Outer::parse`].
#[inline]
pub fn record_receiver(datagram: &[u8]) -> Option<u32> {
    let is_one = is_record(datagram)
        || datagram.starts_with(&[KIND_CARRIER, VERSION]) && Record::parse(datagram).is_ok();
    is_one.then(|| u32_at(datagram, 4))
}

/// Whether a datagram is a record, and so may be carried.
#[inline]
pub fn is_record(datagram: &[u8]) -> bool {
    datagram.len() >= RECORD_OVERHEAD_BYTES && datagram.starts_with(&RECORD_START)
}

impl<'a> Init<'a> {
    fn parse(datagram: &'a [u8]) -> Result<Self, OuterError> {
        if datagram.len() > HANDSHAKE_MAX_BYTES {
            return Err(OuterError::TooLong);
        }
        if datagram.len() < INIT_HEADER_BYTES + 2 * MAC_BYTES {
            return Err(OuterError::TooShort);
        }
        let pattern = match datagram[8] {
            1 => Pattern::Ik,
            2 => Pattern::Xx,
            other => return Err(OuterError::UnknownPattern(other)),
        };
        if datagram[11] != 0 {
            return Err(OuterError::Reserved);
        }
        let init = Init { datagram, pattern };
        match pattern {
            Pattern::Ik if init.noise().len() < IK_NOISE_MIN_BYTES => Err(OuterError::TooShort),
            Pattern::Xx if datagram.len() < XX_INIT_BYTES => Err(OuterError::TooShort),
            Pattern::Xx if datagram.len() > XX_INIT_BYTES => Err(OuterError::TooLong),
            Pattern::Xx if init.noise()[KEY_BYTES..].iter().any(|byte| *byte != 0) => {
                Err(OuterError::Reserved)
            }
            _ => Ok(init),
        }
    }

    /// The index by which the initiator wants to be answered.
    pub fn sender_index(&self) -> u32 {
        u32_at(self.datagram, 4)
    }

    /// The pattern that this message opens.
    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// The MAC over header and Noise message. Equal for every repetition of one Init, with or
    /// without cookie, so it serves the node as the key by which it recognises repetitions.
    pub fn mac1(&self) -> [u8; MAC_BYTES] {
        mac_from_end(self.datagram, 2 * MAC_BYTES)
    }

    /// The cookie's MAC; zeros when the initiator has no cookie.
    pub fn mac2(&self) -> [u8; MAC_BYTES] {
        mac_from_end(self.datagram, MAC_BYTES)
    }

    /// The initiator's (supported, favourite) ciphers, still unauthenticated.
    pub(crate) fn cipher_bytes(&self) -> [u8; 2] {
        [self.datagram[9], self.datagram[10]]
    }

    /// The header, which the Noise prologue covers.
    pub(crate) fn header(&self) -> [u8; INIT_HEADER_BYTES] {
        let mut header = [0; INIT_HEADER_BYTES];
        header.copy_from_slice(&self.datagram[..INIT_HEADER_BYTES]);
        header
    }

    pub(crate) fn noise(&self) -> &'a [u8] {
        &self.datagram[INIT_HEADER_BYTES..self.datagram.len() - 2 * MAC_BYTES]
    }

    pub(crate) fn before_mac1(&self) -> &'a [u8] {
        &self.datagram[..self.datagram.len() - 2 * MAC_BYTES]
    }

    pub(crate) fn before_mac2(&self) -> &'a [u8] {
        &self.datagram[..self.datagram.len() - MAC_BYTES]
    }
}

/// Accessors that Response and Final share: both are a reply header, a Noise message and a MAC.
macro_rules! reply {
    ($kind:ident) => {
        impl<'a> $kind<'a> {
            /// The index of the party that this message answers.
            pub fn receiver_index(&self) -> u32 {
                u32_at(self.datagram, 4)
            }

            pub(crate) fn noise(&self) -> &'a [u8] {
                &self.datagram[REPLY_HEADER_BYTES..self.datagram.len() - MAC_BYTES]
            }

            pub(crate) fn before_mac1(&self) -> &'a [u8] {
                &self.datagram[..self.datagram.len() - MAC_BYTES]
            }

            /// The MAC over header and Noise message.
            pub fn mac1(&self) -> [u8; MAC_BYTES] {
                mac_from_end(self.datagram, MAC_BYTES)
            }
        }
    };
}

reply!(Response);
reply!(Final);

impl Cookie<'_> {
    /// The index of the initiator that this cookie is for.
    pub fn receiver_index(&self) -> u32 {
        u32_at(self.datagram, 4)
    }

    pub(crate) fn before_tag(&self) -> &[u8] {
        &self.datagram[..COOKIE_BYTES - MAC_BYTES]
    }

    pub(crate) fn cookie(&self) -> [u8; MAC_BYTES] {
        mac_from_end(self.datagram, 2 * MAC_BYTES)
    }

    pub(crate) fn tag(&self) -> [u8; MAC_BYTES] {
        mac_from_end(self.datagram, MAC_BYTES)
    }
}

impl<'a> Record<'a> {
    /// Of a datagram whose first byte says that it is one.
    fn parse(datagram: &'a [u8]) -> Result<Self, OuterError> {
        let after = datagram
            .get(RECORD_HEADER_BYTES..)
            .ok_or(OuterError::TooShort)?;
        let sealed_bytes = match datagram[0] {
            KIND_CARRIER => MAC_BYTES + usize::from(u16::from_be_bytes([datagram[2], datagram[3]])),
            _ => after.len(),
        };
        let Some(carried) = after
            .get(sealed_bytes..)
            .filter(|_| sealed_bytes >= MAC_BYTES)
        else {
            return Err(OuterError::TooShort);
        };
        if datagram[0] == KIND_CARRIER && !is_record(carried) {
            return Err(OuterError::CarriesNoRecord);
        }
        Ok(Record {
            datagram,
            sealed_bytes,
        })
    }

    /// Bytes after the header that are the session's own: the ciphertext and its tag. All there are, unless this
    /// is a carrier.
    pub fn sealed_bytes(&self) -> usize {
        self.sealed_bytes
    }

    /// Whether it is a carrier.
    pub fn carries(&self) -> bool {
        self.datagram[0] == KIND_CARRIER
    }

    /// The index of the session that this record belongs to, at its receiver.
    pub fn receiver_index(&self) -> u32 {
        u32_at(self.datagram, 4)
    }

    /// The record's number.
    pub fn counter(&self) -> u64 {
        let mut counter = [0; 8];
        counter.copy_from_slice(&self.datagram[8..RECORD_HEADER_BYTES]);
        u64::from_be_bytes(counter)
    }
}

pub(crate) fn init_header(
    sender_index: u32,
    pattern: Pattern,
    ciphers: [u8; 2],
) -> [u8; INIT_HEADER_BYTES] {
    let mut header = [0; INIT_HEADER_BYTES];
    header[..2].copy_from_slice(&[KIND_INIT, VERSION]);
    header[4..8].copy_from_slice(&sender_index.to_be_bytes());
    header[8] = pattern as u8;
    header[9..11].copy_from_slice(&ciphers);
    header
}

pub(crate) fn response_header(receiver_index: u32) -> [u8; REPLY_HEADER_BYTES] {
    reply_header(KIND_RESPONSE, receiver_index)
}

pub(crate) fn final_header(receiver_index: u32) -> [u8; REPLY_HEADER_BYTES] {
    reply_header(KIND_FINAL, receiver_index)
}

pub(crate) fn cookie_header(receiver_index: u32) -> [u8; REPLY_HEADER_BYTES] {
    reply_header(KIND_COOKIE, receiver_index)
}

pub(crate) fn record_header(receiver_index: u32, counter: u64) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..8].copy_from_slice(&reply_header(KIND_RECORD, receiver_index));
    header[8..].copy_from_slice(&counter.to_be_bytes());
    header
}

/// The header of a carrier that seals so many bytes.
pub(crate) fn carrier_header(
    receiver_index: u32,
    counter: u64,
    text_bytes: u16,
) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = record_header(receiver_index, counter);
    header[0] = KIND_CARRIER;
    header[2..4].copy_from_slice(&text_bytes.to_be_bytes());
    header
}

fn reply_header(kind: u8, receiver_index: u32) -> [u8; REPLY_HEADER_BYTES] {
    let mut header = [0; REPLY_HEADER_BYTES];
    header[..2].copy_from_slice(&[kind, VERSION]);
    header[4..].copy_from_slice(&receiver_index.to_be_bytes());
    header
}

fn check_reply(datagram: &[u8], noise_min_bytes: usize) -> Result<(), OuterError> {
    if datagram.len() < REPLY_HEADER_BYTES + noise_min_bytes + MAC_BYTES {
        Err(OuterError::TooShort)
    } else if datagram.len() > HANDSHAKE_MAX_BYTES {
        Err(OuterError::TooLong)
    } else {
        Ok(())
    }
}

/// Callers have checked that `datagram` reaches that far.
fn u32_at(datagram: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&datagram[at..at + 4]);
    u32::from_be_bytes(number)
}

/// The MAC that begins `from_end` bytes before the end; callers have checked the length.
fn mac_from_end(datagram: &[u8], from_end: usize) -> [u8; MAC_BYTES] {
    let start = datagram.len() - from_end;
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&datagram[start..start + MAC_BYTES]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn error(datagram: &[u8]) -> OuterError {
        Outer::parse(datagram).expect_err("a malformed datagram must be refused")
    }

    #[test]
    fn each_malformation_has_its_own_error() {
        let record = record_header(7, 9);
        assert_eq!(error(&[]), OuterError::TooShort);
        assert_eq!(error(&[KIND_RECORD, VERSION, 0]), OuterError::TooShort);
        assert_eq!(error(&record), OuterError::TooShort);
        assert_eq!(
            error(&[KIND_RECORD, 9, 0, 0]),
            OuterError::UnknownVersion(9)
        );
        assert_eq!(error(&[7, VERSION, 0, 0]), OuterError::UnknownKind(7));
        assert_eq!(error(&[0, VERSION, 0, 0]), OuterError::UnknownKind(0));
        assert_eq!(error(&[KIND_INIT, VERSION, 0, 1]), OuterError::Reserved);
        assert_eq!(error(&[KIND_RECORD, VERSION, 0, 1]), OuterError::Reserved);
        let mut init = vec![0; XX_INIT_BYTES];
        init[..INIT_HEADER_BYTES].copy_from_slice(&init_header(1, Pattern::Xx, [3, 1]));
        assert!(matches!(Outer::parse(&init), Ok(Outer::Init(_))));
        assert_eq!(error(&init[..XX_INIT_BYTES - 1]), OuterError::TooShort);
        init[8] = 3;
        assert_eq!(error(&init), OuterError::UnknownPattern(3));
        init[8] = 2;
        init[INIT_HEADER_BYTES + KEY_BYTES] = 1;
        assert_eq!(error(&init), OuterError::Reserved);
        let mut long = vec![0; HANDSHAKE_MAX_BYTES + 1];
        long[..REPLY_HEADER_BYTES].copy_from_slice(&response_header(1));
        assert_eq!(error(&long), OuterError::TooLong);
    }

    #[test]
    fn a_record_is_dispatched_by_its_receiver() {
        let mut record = vec![0; RECORD_OVERHEAD_BYTES];
        record[..RECORD_HEADER_BYTES].copy_from_slice(&record_header(0x0102_0304, 0x0506));
        assert_eq!(record_receiver(&record), Some(0x0102_0304));
        let Ok(Outer::Record(parsed)) = Outer::parse(&record) else {
            panic!("a record must parse as one");
        };
        assert_eq!(
            (parsed.receiver_index(), parsed.counter()),
            (0x0102_0304, 0x0506)
        );
        assert_eq!(record_receiver(&record[..RECORD_OVERHEAD_BYTES - 1]), None);
    }

    #[test]
    fn a_carrier_holds_a_record_and_nothing_else() {
        let inner = [&record_header(5, 6)[..], &[0; MAC_BYTES + 7]].concat();
        let carrier = |text: usize, carried: &[u8]| {
            let header = carrier_header(1, 2, 3);
            [&header[..], &vec![0; text + MAC_BYTES], carried].concat()
        };
        let whole = carrier(3, &inner);
        assert_eq!(record_receiver(&whole), Some(1));
        let Ok(Outer::Record(parsed)) = Outer::parse(&whole) else {
            panic!("a carrier must parse as one");
        };
        assert!(parsed.carries());
        assert_eq!(
            (parsed.counter(), parsed.sealed_bytes()),
            (2, 3 + MAC_BYTES)
        );
        // A length that lies, nothing, a carrier, and a handshake in it.
        assert_eq!(error(&carrier(4, &inner)), OuterError::CarriesNoRecord);
        assert_eq!(error(&carrier(3, &[])), OuterError::CarriesNoRecord);
        assert_eq!(error(&carrier(3, &whole)), OuterError::CarriesNoRecord);
        let response = [&response_header(1)[..], &[0; 64]].concat();
        assert_eq!(error(&carrier(3, &response)), OuterError::CarriesNoRecord);
        assert_eq!(error(&whole[..30]), OuterError::TooShort);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_dispatch_agrees_with_parsing(
            kind in 0u8..9, tail in proptest::collection::vec(any::<u8>(), 0..1300), zero: bool,
        ) {
            let mut datagram = vec![kind, VERSION];
            if zero { datagram.extend([0, 0]); }
            datagram.extend(tail);
            let parsed = Outer::parse(&datagram);
            let receiver = match parsed { Ok(Outer::Record(r)) => Some(r.receiver_index()), _ => None };
            prop_assert_eq!(record_receiver(&datagram), receiver);
        }
    }
}
