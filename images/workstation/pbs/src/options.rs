//! qsub's options, whether they stand on the command line or in directives, parsed into what they mean.

use crate::arguments::{self, Parsed};
use crate::array::Array;
use crate::dependency::Dependencies;
use crate::failure::Failure;
use crate::resources::Resources;
use crate::time;
use crate::variables::{self, Variable};

/// qsub's options in getopt's spelling: those of OpenPBS and of Torque.
pub const SPEC: &str = "a:A:b:c:C:d:e:fF:hIj:J:k:l:m:M:nN:o:p:P:q:r:R:S:t:u:v:Vw:W:xXz";

/// PBS's range of priorities.
pub const PRIORITIES: std::ops::RangeInclusive<i32> = -1024..=1023;

/// OpenPBS's longest job name.
const MAX_NAME: usize = 230;

/// Which output goes where the other does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Both in the file of standard output.
    IntoOutput,
    /// Both in the file of standard error.
    IntoError,
    /// Each in its own.
    Apart,
}

/// Whose way of naming an array's elements and their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `-t`: NAME.o12-3, and the element's name is NAME-3.
    Torque,
    /// `-J`: NAME.o12.3.
    OpenPbs,
}

/// All that was said about a job. `None` and empty: not said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Options {
    /// `-N`.
    pub name: Option<String>,
    /// `-q`.
    pub queue: Option<String>,
    /// `-A`.
    pub account: Option<String>,
    /// `-P`.
    pub project: Option<String>,
    /// `-o`.
    pub output: Option<String>,
    /// `-e`.
    pub error: Option<String>,
    /// `-j`.
    pub join: Option<Join>,
    /// `-k`: whether output and error stay in the home directory.
    pub keep: Option<(bool, bool)>,
    /// `-m`.
    pub mail_points: Option<String>,
    /// `-M`.
    pub mail_users: Option<String>,
    /// `-h`.
    pub hold: bool,
    /// `-a`, as it was written.
    pub begin: Option<String>,
    /// `-p`.
    pub priority: Option<i32>,
    /// `-r`.
    pub rerunable: Option<bool>,
    /// `-S`.
    pub shell: Option<String>,
    /// `-d`, `-w`.
    pub directory: Option<String>,
    /// `-F`.
    pub script_arguments: Vec<String>,
    /// `-I`.
    pub interactive: bool,
    /// `-z`.
    pub quiet: bool,
    /// `-n`: whole nodes.
    pub exclusive: bool,
    /// `-t`, `-J`.
    pub array: Option<(Array, Dialect)>,
    /// `-W depend=`.
    pub dependencies: Option<Dependencies>,
    /// `-W umask=`.
    pub umask: Option<u32>,
    /// `-W block=true`.
    pub block: bool,
    /// `-v`.
    pub variables: Vec<Variable>,
    /// `-V`.
    pub whole_environment: bool,
    /// `-C`.
    pub prefix: Option<String>,
    /// `-l`.
    pub resources: Resources,
}

impl Options {
    /// The options of a command line, over those of the script's directives.
    pub fn of(directives: &[String], command_line: &Parsed) -> Result<Self, Failure> {
        let words = directives.iter().map(Into::into).collect();
        // Operands in directives mean nothing, as in PBS: people write remarks there.
        let inside = arguments::parse(SPEC, words)
            .map_err(|failure| Failure::usage(format!("directive error: {}", failure.message)))?;
        let mut options = Self::default();
        for (option, value) in &inside.options {
            options.set(*option, value)?;
        }
        let weaker = std::mem::take(&mut options.resources);
        for (option, value) in &command_line.options {
            options.set(*option, value)?;
        }
        let stronger = std::mem::replace(&mut options.resources, weaker);
        options.resources.override_with(stronger);
        Ok(options)
    }

