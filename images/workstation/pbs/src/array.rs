//! The indices of job arrays: `1-10:2`, `1,3,5-7`, `0-99%4`.

use std::fmt;

/// Slurm's own limit lies below (MaxArraySize); this one bounds what we expand.
const MAX_INDEX: u32 = 4_000_000;

/// Sets of indices, in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indices(Vec<Range>);

/// `first-last:step`, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    last: u32,
    step: u32,
}

/// An array as `-t` or `-J` asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Array {
    /// Its indices.
    pub indices: Indices,
    /// How many elements may run at once.
    pub at_once: Option<u32>,
}

impl Array {
    /// Parses `-t`'s or `-J`'s value.
    pub fn parse(text: &str) -> Option<Self> {
        let (indices, at_once) = match text.split_once('%') {
            Some((indices, limit)) => (indices, Some(number(limit).filter(|limit| *limit > 0)?)),
            None => (text, None),
        };
        Some(Self {
            indices: Indices::parse(indices)?,
            at_once,
        })
    }
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.indices)?;
        match self.at_once {
            Some(limit) => write!(f, "%{limit}"),
            None => Ok(()),
        }
    }
}

impl Indices {
    /// Parses indices without a limit.
    pub fn parse(text: &str) -> Option<Self> {
        text.split(',')
            .map(Range::parse)
            .collect::<Option<_>>()
            .map(Self)
    }

    /// Just this one.
    pub fn one(index: u32) -> Self {
        Self(vec![Range {
            first: index,
            last: index,
            step: 1,
        }])
    }

    /// All indices in order, each once.
    pub fn all(&self) -> std::collections::BTreeSet<u32> {
        self.0.iter().flat_map(|range| range.all()).collect()
    }

    /// Whether it holds `index`.
    pub fn contains(&self, index: u32) -> bool {
        self.0.iter().any(|range| {
            (range.first..=range.last).contains(&index)
                && (index - range.first).is_multiple_of(range.step)
        })
    }
}

impl fmt::Display for Indices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            write!(f, "{}", range.first)?;
            if range.last != range.first {
                write!(f, "-{}", range.last)?;
            }
            if range.step != 1 {
                write!(f, ":{}", range.step)?;
            }
        }
        Ok(())
    }
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (range, step) = match text.split_once(':') {
            Some((range, step)) => (range, number(step).filter(|step| *step > 0)?),
            None => (text, 1),
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            // A step without a range says nothing.
            None if step == 1 => (number(range)?, number(range)?),
            None => return None,
        };
        (first <= last).then_some(Self { first, last, step })
    }

    fn all(self) -> impl Iterator<Item = u32> {
        (self.first..=self.last).step_by(self.step as usize)
    }
}

fn number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number <= MAX_INDEX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_steps_lists_and_limits() {
        let array = Array::parse("1-10:3,20%2").unwrap();
        assert_eq!(Vec::from_iter(array.indices.all()), [1, 4, 7, 10, 20]);
        assert_eq!(array.at_once, Some(2));
        assert_eq!(array.to_string(), "1-10:3,20%2");
    }

    #[test]
    fn what_is_no_array_is_refused() {
        for text in [
            "",
            "x",
            "5-1",
            "1-",
            "-1",
            "1-3%",
            "1-3%0",
            "1-3:0",
            "1,,2",
            "1:2",
            "+1",
            "1-99999999",
        ] {
            assert_eq!(Array::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(text in "[-0-9,:%]{0,12}") {
            if let Some(array) = Array::parse(&text) {
                prop_assert_eq!(Array::parse(&array.to_string()), Some(array.clone()));
                let first = array.indices.all().first().copied().unwrap();
                prop_assert!(array.indices.contains(first));
            }
        }
    }
}
