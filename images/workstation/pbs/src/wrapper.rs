//! The batch script that Slurm gets: a shell script around the user's own.
//!
//! It sets what PBS sets inside a job and runs the script, byte for byte, by its own interpreter. Composed
//! here, it needs nothing on the nodes but a shell and Slurm, and changes with qsub; a prolog would have to
//! be the same on all nodes. The script is encoded: here-documents of the shell of Debian 12 lose bytes.

use data_encoding::BASE64;

use crate::nodefile;
use crate::resources::{Layout, Limits};

/// What a job runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// A script with arguments.
    Script {
        /// Its bytes.
        text: Vec<u8>,
        /// What runs it: a program, perhaps with an argument. Empty: the user's shell.
        interpreter: Vec<String>,
        /// What it is called with.
        arguments: Vec<String>,
    },
    /// A command of its own.
    Command(Vec<String>),
    /// The user's shell on a terminal.
    Terminal,
}

/// All that goes into the batch script.
#[derive(Debug, Clone)]
pub struct Wrapper<'a> {
    /// The name behind job numbers.
    pub server: &'a str,
    /// Whether elements have Torque's names.
    pub torque: bool,
    /// Whether the user's profile is read first.
    pub profile: bool,
    /// The mask for new files.
    pub umask: Option<u32>,
    /// Limits of each process.
    pub limits: &'a Limits,
    /// Where the processes are.
    pub layout: &'a Layout,
    /// What runs.
    pub work: &'a Work,
}

/// The length of the encoded script's lines.
const LINE: usize = 76;

/// What PBS's variables are made of inside a job.
const VARIABLES: &str = r#"unset SLURM_EXPORT_ENV SBATCH_EXPORT
if [ -n "${SLURM_ARRAY_JOB_ID-}" ]; then
    PBS_JOBID="${SLURM_ARRAY_JOB_ID}[${SLURM_ARRAY_TASK_ID}].$_wow_server"
    PBS_ARRAY_ID="${SLURM_ARRAY_JOB_ID}[].$_wow_server"
    PBS_ARRAY_INDEX=$SLURM_ARRAY_TASK_ID
    PBS_ARRAYID=$SLURM_ARRAY_TASK_ID
    export PBS_ARRAY_ID PBS_ARRAY_INDEX PBS_ARRAYID
    [ -z "$_wow_torque" ] || _wow_suffix=-$SLURM_ARRAY_TASK_ID
else
    PBS_JOBID="$SLURM_JOB_ID.$_wow_server"
fi
PBS_JOBNAME=$SLURM_JOB_NAME${_wow_suffix-}
PBS_QUEUE=$SLURM_JOB_PARTITION
PBS_O_QUEUE=${PBS_O_QUEUE:-$PBS_QUEUE}
_wow_path=${PATH-}
PATH=/usr/local/bin:/usr/bin:/bin
_wow_directory=$(mktemp -d "/tmp/pbs.$PBS_JOBID.XXXXXX") || exit 1
TMPDIR=$_wow_directory
PBS_NODEFILE=$_wow_directory/nodefile
export PBS_JOBID PBS_JOBNAME PBS_QUEUE PBS_O_QUEUE PBS_NODEFILE TMPDIR
"#;

/// The script's shell may live through signals that the job gets, and so must this one.
const SIGNALS: &str = "HUP INT QUIT USR1 USR2 PIPE ALRM TERM XCPU XFSZ VTALRM PROF";

impl Wrapper<'_> {
    /// The batch script.
    pub fn compose(&self) -> String {
        let mut text = String::from(
            "#!/bin/sh\n# Runs a job as PBS would. Composed by qsub; the job's own script is below.\n",
        );
        text.push_str(&format!(
            "_wow_server={}\n_wow_torque={}\n",
            quote(self.server),
            if self.torque { "1" } else { "" }
        ));
        text.push_str(VARIABLES);
        text.push_str(&nodefile::shell(self.layout));
        if let Some(mask) = self.umask {
            text.push_str(&format!("umask {mask:04o}\n"));
        }
        let command = self.command(&mut text);
        text.push_str(&self.limits());
        text.push_str("PATH=$_wow_path\n");
        text.push_str(&format!("trap : {SIGNALS}\n"));
        text.push_str(&command);
        text.push_str("_wow_status=$?\nPATH=/usr/bin:/bin\ncd /\nrm -rf \"$_wow_directory\"\nexit $_wow_status\n");
        text
    }

    /// The line that runs the work; puts before it what that needs.
    fn command(&self, text: &mut String) -> String {
        let words: Vec<String> = match self.work {
            Work::Terminal => {
                // A shell on a terminal is a login shell itself.
                return "if [ -t 0 ]; then set -- -l; else set --; fi\n${SHELL:-/bin/sh} \"$@\"\n"
                    .to_owned();
            }
            Work::Command(words) => words.iter().map(|word| quote(word)).collect(),
            Work::Script {
                text: script,
                interpreter,
                arguments,
            } => {
                text.push_str("base64 -d >\"$_wow_directory/script\" <<'END'\n");
                for line in BASE64.encode(script).as_bytes().chunks(LINE) {
                    text.extend(line.iter().map(|byte| char::from(*byte)));
                    text.push('\n');
                }
                text.push_str("END\n");
                let interpreter = match interpreter.as_slice() {
                    [] => vec!["\"${SHELL:-/bin/sh}\"".to_owned()],
                    words => words.iter().map(|word| quote(word)).collect(),
                };
                let script = "\"$_wow_directory/script\"".to_owned();
                interpreter
                    .into_iter()
                    .chain([script])
                    .chain(arguments.iter().map(|word| quote(word)))
                    .collect()
            }
        };
        let mut line = format!("set -- {}\n", words.join(" "));
        if self.profile {
            // As PBS does: by the user's shell, after the profile. Other shells have other words for it.
            line.push_str(concat!(
                "case ${SHELL##*/} in\n",
                "bash | zsh | ksh) \"$SHELL\" -l -c 'exec \"$@\"' pbs \"$@\" ;;\n",
                "*) \"$@\" ;;\n",
                "esac\n"
            ));
        } else {
            line.push_str("\"$@\"\n");
        }
        line
    }

    fn limits(&self) -> String {
        let limits = self.limits;
        let mut text = String::new();
        if let Some(seconds) = limits.cpu_seconds {
            text.push_str(&format!("ulimit -t {}\n", seconds.max(1)));
        }
        if let Some(bytes) = limits.file_bytes {
            // In blocks of 512 bytes, as POSIX has it.
            text.push_str(&format!("ulimit -f {}\n", bytes.div_ceil(512)));
        }
        if let Some(bytes) = limits.address_bytes {
            text.push_str(&format!("ulimit -v {}\n", bytes.div_ceil(1024).max(1)));
        }
        if let Some(nice) = limits.nice {
            text.push_str(&format!("renice -n {nice} -p $$ >/dev/null\n"));
        }
        text
    }
}

