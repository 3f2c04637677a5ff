//! What PBS knows of a job and Slurm has no field for: a line of JSON in the job's comment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What tells our comments from others.
const MARK: &str = "pbs:";

/// Slurm refuses longer comments.
const MAX_LENGTH: usize = 1000;

/// What qsub notes about a job. The keys are short because the comment is.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Note {
    /// The resources as they were asked for.
    #[serde(rename = "l", skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, String>,
    /// Where qsub ran.
    #[serde(rename = "w", skip_serializing_if = "String::is_empty")]
    pub directory: String,
    /// `-j`, `-k`, `-m` as they were given.
    #[serde(rename = "j", skip_serializing_if = "String::is_empty")]
    pub join: String,
    /// The array's indices.
    #[serde(rename = "t", skip_serializing_if = "String::is_empty")]
    pub array: String,
    /// Whether the array was asked for in Torque's way.
    #[serde(rename = "d", skip_serializing_if = "std::ops::Not::not")]
    pub torque: bool,
    /// `-P`.
    #[serde(rename = "P", skip_serializing_if = "String::is_empty")]
    pub project: String,
}

impl Note {
    /// The comment. One that is too long is left out: it is for people who look.
    pub fn comment(&self) -> Option<String> {
        let json = serde_json::to_string(self).ok()?;
        let comment = format!("{MARK}{json}");
        (comment.len() <= MAX_LENGTH).then_some(comment)
    }

    /// The note in a comment; an empty one if it is not ours.
    pub fn read(comment: &str) -> Self {
        comment
            .strip_prefix(MARK)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_and_other_comments_are_not_notes() {
        let mut note = Note {
            directory: "/home/a b".into(),
            torque: true,
            ..Note::default()
        };
        note.resources.insert("nodes".into(), "2:ppn=4".into());
        assert_eq!(Note::read(&note.comment().unwrap()), note);
        assert_eq!(Note::read("mine"), Note::default());
        assert_eq!(Note::read("pbs:{"), Note::default());
        note.directory = "x".repeat(2000);
        assert_eq!(note.comment(), None);
    }
}
