//! The part of a failed step's log that says why: the failed tests' own words, else its end.

/// Lines shown of a log without failed tests.
const TAIL_LINES: usize = 60;

/// Lines shown of each failed test; its end is kept, where the panic is.
const TEST_LINES: usize = 40;

/// The lines of `log` worth reading.
pub fn of(log: &str) -> Vec<&str> {
    let lines: Vec<&str> = log.lines().collect();
    let mut shown = Vec::new();
    let mut rest = lines.as_slice();
    while let Some(start) = rest.iter().position(|line| is_heading(line)) {
        let body = &rest[start + 1..];
        // The next test's words, or the list of names that ends a binary's failures.
        let end = body
            .iter()
            .position(|line| is_heading(line) || *line == "failures:")
            .unwrap_or(body.len());
        shown.push(rest[start]);
        shown.extend(tail(&body[..end], TEST_LINES));
        rest = &body[end..];
    }
    if shown.is_empty() {
        return tail(&lines, TAIL_LINES).to_vec();
    }
    shown
}

/// `---- NAME stdout ----`
fn is_heading(line: &str) -> bool {
    line.strip_prefix("---- ")
        .is_some_and(|rest| rest.ends_with(" ----"))
}

fn tail<'a, 'b>(lines: &'a [&'b str], most: usize) -> &'a [&'b str] {
    &lines[lines.len().saturating_sub(most)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_tests_are_shown_wherever_they_stand() {
        let log = "running 3 tests\ntest a ... ok\n\nfailures:\n\n---- b stdout ----\nwhy b\n\
                   \n---- c stdout ----\nwhy c\n\nfailures:\n    b\n    c\n\n\
                   test result: FAILED.\n\nDoc-tests x\n";
        let expected = [
            "---- b stdout ----",
            "why b",
            "",
            "---- c stdout ----",
            "why c",
            "",
        ];
        assert_eq!(of(log), expected);
    }

    #[test]
    fn a_log_without_failed_tests_is_shown_by_its_end() {
        let log: String = (0..100).map(|n| format!("{n}\n")).collect();
        let shown = of(&log);
        assert_eq!((shown.len(), shown.last()), (TAIL_LINES, Some(&"99")));
    }
}