/// The interpreter that a script's first line names, with its one argument.
pub fn interpreter(script: &str) -> Vec<String> {
    let Some(line) = script
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("#!"))
    else {
        return Vec::new();
    };
    // The kernel passes everything behind the program as one argument.
    match line.trim().split_once([' ', '\t']) {
        Some((program, argument)) => vec![program.to_owned(), argument.trim().to_owned()],
        None if line.trim().is_empty() => Vec::new(),
        None => vec![line.trim().to_owned()],
    }
}

/// A word for the shell, as it is.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    /// Runs a script within the wrapper, without Slurm: output and exit code.
    fn run(script: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (String, i32) {
        let work = Work::Script {
            text: script.as_bytes().to_vec(),
            interpreter: interpreter(script),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
        };
        let wrapper = Wrapper {
            server: "head",
            torque: true,
            profile: false,
            umask: Some(0o27),
            limits: &Limits::default(),
            layout: &Layout::default(),
            work: &work,
        };
        // The one program of Slurm's that the wrapper calls.
        let text = format!("scontrol() {{ echo w1; }}\n{}", wrapper.compose());
        let mut command = Command::new("sh");
        command
            .args(["-c", &text])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("SHELL", "/bin/sh")
            .env("SLURM_JOB_ID", "5")
            .env("SLURM_JOB_NAME", "name")
            .env("SLURM_JOB_PARTITION", "batch")
            .env("SLURM_JOB_NODELIST", "w1");
        let output = command.envs(environment.iter().copied()).output().unwrap();
        assert!(
            output.stderr.is_empty(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        (
            String::from_utf8(output.stdout).unwrap(),
            output.status.code().unwrap(),
        )
    }

    #[test]
    fn the_script_has_its_interpreter_arguments_and_status() {
        let script = "#!/bin/sh -e\necho \"$1|$2|$PBS_JOBID|$PBS_JOBNAME|$PBS_QUEUE|$(umask)\"\ncat $PBS_NODEFILE\nexit 7";
        let (output, code) = run(script, &["a b", "c'd"], &[]);
        assert_eq!(
            (&*output, code),
            ("a b|c'd|5.head|name|batch|0027\nw1\n", 7)
        );
    }

    #[test]
    fn elements_of_arrays_know_who_they_are() {
        let script = "echo $PBS_JOBID $PBS_ARRAY_ID $PBS_ARRAYID $PBS_ARRAY_INDEX $PBS_JOBNAME";
        let array = [("SLURM_ARRAY_JOB_ID", "4"), ("SLURM_ARRAY_TASK_ID", "2")];
        assert_eq!(
            run(script, &[], &array).0,
            "4[2].head 4[].head 2 2 name-2\n"
        );
    }

    #[test]
    fn nothing_of_ours_stays_behind_and_no_variable_is_disturbed() {
        let script = "echo \"$TMPDIR $PATH\"; test -d $TMPDIR; env | grep -c _wow_";
        let (output, _) = run(script, &[], &[("PATH", "/usr/bin:/bin:/mine")]);
        let (directory, rest) = output.split_once(' ').unwrap();
        assert_eq!(rest, "/usr/bin:/bin:/mine\n0\n");
        assert!(
            directory.starts_with("/tmp/pbs.5.head.") && !std::path::Path::new(directory).exists()
        );
    }

    #[test]
    fn first_lines_name_interpreters() {
        assert_eq!(
            interpreter("#! /usr/bin/env  python3 -u\n"),
            ["/usr/bin/env", "python3 -u"]
        );
        assert_eq!(interpreter("#!/bin/csh\n"), ["/bin/csh"]);
        assert!(interpreter("#!\n").is_empty() && interpreter("echo").is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_script_arrives_as_it_is(tail in "([ -~\n]|END\n|Eé){0,80}") {
            let script = format!("#!/usr/bin/tail -n+2\n{tail}\n");
            let (output, code) = run(&script, &[], &[]);
            prop_assert_eq!((output, code), (format!("{tail}\n"), 0));
        }
    }
}
