//! `-v`: variables for the job, `NAME`, `NAME=VALUE`, separated by commas.
//!
//! A comma within a value is quoted: `A="x,y"`, `A='x,y'` or `A=x\,y`. Quotes elsewhere in a value are
//! part of it, so JSON and shell fragments arrive as they are.

use std::ffi::{OsStr, OsString};

use crate::failure::Failure;

/// One entry of the list: a name, and a value unless it is to come from the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    /// What it is called in the job.
    pub name: String,
    /// `None`: as it is where qsub runs.
    pub value: Option<String>,
}

/// Parses a list.
pub fn parse(text: &str) -> Result<Vec<Variable>, Failure> {
    let mut variables = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find([',', '=']).unwrap_or(rest.len());
        let name = &rest[..end];
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(Failure::illegal('v'));
        }
        rest = &rest[end..];
        let value = match rest.strip_prefix('=') {
            Some(behind) => {
                let (value, behind) = take_value(behind);
                rest = behind;
                Some(value)
            }
            None => None,
        };
        rest = rest.strip_prefix(',').unwrap_or(rest);
        variables.push(Variable {
            name: name.to_owned(),
            value,
        });
    }
    Ok(variables)
}

/// What `-V` hands on: everything but what belongs to this process or to a job that it runs in.
pub fn of_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| is_portable(name))
}

fn is_portable(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    !(name == "_"
        || name == "PWD"
        || name == "OLDPWD"
        || name == "SHLVL"
        || ["SLURM", "SBATCH_", "SALLOC_", "SRUN_", "PBS_"]
            .iter()
            .any(|prefix| name.starts_with(prefix)))
}

/// A value, and what follows it.
fn take_value(text: &str) -> (String, &str) {
    if let Some(quote) = text
        .chars()
        .next()
        .filter(|letter| matches!(letter, '"' | '\''))
        && let Some((inside, behind)) = text[1..].split_once(quote)
        && (behind.is_empty() || behind.starts_with(','))
    {
        return (inside.to_owned(), behind);
    }
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((position, letter)) = letters.next() {
        match letter {
            ',' => return (value, &text[position..]),
            '\\' if text[position..].starts_with("\\,") => {
                letters.next();
                value.push(',');
            }
            _ => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &[(&str, Option<&str>)]) {
        let parsed = parse(text).unwrap();
        let parsed: Vec<_> = parsed
            .iter()
            .map(|variable| (&*variable.name, variable.value.as_deref()))
            .collect();
        assert_eq!(parsed, expected, "{text}");
    }

    #[test]
    fn names_and_values() {
        check(
            "A,B=2,C=",
            &[("A", None), ("B", Some("2")), ("C", Some(""))],
        );
        check("A=x=y", &[("A", Some("x=y"))]);
        check("A=one\ntwo,B", &[("A", Some("one\ntwo")), ("B", None)]);
    }

    #[test]
    fn commas_within_values_are_quoted() {
        check(
            r#"A="1,2",B='3,4',C=5\,6"#,
            &[("A", Some("1,2")), ("B", Some("3,4")), ("C", Some("5,6"))],
        );
    }

    #[test]
    fn other_quotes_are_part_of_the_value() {
        check(
            r#"A={"k":1},B=it's,C="half"#,
            &[
                ("A", Some(r#"{"k":1}"#)),
                ("B", Some("it's")),
                ("C", Some("\"half")),
            ],
        );
    }

    #[test]
    fn a_value_needs_a_name() {
        for text in ["=1", ",A", "A,,B", "A B=1"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_parsed_or_refused(text in "([AB=,\\\\'\"é]){0,16}") {
            let _ = parse(&text);
        }
    }
}
