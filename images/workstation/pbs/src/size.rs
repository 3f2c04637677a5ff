//! Amounts of memory as PBS writes them: `2gb`, `512mb`, `100mw`, plain bytes.

/// A word of memory in PBS's `w` sizes, on the machines of today.
const WORD_BYTES: u64 = 8;

/// Bytes from a size; `None` when it is none.
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let (text, unit) = match text.strip_suffix('w') {
        Some(rest) => (rest, WORD_BYTES),
        None => (text.strip_suffix('b').unwrap_or(&text), 1),
    };
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        b't' => (&text[..text.len() - 1], 40),
        b'p' => (&text[..text.len() - 1], 50),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    number.checked_mul(1 << shift)?.checked_mul(unit)
}

/// The mebibytes that hold `bytes`, at least one: Slurm's unit, where zero means all there is.
pub fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_powers_of_two() {
        for (text, bytes) in [
            ("0", 0),
            ("1000", 1000),
            ("5b", 5),
            ("2kb", 2048),
            ("2K", 2048),
            ("3mb", 3 << 20),
            ("4GB", 4 << 30),
            ("1tb", 1 << 40),
            ("1kw", 8192),
            ("2w", 16),
        ] {
            assert_eq!(parse(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "gb",
            "-1gb",
            "1.5gb",
            "1xb",
            "99999999999pb",
            "1 gb",
            "b",
            "w",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn part_of_a_mebibyte_is_one() {
        assert_eq!([0, 1, 1 << 20, (1 << 20) + 1].map(mebibytes), [1, 1, 1, 2]);
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(text in "\\PC{0,12}") {
            let _ = parse(&text);
        }
    }
}
