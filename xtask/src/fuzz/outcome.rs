//! What a run of libFuzzer came to, out of what it said.

use std::fmt;
use std::path::Path;

/// Lines of its end that show what broke.
const TAIL_LINES: usize = 25;

/// One target's run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The target.
    pub name: String,
    /// Whether nothing was found.
    pub passed: bool,
    executions: u64,
    per_second: u64,
    /// Edges of the program that were reached.
    coverage: u64,
    /// Inputs that reach something that the others do not.
    inputs: u64,
    found: Option<String>,
    tail: String,
}

impl Outcome {
    /// Over the lines of outcomes.
    pub const HEADER: &str =
        "TARGET                  EXECUTIONS   PER SECOND   EDGES   INPUTS   FOUND";

    /// Reads what libFuzzer said.
    pub fn read(name: &str, passed: bool, said: &str) -> Outcome {
        let mut outcome = Outcome {
            name: name.to_owned(),
            passed,
            ..Outcome::default()
        };
        for line in said.lines() {
            if let Some((stat, value)) = line.strip_prefix("stat::").and_then(|l| l.split_once(':'))
            {
                let value = value.trim().parse().unwrap_or(0);
                match stat {
                    "number_of_executed_units" => outcome.executions = value,
                    "average_exec_per_sec" => outcome.per_second = value,
                    _ => {}
                }
            } else if let Some((_, path)) = line.split_once("Test unit written to ") {
                outcome.found = Some(path.trim().to_owned());
            } else if let Some(coverage) = number_after(line, "cov: ") {
                outcome.coverage = coverage;
                outcome.inputs = number_after(line, "corp: ").unwrap_or(outcome.inputs);
            }
        }
        let lines: Vec<_> = said.lines().collect();
        outcome.tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
        outcome
    }

    /// What to tell when something was found.
    pub fn failure(&self, program: &Path) -> String {
        let again = match &self.found {
            Some(input) => format!(
                "reproduce: WOW_FUZZ_TARGET={} {} {input}",
                self.name,
                program.display()
            ),
            None => "it left no input".to_owned(),
        };
        format!("{} breaks:\n{}\n{again}", self.name, self.tail)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<22}{:>12}{:>13}{:>8}{:>9}   {}",
            self.name,
            self.executions,
            self.per_second,
            self.coverage,
            self.inputs,
            match (self.passed, &self.found) {
                (true, _) => "nothing",
                (false, Some(input)) => input,
                (false, None) => "it failed",
            }
        )
    }
}

fn number_after(line: &str, mark: &str) -> Option<u64> {
    let (_, rest) = line.split_once(mark)?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_from_its_words() {
        let said = "#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                    #900\tNEW    cov: 57 ft: 80 corp: 31/2Kb lim: 4 exec/s: 0\n\
                    Done 1000 runs in 3 second(s)\n\
                    stat::number_of_executed_units: 1000\n\
                    stat::average_exec_per_sec:     333\n";
        let outcome = Outcome::read("frame", true, said);
        let read = (
            outcome.executions,
            outcome.per_second,
            outcome.coverage,
            outcome.inputs,
        );
        assert_eq!(read, (1000, 333, 57, 31));
        assert!(outcome.to_string().ends_with("nothing"));
    }

    #[test]
    fn a_find_is_told_with_the_command_that_shows_it_again() {
        let said = "thread panicked at src/lib.rs\n\
                    artifact_prefix='x/'; Test unit written to x/frame-crash-1\n";
        let failure = Outcome::read("frame", false, said).failure(Path::new("fuzzer"));
        assert!(failure.contains("panicked"), "{failure}");
        let command = "WOW_FUZZ_TARGET=frame fuzzer x/frame-crash-1";
        assert!(failure.ends_with(command), "{failure}");
    }
}
