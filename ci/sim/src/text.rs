//! Durations and percentages as people write them on a command line.

use std::time::Duration;

/// Parses `250ms`, `20s`, `2m` or `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{text}` is no duration: write 250ms, 20s, 2m or 1h"))?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(format!("`{text}` has no unit: write 250ms, 20s, 2m or 1h"));
        }
    };
    number
        .checked_mul(unit_ms)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is too long"))
}

/// Writes what [`parse_duration`] reads, in the largest unit that is exact.
pub fn print_duration(span: Duration) -> String {
    let ms = span.as_millis();
    match ms {
        _ if ms.is_multiple_of(3_600_000) && ms > 0 => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) && ms > 0 => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1_000) => format!("{}s", ms / 1_000),
        _ => format!("{ms}ms"),
    }
}

/// A part of a whole, kept in thousandths so that printing and parsing agree exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share {
    thousandths: u16,
}

impl Share {
    /// Nothing.
    pub const NONE: Share = Share { thousandths: 0 };

    /// `percent` of the whole, at most all of it.
    pub fn percent(percent: u16) -> Self {
        Share {
            thousandths: percent.min(100) * 10,
        }
    }

    /// Parses `5%` or `0.5%`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let complaint = || format!("`{text}` is no share: write 5% or 0.5%, from 0% to 100%");
        let number = text.strip_suffix('%').ok_or_else(complaint)?;
        let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
        let whole: u16 = whole.parse().map_err(|_| complaint())?;
        let tenth: u16 = match tenth.len() {
            1 => tenth.parse().map_err(|_| complaint())?,
            _ => return Err(complaint()),
        };
        if whole > 100 || (whole == 100 && tenth > 0) {
            return Err(complaint());
        }
        Ok(Share {
            thousandths: whole * 10 + tenth,
        })
    }

    /// As a probability.
    pub fn probability(self) -> f64 {
        f64::from(self.thousandths) / 1000.0
    }

    /// This share of `count`, rounded to the nearest, and at least one unless the share is none.
    pub fn of(self, count: usize) -> usize {
        if self.thousandths == 0 {
            return 0;
        }
        ((count * usize::from(self.thousandths) + 500) / 1000).clamp(1, count.max(1))
    }
}

impl std::fmt::Display for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.thousandths / 10, self.thousandths % 10) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, tenth) => write!(f, "{whole}.{tenth}%"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip() {
        for text in ["0s", "1ms", "1500ms", "20s", "2m", "1h"] {
            assert_eq!(print_duration(parse_duration(text).unwrap()), text);
        }
        for text in [
            "",
            "5",
            "s",
            "5 s",
            "5d",
            "99999999999999999999s",
            "99999999999999999h",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_round_trip_and_round() {
        for text in ["0%", "0.5%", "5%", "100%"] {
            assert_eq!(Share::parse(text).unwrap().to_string(), text);
        }
        for text in ["5", "%", "101%", "100.1%", "-1%", "1.25%", "1.%"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
        assert_eq!(Share::percent(20).of(200), 40);
        assert_eq!(Share::percent(1).of(3), 1);
        assert_eq!(Share::NONE.of(3), 0);
    }
}
