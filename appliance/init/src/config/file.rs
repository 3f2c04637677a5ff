//! A file of the image or of the state partition: a flat TOML table of strings (`seeds` may be an array of
//! them).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::{Origin, Problem, Rank, Reading, Setting, Source, printable};

const MAX_BYTES: u64 = 64 * 1024;

/// `wow.toml`.
#[derive(Debug)]
pub struct TableFile {
    path: PathBuf,
    rank: Rank,
}

impl TableFile {
    /// `/etc/wow.toml` of the image.
    pub fn of_image() -> Self {
        Self {
            path: "/etc/wow.toml".into(),
            rank: Rank::Image,
        }
    }

    /// The one on the state partition, mounted at `directory`.
    pub fn of_state(directory: &Path) -> Self {
        Self {
            path: directory.join("wow.toml"),
            rank: Rank::StatePartition,
        }
    }
}

impl Source for TableFile {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn read(&self) -> Reading {
        let name = self.path.display().to_string();
        let mut bytes = Vec::new();
        let read = File::open(&self.path)
            .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        let complaint = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Reading {
                    absent: Some("no such file".into()),
                    ..Reading::default()
                };
            }
            Err(error) => format!("cannot be read: {error}"),
            Ok(_) if bytes.len() as u64 > MAX_BYTES => {
                format!("is longer than {MAX_BYTES} bytes: is it the right file?")
            }
            Ok(_) => match String::from_utf8(bytes) {
                Ok(text) => return parse(&name, &text),
                Err(_) => "is no text (UTF-8)".to_owned(),
            },
        };
        let origin = Origin::new(name, "");
        Reading {
            problems: vec![Problem::Source { origin, complaint }],
            ..Reading::default()
        }
    }

    fn example(&self, key: &str) -> String {
        format!("{}: {key} = \"…\"", self.path.display())
    }
}

pub(super) fn parse(name: &str, text: &str) -> Reading {
    let mut reading = Reading::default();
    let at = |offset: usize, key: &str| {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let place = match key {
            "" => format!("line {line}"),
            key => format!("line {line}, `{}`", printable(key)),
        };
        Origin::new(name, place)
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        // The parser's message describes the syntax and quotes no value; the file's text may hold
        // secrets and is not shown.
        let origin = at(error.span().map_or(0, |span| span.start), "");
        let complaint = format!("{}; each line is KEY = \"VALUE\"", error.message());
        reading.problems.push(Problem::Source { origin, complaint });
    }
    if !errors.is_empty() {
        // What a recovering parser makes of the rest may not be what was meant.
        return reading;
    }
    for (key, value) in table.get_ref() {
        let origin = at(key.span().start, key.get_ref());
        let Some(value) = text_of(value.get_ref()) else {
            let complaint = "has to be text in quotes, or an array of such".to_owned();
            reading.problems.push(Problem::Source { origin, complaint });
            continue;
        };
        reading.push(Setting::new(key.get_ref(), &value, origin));
    }
    reading
}

/// A string, or an array of strings joined by commas.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Array(items) => {
            let texts: Option<Vec<&str>> =
                items.iter().map(|item| item.get_ref().as_str()).collect();
            Some(texts?.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_arrays_of_strings_are_values() {
        let reading = parse("f", "name = \"a\"\nseeds = [\"h:1\", \"i:2\"] # both\n");
        let mut found: Vec<_> = reading
            .entries
            .iter()
            .map(|s| (s.key().name, s.value()))
            .collect();
        found.sort_unstable();
        assert_eq!(found, [("name", "a"), ("seeds", "h:1,i:2")]);
        assert!(reading.problems.is_empty());
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line_and_without_the_value() {
        let check = |text: &str, line: &str, what: &str| {
            let reading = parse("wow.toml", text);
            assert_eq!(reading.problems.len(), 1, "{:?}", reading.problems);
            let problem = reading.problems[0].to_string();
            assert!(
                problem.contains("wow.toml") && problem.contains(line),
                "{problem}"
            );
            assert!(problem.contains(what), "{problem}");
            assert!(!problem.contains("SECRET"), "{problem}");
        };
        check(
            "name = \"a\"\n\nnmae = \"SECRET\"\n",
            "line 3",
            "unknown key `nmae`",
        );
        check("\nname = 5\n", "line 2, `name`", "text in quotes");
        check("[name]\na = \"SECRET\"\n", "line 1", "text in quotes");
        check(
            "name = \"a\"\nticket = \"SECRET\n",
            "line 2",
            "KEY = \"VALUE\"",
        );
        check("name = \"\"\n", "line 1", "empty");
    }

    #[test]
    fn a_missing_file_is_no_problem_and_an_unreadable_one_is() {
        let missing = TableFile::of_state(Path::new("/nonexistent")).read();
        assert!(missing.problems.is_empty() && missing.absent.is_some());
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("wow.toml")).unwrap();
        let unreadable = TableFile::of_state(directory.path()).read();
        assert_eq!(unreadable.problems.len(), 1);
    }
}
