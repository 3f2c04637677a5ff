//! Counts of tests, and how they are read from what `cargo test` prints.

/// How many tests passed, failed and were not run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Passed.
    pub passed: u32,
    /// Failed.
    pub failed: u32,
    /// Not run.
    pub skipped: u32,
}

impl Count {
    /// One test that passed or failed.
    pub fn one(passed: bool) -> Self {
        Self {
            passed: u32::from(passed),
            failed: u32::from(!passed),
            skipped: 0,
        }
    }

    /// The sum of both.
    pub fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
        }
    }

    /// The count of a whole `cargo test` run from its output. A run that failed although no test
    /// did (it was not compiled, or a test killed its process) counts as one failure more.
    pub fn of_cargo_test(output: &str, succeeded: bool) -> Self {
        let count = output
            .lines()
            .filter_map(result_line)
            .fold(Self::default(), Self::plus);
        match succeeded || count.failed > 0 {
            true => count,
            false => Self { failed: 1, ..count },
        }
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s`
fn result_line(line: &str) -> Option<Count> {
    let rest = line.trim_start().strip_prefix("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let mut count = Count::default();
    for part in counts.split("; ") {
        let Some((number, what)) = part.split_once(' ') else {
            continue;
        };
        let slot = match what {
            "passed" => &mut count.passed,
            "failed" => &mut count.failed,
            "ignored" => &mut count.skipped,
            _ => continue,
        };
        *slot = number.parse().ok()?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "running 4 tests\ntest a ... ok\n\n\
        test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s\n\n\
        test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2s\n";

    fn check(output: &str, succeeded: bool, passed: u32, failed: u32, skipped: u32) {
        let expected = Count {
            passed,
            failed,
            skipped,
        };
        assert_eq!(Count::of_cargo_test(output, succeeded), expected);
    }

    #[test]
    fn all_binaries_are_summed() {
        check(OUTPUT, false, 4, 2, 1);
    }

    #[test]
    fn a_failure_without_a_failed_test_counts() {
        check("error[E0001]: x\n", false, 0, 1, 0);
        check(
            OUTPUT.split("\n\ntest result: FAILED").next().unwrap(),
            false,
            3,
            1,
            1,
        );
    }

    #[test]
    fn the_last_line_counts_all() {
        let count = Count {
            passed: 12,
            failed: 0,
            skipped: 0,
        };
        assert_eq!(count.to_string(), "12 passed, 0 failed");
        assert_eq!(
            Count {
                skipped: 1,
                ..count
            }
            .to_string(),
            "12 passed, 0 failed, 1 skipped"
        );
    }
}
