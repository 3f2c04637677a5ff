//! A shell as an ordinary user on a machine of a pool, by whatever way it is reached: ssh into a virtual
//! machine, or a namespace.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

/// What begins a file within several; no file of ours has such a line.
const MARK: char = '@';

/// What a command did.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub output: Vec<u8>,
    /// Its standard error.
    pub error: String,
}

/// See the module.
pub trait Shell {
    /// Runs this text by a POSIX shell in the user's home directory, with these bytes as standard input.
    ///
    /// # Errors
    /// The machine is not reached, or the command does not end in time; not that it fails.
    fn run(&self, text: &str, input: &[u8]) -> Result<Said>;

    /// Runs what must succeed; its output.
    fn ok(&self, text: &str, input: &[u8]) -> Result<String> {
        let said = self.run(text, input)?;
        if said.code != 0 {
            let output = String::from_utf8_lossy(&said.output);
            bail!(
                "`{text}` failed with {}: {} {}",
                said.code,
                said.error.trim(),
                output.trim()
            );
        }
        String::from_utf8(said.output).with_context(|| format!("`{text}` did not print text"))
    }

    /// Makes a directory that is not there yet, with these text files.
    fn make(&self, directory: &str, files: &BTreeMap<String, String>) -> Result<()> {
        let mut input = String::new();
        for (name, text) in files {
            input.push_str(&format!("{MARK}{name}\n{text}"));
            if !text.ends_with('\n') {
                input.push('\n');
            }
        }
        let text = format!(
            "mkdir {0} && cd {0} && awk '/^{MARK}/ {{ close(file); file = substr($0, 2); next }} {{ print >file }}'",
            quote(directory)
        );
        self.ok(&text, input.as_bytes()).map(drop)
    }

    /// The text files of a directory that these patterns name; none is a file with a line like [`MARK`].
    fn files(&self, directory: &str, patterns: &[&str]) -> Result<BTreeMap<String, String>> {
        let text = format!(
            "cd {} && for file in {}; do [ ! -f \"$file\" ] || {{ printf '{MARK}%s\\n' \"$file\"; cat \"$file\"; }}; done",
            quote(directory),
            patterns.join(" ")
        );
        let all = self.ok(&text, &[])?;
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        let mut name = None;
        for line in all.split_inclusive('\n') {
            if let Some(next) = line.strip_prefix(MARK) {
                let next = next.trim_end().to_owned();
                files.insert(next.clone(), String::new());
                name = Some(next);
            } else if let Some(file) = name.as_ref().and_then(|name| files.get_mut(name)) {
                file.push_str(line);
            }
        }
        Ok(files)
    }
}

/// A word for the shell, as it is.
pub fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
pub(crate) mod local {
    //! This machine's own shell, for tests.

    use std::io::Write;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::*;

    /// Its home directory.
    pub struct Local(pub PathBuf);

    impl Shell for Local {
        fn run(&self, text: &str, input: &[u8]) -> Result<Said> {
            let mut child = Command::new("sh")
                .args(["-c", text])
                .current_dir(&self.0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            child.stdin.take().context("no input")?.write_all(input)?;
            let output = child.wait_with_output()?;
            Ok(Said {
                code: output.status.code().unwrap_or(-1),
                output: output.stdout,
                error: String::from_utf8_lossy(&output.stderr).into_owned(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::local::Local;
    use super::*;

    #[test]
    fn files_go_in_and_come_out_as_they_are() {
        let home = tempfile::tempdir().unwrap();
        let shell = Local(home.path().to_owned());
        let files = BTreeMap::from([
            ("1.fa".to_owned(), ">one\nACGT\n".to_owned()),
            ("2.fa".to_owned(), ">two's\n\nAC GT\\n\n".to_owned()),
            ("tree".to_owned(), "(a,b);\n".to_owned()),
        ]);
        shell.make("it's new", &files).unwrap();
        let found = shell.files("it's new", &["*.fa", "tree", "none"]).unwrap();
        assert_eq!(found, files);
        // What is there already is nobody's to write over.
        assert!(shell.make("it's new", &files).is_err());
    }

    #[test]
    fn failures_say_what_failed_and_how() {
        let home = tempfile::tempdir().unwrap();
        let shell = Local(home.path().to_owned());
        let error = shell.ok("echo out; echo no >&2; exit 3", &[]).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("exit 3` failed with 3: no out"), "{error}");
    }
}
