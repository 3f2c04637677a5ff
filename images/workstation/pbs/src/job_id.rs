//! Job identifiers: `12.head`, `12[].head` for an array, `12[3].head` for one of its elements.

use std::fmt;

use crate::array::Indices;
use crate::failure::Failure;
use crate::site;

/// Which part of a job an identifier names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// `12`: the job, or the array if it is one.
    Whole,
    /// `12[]`: the array.
    Array,
    /// `12[3]`, `12[1-5]`: elements of the array.
    Elements(Indices),
}

/// An identifier as a user gave it, of this server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobId {
    /// Slurm's number of the job or the array.
    pub number: u32,
    /// What of it.
    pub part: Part,
}

/// Why a text names no job here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotOurs {
    /// It is no identifier at all.
    Malformed,
    /// It names another server.
    Elsewhere,
}

impl JobId {
    /// Parses an identifier; the server may be left out, and may carry a domain.
    pub fn parse(text: &str, server: &str) -> Result<Self, NotOurs> {
        let (sequence, host) = match text.split_once('.') {
            Some((sequence, host)) => (sequence, Some(host)),
            None => (text, None),
        };
        let id = parse_sequence(sequence).ok_or(NotOurs::Malformed)?;
        match host {
            Some("") => Err(NotOurs::Malformed),
            Some(host) if first_label(host) != first_label(server) => Err(NotOurs::Elsewhere),
            _ => Ok(id),
        }
    }

    /// Parses an operand of a command, with PBS's words for what is wrong.
    pub fn operand(text: &str) -> Result<Self, Failure> {
        use crate::failure::Error;
        Self::parse(text, &site::server()).map_err(|error| match error {
            NotOurs::Malformed => {
                Failure::usage(format!("illegally formed job identifier: {text}"))
            }
            NotOurs::Elsewhere => Failure::about(Error::UnknownJob, text),
        })
    }

    /// The identifier with the server's name.
    pub fn full(&self) -> String {
        format!("{self}.{}", site::server())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)?;
        match &self.part {
            Part::Whole => Ok(()),
            Part::Array => f.write_str("[]"),
            Part::Elements(indices) => write!(f, "[{indices}]"),
        }
    }
}

fn parse_sequence(text: &str) -> Option<JobId> {
    let (number, part) = match text.split_once('[') {
        None => (text, Part::Whole),
        Some((number, inside)) => (
            number,
            match inside.strip_suffix(']')? {
                "" => Part::Array,
                indices => Part::Elements(Indices::parse(indices)?),
            },
        ),
    };
    // A sign is no digit, though the parser for numbers would take it.
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(JobId {
        number: number.parse().ok().filter(|number| *number > 0)?,
        part,
    })
}

fn first_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_read_and_written_alike() {
        for text in ["12", "12[]", "12[3]", "12[1-5]", "12[1-5:2,9]"] {
            let id = JobId::parse(&format!("{text}.head"), "head").unwrap();
            assert_eq!(id.to_string(), text);
            assert_eq!(JobId::parse(text, "head"), Ok(id));
        }
    }

    #[test]
    fn a_domain_behind_the_server_changes_nothing() {
        assert!(JobId::parse("1.head.pool.test", "head").is_ok());
        assert!(JobId::parse("1.head", "head.pool.test").is_ok());
        assert_eq!(JobId::parse("1.other", "head"), Err(NotOurs::Elsewhere));
    }

    #[test]
    fn what_is_no_identifier_is_refused() {
        for text in [
            "",
            "x",
            "-1",
            "+1",
            "0",
            "1.",
            "1[",
            "1[x]",
            "1]",
            "99999999999",
            "1 2",
            ".head",
        ] {
            assert_eq!(
                JobId::parse(text, "head"),
                Err(NotOurs::Malformed),
                "{text}"
            );
        }
    }
}