    /// Takes one option in. The last one of a kind counts, except where they add up.
    pub fn set(&mut self, option: char, value: &str) -> Result<(), Failure> {
        let illegal = || Failure::illegal(option);
        let word = || {
            let word = value.trim();
            (!word.is_empty())
                .then(|| word.to_owned())
                .ok_or_else(illegal)
        };
        match option {
            'a' => {
                time::parse_date(value.trim(), time::now()).ok_or_else(illegal)?;
                self.begin = Some(word()?);
            }
            'A' => self.account = Some(word()?),
            // How often to look for a server, and checkpoints, which Slurm has none of.
            'b' | 'c' | 'f' | 'x' => {}
            'C' => self.prefix = Some(value.to_owned()),
            'd' | 'w' => self.directory = Some(word()?),
            'e' => self.error = Some(path(value).ok_or_else(illegal)?),
            'F' => self.script_arguments = arguments::words(value).map_err(|_| illegal())?,
            'h' => self.hold = true,
            'I' => self.interactive = true,
            'j' => {
                self.join = Some(match value {
                    "oe" => Join::IntoOutput,
                    "eo" => Join::IntoError,
                    "n" => Join::Apart,
                    _ => return Err(illegal()),
                });
            }
            'J' | 't' => {
                let array = Array::parse(value.trim()).ok_or_else(illegal)?;
                let dialect = if option == 't' {
                    Dialect::Torque
                } else {
                    Dialect::OpenPbs
                };
                self.array = Some((array, dialect));
            }
            'k' => self.keep = Some(keep(value).ok_or_else(illegal)?),
            'l' => self.resources.add(value)?,
            'm' => {
                let points = word()?;
                if !(points == "n" || points.chars().all(|point| "abejpf".contains(point))) {
                    return Err(illegal());
                }
                self.mail_points = Some(points);
            }
            'M' => {
                let users = word()?;
                let plain = |letter: char| letter.is_ascii_graphic() && !"'\"\\".contains(letter);
                if !users.chars().all(plain) {
                    return Err(illegal());
                }
                self.mail_users = Some(users);
            }
            'n' => self.exclusive = true,
            'N' => self.name = Some(name(value).ok_or_else(illegal)?),
            'o' => self.output = Some(path(value).ok_or_else(illegal)?),
            'p' => {
                let priority = value.trim().parse().ok();
                self.priority = Some(
                    priority
                        .filter(|it| PRIORITIES.contains(it))
                        .ok_or_else(illegal)?,
                );
            }
            'P' => self.project = Some(word()?),
            'q' => self.queue = Some(word()?),
            'r' => {
                self.rerunable = Some(match value {
                    "y" => true,
                    "n" => false,
                    _ => return Err(illegal()),
                });
            }
            'R' => self.umask = Some(umask(value).ok_or_else(illegal)?),
            'S' => self.shell = Some(shell(value).ok_or_else(illegal)?),
            'u' => {
                if value.split('@').next() != Some(&crate::site::user()) {
                    return Err(Failure::of(crate::failure::Error::Permission));
                }
            }
            'v' => self.variables.extend(variables::parse(value)?),
            'V' => self.whole_environment = true,
            'W' => self.attributes(value)?,
            'z' => self.quiet = true,
            _ => return Err(Failure::usage(format!("-{option} is not supported here"))),
        }
        Ok(())
    }

    /// Refuses what does not go together.
    pub fn check(&self) -> Result<(), Failure> {
        if self.interactive && self.array.is_some() {
            return Err(Failure::usage(
                "interactive and array job submission cannot be used together",
            ));
        }
        if self.interactive && self.block {
            return Err(Failure::usage(
                "interactive and block job submission cannot be used together",
            ));
        }
        Ok(())
    }

