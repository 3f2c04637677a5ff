//! PBS's spans (`3600`, `1:00:00`) and dates (`[[[[CC]YY]MM]DD]hhmm[.SS]`).

use jiff::civil::{Date, DateTime, Time};
use jiff::{Span, Timestamp};

/// Ten years: longer spans are mistakes, and Slurm's minutes are 32 bits.
const MAX_SPAN_SECONDS: u64 = 10 * 366 * 86_400;

/// Seconds from `[[[DD:]HH:]MM:]SS[.fraction]`; a fraction counts as a second.
pub fn parse_span(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let fields: Vec<u64> = whole.split(':').map(digits).collect::<Option<_>>()?;
    let weights = [1, 60, 3600, 86_400];
    if fields.len() > weights.len() {
        return None;
    }
    let mut seconds: u64 = 0;
    for (field, weight) in fields.iter().rev().zip(weights) {
        seconds = seconds.checked_add(field.checked_mul(weight)?)?;
    }
    if let Some(fraction) = fraction {
        seconds += u64::from(digits(fraction)? > 0);
    }
    (seconds <= MAX_SPAN_SECONDS).then_some(seconds)
}

/// `HH:MM:SS`, with as many hours as there are.
pub fn format_span(seconds: u64) -> String {
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// The next moment that `[[[[CC]YY]MM]DD]hhmm[.SS]` means: parts that are left out are the next ones that
/// are not over at `now`.
pub fn parse_date(text: &str, now: DateTime) -> Option<DateTime> {
    let (text, second) = match text.split_once('.') {
        Some((text, second)) if second.len() == 2 => (text, small(second)?),
        Some(_) => return None,
        None => (text, 0),
    };
    if !text.bytes().all(|byte| byte.is_ascii_digit()) || text.len() % 2 != 0 {
        return None;
    }
    let (date, clock) = text.split_at_checked(text.len().checked_sub(4)?)?;
    let time = Time::new(small(&clock[..2])?, small(&clock[2..])?, second, 0).ok()?;
    match date.len() {
        0 => next(now, Span::new().days(1), now.date(), time),
        2 => {
            let first = now.date().first_of_month();
            // A month without that day is passed over.
            (0..=2).find_map(|months| {
                let month = first.checked_add(Span::new().months(months)).ok()?;
                let day = Date::new(month.year(), month.month(), small(date)?).ok()?;
                let moment = day.to_datetime(time);
                (moment >= now).then_some(moment)
            })
        }
        4 => {
            let date = Date::new(now.year(), small(&date[..2])?, small(&date[2..])?).ok()?;
            next(now, Span::new().years(1), date, time)
        }
        6 | 8 => {
            let (year, rest) = date.split_at(date.len() - 4);
            let year: i16 = match year.len() {
                // As in touch(1).
                2 => match small(year)? {
                    year @ 69..=99 => 1900 + i16::from(year),
                    year => 2000 + i16::from(year),
                },
                _ => year.parse().ok()?,
            };
            let date = Date::new(year, small(&rest[..2])?, small(&rest[2..])?).ok()?;
            Some(date.to_datetime(time))
        }
        _ => None,
    }
}

/// Now, by the clock on the wall.
pub fn now() -> DateTime {
    jiff::Zoned::now().datetime()
}

/// A moment by the clock on the wall.
pub fn local(seconds: u64) -> Option<DateTime> {
    let moment = Timestamp::from_second(seconds.try_into().ok()?).ok()?;
    Some(moment.to_zoned(jiff::tz::TimeZone::system()).datetime())
}

/// A moment as ctime(3) writes it, in local time.
pub fn format_moment(seconds: i64) -> String {
    let Ok(moment) = Timestamp::from_second(seconds) else {
        return String::new();
    };
    moment
        .to_zoned(jiff::tz::TimeZone::system())
        .strftime("%a %b %e %H:%M:%S %Y")
        .to_string()
}

fn next(now: DateTime, step: Span, date: Date, time: Time) -> Option<DateTime> {
    let moment = date.to_datetime(time);
    if moment >= now {
        return Some(moment);
    }
    moment.checked_add(step).ok()
}

fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn small(text: &str) -> Option<i8> {
    digits(text).and_then(|number| number.try_into().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spans_are_seconds_unless_there_are_colons() {
        for (text, seconds) in [
            ("3600", 3600),
            ("0", 0),
            ("10:00", 600),
            ("1:00:00", 3600),
            ("1:02:03:04", 93_784),
            ("00:00:01.5", 2),
            ("90:00", 5400),
        ] {
            assert_eq!(parse_span(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused() {
        for text in [
            "",
            "x",
            "-1",
            "1:",
            ":1",
            "1:2:3:4:5",
            "1h",
            "1.",
            "99999999999",
            "+5",
        ] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn parts_of_a_date_that_are_left_out_lie_ahead() {
        let now: DateTime = "2026-11-23T10:30:00".parse().unwrap();
        for (text, expected) in [
            ("1031", "2026-11-23T10:31:00"),
            ("1029", "2026-11-24T10:29:00"),
            ("241000", "2026-11-24T10:00:00"),
            ("221000", "2026-12-22T10:00:00"),
            // November has no 31st.
            ("311000", "2026-12-31T10:00:00"),
            ("12010000", "2026-12-01T00:00:00"),
            ("01010000.30", "2027-01-01T00:00:30"),
            ("2701010000", "2027-01-01T00:00:00"),
            ("203001010000", "2030-01-01T00:00:00"),
        ] {
            assert_eq!(
                parse_date(text, now),
                Some(expected.parse().unwrap()),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        let now: DateTime = "2026-11-23T10:30:00".parse().unwrap();
        for text in [
            "",
            "12",
            "2460",
            "1260",
            "123",
            "13011200",
            "1200.",
            "1200.60",
            "1200.5",
            "x200",
            "1234567890123456",
        ] {
            assert_eq!(parse_date(text, now), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(text in "\\PC{0,16}", digits in "[0-9.]{0,16}") {
            let now: DateTime = "2026-11-23T10:30:00".parse().unwrap();
            for text in [text, digits] {
                let _ = (parse_span(&text), parse_date(&text, now));
            }
        }

        #[test]
        fn a_span_survives_being_written(seconds in 0..MAX_SPAN_SECONDS) {
            prop_assert_eq!(parse_span(&format_span(seconds)), Some(seconds));
        }
    }
}
