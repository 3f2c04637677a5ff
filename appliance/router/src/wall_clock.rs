//! The wall clock, which the overlay may not read itself.

use std::time::SystemTime;

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