    /// `-W name=value[,name=value...]`; a dependency's value has commas of its own.
    fn attributes(&mut self, text: &str) -> Result<(), Failure> {
        let mut attributes: Vec<(&str, String)> = Vec::new();
        for piece in text.split(',') {
            match (piece.split_once('='), attributes.last_mut()) {
                (Some((name, value)), _) => attributes.push((name.trim(), value.trim().to_owned())),
                (None, Some((_, value))) => {
                    value.push(',');
                    value.push_str(piece.trim());
                }
                (None, None) => return Err(Failure::illegal('W')),
            }
        }
        for (name, value) in attributes {
            let illegal = || Failure::illegal('W');
            match name {
                "depend" => self.dependencies = Some(Dependencies::parse(&value)?),
                "umask" => self.umask = Some(umask(&value).ok_or_else(illegal)?),
                "block" => self.block = truth(&value).ok_or_else(illegal)?,
                "Mail_Points" => self.set('m', &value).map_err(|_| illegal())?,
                "Mail_Users" => self.set('M', &value).map_err(|_| illegal())?,
                "Rerunable" => self.rerunable = Some(truth(&value).ok_or_else(illegal)?),
                // Groups are the user's own, and there is one kind of sandbox.
                "group_list" | "sandbox" | "x" => {}
                _ => {
                    return Err(Failure::usage(format!(
                        "illegal -W value: {name} is not supported here"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn truth(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "y" | "1" => Some(true),
        "false" | "n" | "0" => Some(false),
        _ => None,
    }
}

/// A job's name as PBS allows it.
pub fn name(text: &str) -> Option<String> {
    let first = text.chars().next()?;
    let plain =
        |letter: char| !letter.is_whitespace() && !letter.is_control() && !"/\\".contains(letter);
    ((first.is_alphanumeric() || first == '_') && text.len() <= MAX_NAME && text.chars().all(plain))
        .then(|| text.to_owned())
}

/// A file of a job. Slurm gives backslashes a meaning, and lines end entries elsewhere.
fn path(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty() && !text.contains(['\n', '\\', '\0'])).then(|| text.to_owned())
}

fn keep(text: &str) -> Option<(bool, bool)> {
    if text == "n" {
        return Some((false, false));
    }
    // `d`: written in place from the start, which is how it always is here.
    (!text.is_empty() && text.chars().all(|letter| "oed".contains(letter))).then(|| {
        (
            text.contains('o') && !text.contains('d'),
            text.contains('e') && !text.contains('d'),
        )
    })
}

fn umask(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
}

/// The shell for here out of `path[@host][,path@host...]`.
fn shell(text: &str) -> Option<String> {
    let (mut general, mut here) = (None, None);
    for one in text.split(',') {
        match one.trim().split_once('@') {
            None => general = general.or(Some(one.trim())),
            Some((path, host)) if host == crate::site::server() => here = Some(path),
            Some(_) => {}
        }
    }
    here.or(general)
        .filter(|path| path.starts_with('/') && !path.contains(['\n', '\0']))
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options(directives: &[&str], line: &str) -> Result<Options, Failure> {
        let directives: Vec<String> = directives.iter().map(|word| (*word).to_owned()).collect();
        let words = line.split_whitespace().map(Into::into).collect();
        Options::of(&directives, &arguments::parse(SPEC, words)?)
    }

    #[test]
    fn the_command_line_wins_over_directives() {
        let options = options(
            &[
                "-N",
                "inner",
                "-l",
                "walltime=60,mem=1gb",
                "-joe",
                "-v",
                "A=1,B=1",
                "-h",
            ],
            "-N outer -l walltime=90 -v A=2",
        )
        .unwrap();
        assert_eq!(options.name.as_deref(), Some("outer"));
        assert_eq!(options.join, Some(Join::IntoOutput));
        let resources: Vec<_> = options.resources.iter().collect();
        assert_eq!(resources, [("mem", "1gb"), ("walltime", "90")]);
        assert_eq!(
            options.variables.last().unwrap().value.as_deref(),
            Some("2")
        );
        assert!(options.hold);
    }

    #[test]
    fn attributes_keep_the_commas_of_a_dependency() {
        let options = options(&[], "-W depend=afterok:1,afterany:2,umask=027,block=true").unwrap();
        assert_eq!(
            options.dependencies.unwrap().slurm(),
            "afterok:1,afterany:2"
        );
        assert_eq!(options.umask, Some(0o27));
        assert!(options.block);
    }

    #[test]
    fn wrong_values_are_named_by_their_option() {
        for (line, option) in [
            ("-a x", 'a'),
            ("-j x", 'j'),
            ("-k x", 'k'),
            ("-m x", 'm'),
            ("-N a/b", 'N'),
            ("-N -x", 'N'),
            ("-p 1024", 'p'),
            ("-p x", 'p'),
            ("-r x", 'r'),
            ("-S bash", 'S'),
            ("-t x", 't'),
            ("-J 1-", 'J'),
            ("-v =", 'v'),
            ("-W x", 'W'),
            ("-l walltime", 'l'),
        ] {
            assert_eq!(options(&[], line), Err(Failure::illegal(option)), "{line}");
        }
        assert_eq!(options(&[], "-W stagein=x").unwrap_err().code, 2);
        assert_eq!(
            options(&["-Y"], "").unwrap_err().message,
            "directive error: invalid option -- 'Y'"
        );
    }

    #[test]
    fn remarks_in_directives_mean_nothing() {
        assert_eq!(
            options(&["-N", "a", "#", "my", "job"], "")
                .unwrap()
                .name
                .as_deref(),
            Some("a")
        );
    }

    proptest! {
        #[test]
        fn any_value_is_taken_or_refused(option in "[a-zA-Z]", value in "\\PC{0,16}") {
            let option = option.chars().next().unwrap();
            let _ = Options::default().set(option, &value);
        }
    }
}
