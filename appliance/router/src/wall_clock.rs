//! The wall clock, which the overlay may not read itself.

use std::time::SystemTime;

use wow_overlay::membership::CertificateError;
use wow_overlay::time::UnixTime;

/// The wall-clock time; 1970 on machines that believe to live before it.
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime(since.map_or(0, |since| since.as_secs()))
}

/// For people: the date and time in UTC.
pub fn show(time: UnixTime) -> String {
    SystemTime::UNIX_EPOCH
        .checked_add(std::time::Duration::from_secs(time.0))
        .filter(|_| time.0 < 253_402_300_800)
        .map_or_else(
            || "the end of days".into(),
            |time| humantime::format_rfc3339_seconds(time).to_string(),
        )
}

/// How late it is at least by a member's certificate that was refused: its ticket signed that it begins then. One from
/// after the end of this node's own ticket is none, since the node could join nothing by it.
pub fn evidence(refused: &CertificateError, own_end: UnixTime) -> Option<UnixTime> {
    match *refused {
        CertificateError::NotYetValid { when } => (when < own_end).then_some(when),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_begins_within_the_own_ticket_tells_how_late_it_is() {
        let end = UnixTime(1000);
        let early = |when| evidence(&CertificateError::NotYetValid { when }, end);
        assert_eq!(early(UnixTime(999)), Some(UnixTime(999)));
        assert_eq!(early(end), None);
        assert_eq!(early(UnixTime(u64::MAX)), None);
        let expired = CertificateError::Expired {
            when: UnixTime(999),
        };
        assert_eq!(evidence(&expired, end), None);
        assert_eq!(evidence(&CertificateError::ForgedDelegation, end), None);
    }
}
