//! Kernel configuration fragments: parsed strictly, merged, and held against what Kconfig made.
//!
//! A fragment is a sequence of paragraphs. A paragraph opens with the reason, in comment lines,
//! and goes on with the options it is the reason for: `CONFIG_X=value` or `# CONFIG_X is not
//! set`. Kconfig silently drops options whose dependencies are missing; [`Merged::check`] does
//! not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What is wrong with a fragment, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {message}", file = file.display())]
pub struct FragmentError {
    /// The fragment's file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Options that Kconfig did not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostOptions(pub Vec<Lost>);

/// One option that Kconfig did not keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Where it was asked for.
    pub origin: Origin,
    /// The line as it was asked for.
    pub wanted: String,
    /// What the configuration says instead.
    pub found: String,
}

impl std::error::Error for LostOptions {}

impl fmt::Display for LostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "the kernel's configuration lost {} of the options asked for:",
            self.0.len()
        )?;
        for lost in &self.0 {
            writeln!(
                f,
                "    {}: {} (became: {})",
                lost.origin, lost.wanted, lost.found
            )?;
        }
        write!(
            f,
            "an option is lost when one it depends on is missing or another selects it; \
             name that one too, or remove the line"
        )
    }
}

/// Where an option was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// The value of an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `# CONFIG_X is not set`.
    Unset,
    /// `CONFIG_X=` with `y`, a number, or a string with its quotes.
    Set(String),
}

/// An option as a fragment asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The name, without `CONFIG_`.
    pub name: String,
    /// The value.
    pub value: Value,
    /// Where it stands.
    pub origin: Origin,
}

impl Wanted {
    /// The line in a `.config`.
    fn line(&self) -> String {
        match &self.value {
            Value::Unset => format!("# CONFIG_{} is not set", self.name),
            Value::Set(value) => format!("CONFIG_{}={value}", self.name),
        }
    }
}

/// Parses the text of a fragment.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Wanted>, FragmentError> {
    let mut options = Vec::new();
    // Whether the paragraph so far has a reason.
    let mut reason = false;
    for (index, line) in text.lines().enumerate() {
        let origin = Origin {
            file: file.to_owned(),
            line: index + 1,
        };
        let error = |message: String| FragmentError {
            file: origin.file.clone(),
            line: origin.line,
            message,
        };
        if line.trim() != line {
            return Err(error("remove the spaces at the line's ends".to_owned()));
        }
        match option(line).map_err(&error)? {
            Line::Empty => reason = false,
            Line::Comment => reason = true,
            Line::Option(name, _) if !reason => {
                return Err(error(format!(
                    "CONFIG_{name} has no reason: put a comment that says why above it"
                )));
            }
            Line::Option(name, value) => {
                options.push(Wanted {
                    name: name.to_owned(),
                    value,
                    origin,
                });
            }
        }
    }
    Ok(options)
}

enum Line<'a> {
    Empty,
    Comment,
    Option(&'a str, Value),
}

fn option(line: &str) -> Result<Line<'_>, String> {
    if line.is_empty() {
        return Ok(Line::Empty);
    }
    if let Some(comment) = line.strip_prefix('#') {
        let Some(rest) = comment.trim_start().strip_prefix("CONFIG_") else {
            return Ok(Line::Comment);
        };
        return match rest.split_once(' ') {
            Some((name, "is not set")) if is_name(name) && comment.starts_with(" CONFIG_") => {
                Ok(Line::Option(name, Value::Unset))
            }
            // Text that merely starts with an option's name is a comment, a mistyped unset is not.
            _ if rest.contains("not set") || rest.contains('=') => Err(format!(
                "neither a reason nor an option: write `# CONFIG_X is not set`, or delete {line:?}"
            )),
            _ => Ok(Line::Comment),
        };
    }
    let parsed = line
        .strip_prefix("CONFIG_")
        .and_then(|rest| rest.split_once('='));
    let Some((name, value)) = parsed.filter(|(name, _)| is_name(name)) else {
        return Err(format!(
            "{line:?} is no option: write CONFIG_NAME=value or `# CONFIG_NAME is not set`"
        ));
    };
    match value {
        "n" => Err(format!(
            "write `# CONFIG_{name} is not set` for =n, as Kconfig does"
        )),
        "m" => Err(format!(
            "CONFIG_{name}=m: this kernel has no modules; write =y"
        )),
        value if is_value(value) => Ok(Line::Option(name, Value::Set(value.to_owned()))),
        value => Err(format!(
            "{value:?} is no value: y, a number, or a string in double quotes"
        )),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_value(value: &str) -> bool {
    let quoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    value == "y"
        || quoted.is_some_and(|text| !text.contains(['"', '\\']))
        || value.strip_prefix("0x").is_some_and(|hex| digits(hex, 16))
        || digits(value.strip_prefix('-').unwrap_or(value), 10)
}

/// The options of several fragments as one.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    options: BTreeMap<String, Wanted>,
}

impl Merged {
    /// Adds options. Asking twice for the same value is fine, for another one is an error.
    pub fn add(&mut self, wanted: Vec<Wanted>) -> Result<(), FragmentError> {
        for option in wanted {
            match self.options.get(&option.name) {
                Some(first) if first.value != option.value => {
                    return Err(FragmentError {
                        message: format!(
                            "{} contradicts {} in {}: keep one of them",
                            option.line(),
                            first.line(),
                            first.origin
                        ),
                        file: option.origin.file,
                        line: option.origin.line,
                    });
                }
                Some(_) => {}
                None => {
                    self.options.insert(option.name.clone(), option);
                }
            }
        }
        Ok(())
    }

    /// The options by name, one a line: the input of Kconfig, and of the plan's key.
    pub fn canonical(&self) -> String {
        self.options
            .values()
            .map(|option| option.line() + "\n")
            .collect()
    }

    /// Checks that `config`, a complete `.config`, holds every option.
    pub fn check(&self, config: &str) -> Result<(), LostOptions> {
        let mut found = BTreeMap::new();
        for line in config.lines() {
            let unset = line
                .strip_prefix("# CONFIG_")
                .and_then(|rest| rest.strip_suffix(" is not set"));
            let set = line
                .strip_prefix("CONFIG_")
                .and_then(|rest| rest.split_once('='));
            if let Some(name) = unset {
                found.insert(name, None);
            } else if let Some((name, value)) = set {
                found.insert(name, Some(value));
            }
        }
        let lost: Vec<Lost> = self
            .options
            .values()
            .filter_map(|wanted| {
                let state = found.get(wanted.name.as_str());
                let held = match (&wanted.value, state) {
                    // An option that cannot be chosen at all is not set either.
                    (Value::Unset, None | Some(None)) => true,
                    (Value::Set(value), Some(Some(found))) => value == found,
                    _ => false,
                };
                let found = match state {
                    None => "absent, so something it depends on is not set".to_owned(),
                    Some(None) => "not set".to_owned(),
                    Some(Some(value)) => format!("={value}"),
                };
                (!held).then(|| Lost {
                    origin: wanted.origin.clone(),
                    wanted: wanted.line(),
                    found,
                })
            })
            .collect();
        if lost.is_empty() {
            Ok(())
        } else {
            Err(LostOptions(lost))
        }
    }
}

#[cfg(test)]
mod tests;
