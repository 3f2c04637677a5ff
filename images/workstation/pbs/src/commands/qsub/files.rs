//! Where a job's output goes: NAME.o12 and NAME.e12 beside the script, or where it was said.

use std::path::Path;

use crate::options::{Dialect, Join, Options};

/// Paths with Slurm's patterns in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Standard output, and errors too if there is no other.
    pub output: String,
    /// Standard error.
    pub error: Option<String>,
}

/// Which of the two.
#[derive(Clone, Copy)]
enum Stream {
    Output,
    Error,
}

impl Files {
    /// The files of a job called `name` that is submitted in `directory`.
    pub fn of(options: &Options, name: &str, directory: &str, server: &str) -> Self {
        let path = |stream| path(options, name, directory, server, stream);
        match options.join {
            Some(Join::IntoOutput) => Self {
                output: path(Stream::Output),
                error: None,
            },
            Some(Join::IntoError) => Self {
                output: path(Stream::Error),
                error: None,
            },
            Some(Join::Apart) | None => Self {
                output: path(Stream::Output),
                error: Some(path(Stream::Error)),
            },
        }
    }
}

fn path(options: &Options, name: &str, directory: &str, server: &str, stream: Stream) -> String {
    let dialect = options.array.as_ref().map(|(_, dialect)| *dialect);
    let (wish, keep, letter) = match stream {
        Stream::Output => (
            &options.output,
            options.keep.is_some_and(|keep| keep.0),
            'o',
        ),
        Stream::Error => (&options.error, options.keep.is_some_and(|keep| keep.1), 'e'),
    };
    let number = match dialect {
        None => "%j",
        Some(Dialect::Torque) => "%A-%a",
        Some(Dialect::OpenPbs) => "%A.%a",
    };
    let usual = format!("{}.{letter}{number}", escape(name));
    // Kept files lie in the home directory, whatever else was said.
    let Some(wish) = wish.as_deref().filter(|_| !keep) else {
        let place = if keep {
            super::environment::home()
        } else {
            directory.to_owned()
        };
        return join(&escape(&place), &usual);
    };
    let wish = without_host(wish);
    let absolute = join(directory, wish);
    if wish.ends_with('/') || wish.is_empty() || Path::new(&absolute).is_dir() {
        return join(&escape(&absolute), &usual);
    }
    let mut path = expand(&absolute, name, server, dialect);
    let device = absolute.starts_with("/dev/");
    if let Some(dialect) = dialect
        && !path.contains("%a")
        && !device
    {
        // Else the elements would overwrite each other's.
        path.push_str(match dialect {
            Dialect::Torque => "-%a",
            Dialect::OpenPbs => ".%a",
        });
    }
    path
}

/// A path may say on which host it is; here all hosts have the same.
fn without_host(path: &str) -> &str {
    match path.split_once(':') {
        Some((host, path)) if !host.contains('/') && !host.is_empty() => path,
        _ => path,
    }
}

fn expand(path: &str, name: &str, server: &str, dialect: Option<Dialect>) -> String {
    let (job, index) = match dialect {
        None => (format!("%j.{server}"), ""),
        Some(_) => (format!("%A[%a].{server}"), "%a"),
    };
    let mut path = escape(path);
    for (word, meaning) in [
        ("^array_index^", index),
        ("$PBS_ARRAY_INDEX", index),
        ("$PBS_ARRAYID", index),
        ("$PBS_JOBID", &*job),
        ("$PBS_JOBNAME", &*escape(name)),
        ("$HOME", &*escape(&super::environment::home())),
    ] {
        path = path.replace(word, meaning);
    }
    path
}

fn join(directory: &str, file: &str) -> String {
    if file.starts_with('/') {
        return file.to_owned();
    }
    format!("{}/{file}", directory.trim_end_matches('/'))
}

/// A text in which Slurm sees no pattern.
fn escape(text: &str) -> String {
    text.replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments;

    fn files(line: &str) -> (String, Option<String>) {
        let words = line.split_whitespace().map(Into::into).collect();
        let parsed = arguments::parse(crate::options::SPEC, words).unwrap();
        let options = Options::of(&[], &parsed).unwrap();
        let files = Files::of(&options, "name", "/home/ann", "head");
        (files.output, files.error)
    }

    fn check(line: &str, output: &str, error: Option<&str>) {
        assert_eq!(
            files(line),
            (output.to_owned(), error.map(str::to_owned)),
            "{line}"
        );
    }

    #[test]
    fn output_lies_where_pbs_puts_it() {
        check("", "/home/ann/name.o%j", Some("/home/ann/name.e%j"));
        check("-j oe", "/home/ann/name.o%j", None);
        check("-j eo", "/home/ann/name.e%j", None);
        check("-o out", "/home/ann/out", Some("/home/ann/name.e%j"));
        check(
            "-o /tmp -e dir/",
            "/tmp/name.o%j",
            Some("/home/ann/dir/name.e%j"),
        );
        check("-o w1:/a/b -j oe", "/a/b", None);
        check("-o /x/100% -j oe", "/x/100%%", None);
        check("-o /x/$PBS_JOBID -joe", "/x/%j.head", None);
    }

    #[test]
    fn elements_of_arrays_have_files_of_their_own() {
        check(
            "-t 1-2",
            "/home/ann/name.o%A-%a",
            Some("/home/ann/name.e%A-%a"),
        );
        check("-J 1-2 -j oe", "/home/ann/name.o%A.%a", None);
        check("-J 1-2 -j oe -o x", "/home/ann/x.%a", None);
        check(
            "-J 1-2 -j oe -o x.^array_index^.txt",
            "/home/ann/x.%a.txt",
            None,
        );
        check("-t 1-2 -j oe -o /dev/null", "/dev/null", None);
    }
}
