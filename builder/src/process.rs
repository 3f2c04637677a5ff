//! Runs programs with their output in a log, and tells the log's last lines if one fails.
//!
//! A program is asked to end (SIGTERM) when another step of the build has failed, and when this
//! process ends, however that happens. Those that compile share the machine's processors by make's
//! jobserver: together they run no more jobs than there are processors.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;
use std::time::Duration;

use jobserver::Client;
use rustix::process::{Pid, Signal, kill_process};

use crate::BuildError;
use crate::host::Purpose;
use crate::host::process::tied_command;
use crate::progress::Running;

/// Lines of a failed program's output that its error shows.
const TAIL_LINES: usize = 20;
/// What is kept of one overlong line.
const MAX_LINE_BYTES: usize = 400;

/// How often a program is looked at that has closed its output but not ended yet.
const POLL: Duration = Duration::from_millis(2);
/// What `setpriv` ends with when there is no such program.
const NOT_FOUND: i32 = 127;

/// The programs that a build runs at this moment.
#[derive(Debug)]
pub struct Programs {
    state: Mutex<State>,
    /// A token for each processor.
    processors: Client,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Those not waited for yet, so that the ids are still their own.
    running: Vec<Pid>,
}

impl Programs {
    /// None so far; those that compile will share this machine's processors.
    pub fn new() -> Result<Self, BuildError> {
        Self::on(available_parallelism().map_or(1, usize::from))
    }

    fn on(processors: usize) -> Result<Self, BuildError> {
        Ok(Self {
            state: Mutex::default(),
            processors: Client::new(processors).map_err(BuildError::io(
                "open a pipe for",
                Path::new("make's jobserver"),
            ))?,
        })
    }

    /// Asks all that run to end, and starts no further ones.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        for &id in &state.running {
            // It fails only where the program has ended by itself.
            let _ = kill_process(id, Signal::TERM);
        }
    }

    fn start(&self, command: &mut Command) -> std::io::Result<Child> {
        let mut state = self.lock();
        if state.stopped {
            return Err(std::io::Error::other("another step has failed"));
        }
        let child = command.spawn()?;
        state.running.push(Pid::from_child(&child));
        Ok(child)
    }

    /// Waits for a program that has closed its output.
    fn wait(&self, mut child: Child) -> std::io::Result<ExitStatus> {
        loop {
            let mut state = self.lock();
            if let Some(status) = child.try_wait()? {
                state.running.retain(|id| *id != Pid::from_child(&child));
                return Ok(status);
            }
            drop(state);
            std::thread::sleep(POLL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that collects the output of a step's programs.
#[derive(Debug)]
pub struct Log<'a> {
    path: &'a Path,
    file: File,
    running: &'a Running,
    programs: &'a Programs,
}

impl<'a> Log<'a> {
    /// Starts the log at `path` afresh; its lines also show on `running`.
    pub fn create(
        path: &'a Path,
        running: &'a Running,
        programs: &'a Programs,
    ) -> Result<Self, BuildError> {
        let file = File::create(path).map_err(BuildError::io("create", path))?;
        Ok(Self {
            path,
            file,
            running,
            programs,
        })
    }

    /// Writes a line of our own.
    pub fn note(&mut self, line: &str) -> Result<(), BuildError> {
        self.running.detail(line);
        writeln!(self.file, "{line}").map_err(BuildError::io("write", self.path))
    }

    /// Runs `command` without standard input, both its outputs going to the log.
    pub fn run(&mut self, what: &str, command: &mut Command) -> Result<(), BuildError> {
        self.run_with(what, command, Stdio::null(), None, None)
    }

    /// As `run`, for a make or a cargo: it begins when a processor is free, and uses further ones
    /// while nobody else does.
    pub fn compile(&mut self, what: &str, command: &mut Command) -> Result<(), BuildError> {
        let processors = &self.programs.processors;
        // The one job that a program of the jobserver's may run without asking.
        let _token = processors
            .acquire()
            .map_err(BuildError::io("wait for a processor for", self.path))?;
        self.run_with(what, command, Stdio::null(), None, Some(processors))
    }

    /// As `run`, with standard output going to `output` and only errors to the log.
    pub fn run_into(
        &mut self,
        what: &str,
        command: &mut Command,
        output: File,
    ) -> Result<(), BuildError> {
        self.run_with(what, command, Stdio::null(), Some(output), None)
    }

    /// As `run`, with standard input coming from `input`.
    pub fn run_from(
        &mut self,
        what: &str,
        command: &mut Command,
        input: PipeReader,
    ) -> Result<(), BuildError> {
        self.run_with(what, command, input.into(), None, None)
    }

    fn run_with(
        &mut self,
        what: &str,
        command: &Command,
        input: Stdio,
        output: Option<File>,
        processors: Option<&Client>,
    ) -> Result<(), BuildError> {
        self.note(&format!("$ {}", shown(command)))?;
        let broken = BuildError::io("read the output that goes to", self.path);
        let (reader, writer) = match std::io::pipe() {
            Ok(pipe) => pipe,
            Err(error) => return Err(broken(error)),
        };
        let mut tied = tied(command);
        if let Some(processors) = processors {
            processors.configure_make(&mut tied);
        }
        match output {
            Some(file) => tied.stdout(file),
            None => {
                let clone = writer
                    .try_clone()
                    .map_err(BuildError::io("open a pipe for", self.path))?;
                tied.stdout(clone)
            }
        };
        tied.stdin(input).stderr(writer);
        let started = self.programs.start(&mut tied);
        // Our copies of the pipe's writing end must go, or reading would never end.
        drop(tied);
        let child = started.map_err(|source| spawn_error(command, source))?;
        let tail = self.copy(reader);
        let status = self
            .programs
            .wait(child)
            .map_err(BuildError::io("wait for a program of", self.path))?;
        let tail = tail?;
        if status.success() {
            return Ok(());
        }
        let missing = |line: &String| line.starts_with("setpriv: ");
        if status.code() == Some(NOT_FOUND) && tail.back().is_some_and(missing) {
            return Err(spawn_error(command, std::io::ErrorKind::NotFound.into()));
        }
        let log = self.path.to_owned();
        Err(BuildError::Command {
            what: what.to_owned(),
            status,
            log,
            tail: tail.into(),
        })
    }

    /// Copies lines to the log and the display; returns the last ones.
    fn copy(&mut self, reader: impl std::io::Read) -> Result<VecDeque<String>, BuildError> {
        let mut reader = BufReader::new(reader);
        let mut tail = VecDeque::with_capacity(TAIL_LINES);
        let mut line = Vec::new();
        loop {
            line.clear();
            let length = reader
                .read_until(b'\n', &mut line)
                .map_err(BuildError::io("read the output that goes to", self.path))?;
            if length == 0 {
                return Ok(tail);
            }
            self.file
                .write_all(&line)
                .map_err(BuildError::io("write", self.path))?;
            line.truncate(MAX_LINE_BYTES);
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.running.detail(&text);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(text);
        }
    }
}

/// `command`, asked by the kernel to end when the thread that starts it does; without its outputs.
fn tied(command: &Command) -> Command {
    let mut tied = tied_command(command.get_program(), "TERM");
    tied.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tied.env(name, value),
            None => tied.env_remove(name),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        tied.current_dir(directory);
    }
    tied
}

/// A command with a fixed locale and time zone, and without the variables by which a caller's
/// make or cargo would reach into the build.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    let meddling = |name: &str| {
        matches!(
            name,
            "MAKEFLAGS" | "MFLAGS" | "MAKELEVEL" | "ARCH" | "CROSS_COMPILE" | "O"
        ) || name.starts_with("KBUILD_")
            || name.starts_with("KCONFIG_")
            || matches!(
                name,
                "KCFLAGS" | "KCPPFLAGS" | "KAFLAGS" | "LDFLAGS" | "LOCALVERSION"
            )
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(meddling) {
            command.env_remove(name);
        }
    }
    command
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", "0");
    // syslinux, mkfs.fat and others live where only root's PATH leads.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

/// Runs `command` and returns its standard output, trimmed.
pub fn output(command: &mut Command) -> Result<String, BuildError> {
    let result = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| spawn_error(command, source))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).trim().to_owned());
    }
    let errors = String::from_utf8_lossy(&result.stderr).trim().to_owned();
    Err(BuildError::Input(format!(
        "`{}` failed ({}): {errors}",
        shown(command),
        result.status
    )))
}

fn spawn_error(command: &Command, source: std::io::Error) -> BuildError {
    BuildError::Spawn {
        program: command.get_program().to_string_lossy().into_owned(),
        packages: packages(),
        source,
    }
}

/// The Debian packages that hold what a build runs.
fn packages() -> String {
    let mut names = Vec::new();
    for purpose in [Purpose::Image, Purpose::Debian] {
        for package in purpose.packages() {
            if !names.contains(&package.name) {
                names.push(package.name);
            }
        }
    }
    names.join(" ")
}

/// The command as a shell would take it, near enough to repeat by hand.
fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .map(|word| {
            if word.contains(' ') {
                format!("'{word}'")
            } else {
                word
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;

    fn run(script: &str) -> (Result<(), BuildError>, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let running = Progress::hidden().start("test");
        let programs = Programs::new().unwrap();
        let mut log = Log::create(&path, &running, &programs).unwrap();
        let result = log.run("the script", command("sh").args(["-c", script]));
        (result, std::fs::read_to_string(&path).unwrap())
    }

    #[test]
    fn both_outputs_reach_the_log_in_order() {
        let (result, log) = run("echo one; echo two >&2; echo three");
        result.unwrap();
        assert!(log.ends_with("\none\ntwo\nthree\n"), "{log}");
    }

    #[test]
    fn a_program_is_stopped_when_another_step_fails() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let programs = Programs::new().unwrap();
        let running = Progress::hidden().start("test");
        std::thread::scope(|scope| {
            let script = scope.spawn(|| {
                let mut log = Log::create(&path, &running, &programs).unwrap();
                let first = log.run(
                    "the script",
                    command("sh").args(["-c", "echo up; exec sleep 600"]),
                );
                (first, log.run("another", &mut command("true")))
            });
            let runs = || std::fs::read_to_string(&path).is_ok_and(|text| text.ends_with("\nup\n"));
            let deadline = std::time::Instant::now() + Duration::from_secs(60);
            while !runs() && std::time::Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
            programs.stop();
            let (first, second) = script.join().unwrap();
            assert!(first.unwrap_err().to_string().contains("SIGTERM"));
            assert!(second.is_err(), "nothing starts after the stop");
        });
    }

    #[test]
    fn compilers_share_the_processors() {
        let directory = tempfile::tempdir().unwrap();
        let (path, jobs) = (directory.path().join("log"), directory.path().join("jobs"));
        let makefile =
            "all: a b c d\na b c d:\n\t@echo + >>$(JOBS); sleep 0.02; echo - >>$(JOBS)\n";
        std::fs::write(directory.path().join("Makefile"), makefile).unwrap();
        let programs = Programs::on(2).unwrap();
        std::thread::scope(|scope| {
            for name in ["one", "two", "three"] {
                let (programs, path, jobs) = (&programs, path.with_extension(name), &jobs);
                let directory = directory.path();
                scope.spawn(move || {
                    let running = Progress::hidden().start(name);
                    let mut log = Log::create(&path, &running, programs).unwrap();
                    let mut make = command("make");
                    make.arg("-C").arg(directory).env("JOBS", jobs);
                    log.compile("the make", &mut make).unwrap();
                    let text = std::fs::read_to_string(&path).unwrap();
                    assert!(!text.contains("warning"), "{text}");
                });
            }
        });
        let text = std::fs::read_to_string(jobs).unwrap();
        let running = text.lines().scan(0, |running, line| {
            *running += if line == "+" { 1 } else { -1 };
            Some(*running)
        });
        assert_eq!(text.lines().count(), 24);
        assert!(running.max() <= Some(2), "{text}");
    }

    #[test]
    fn a_missing_program_in_a_step_is_told_as_such() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let running = Progress::hidden().start("test");
        let programs = Programs::new().unwrap();
        let mut log = Log::create(&path, &running, &programs).unwrap();
        let error = log
            .run("it", &mut command("wow-no-such-program"))
            .unwrap_err();
        assert!(matches!(error, BuildError::Spawn { .. }), "{error}");
    }

    #[test]
    fn output_for_a_file_stays_out_of_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let (path, out) = (directory.path().join("log"), directory.path().join("out"));
        let running = Progress::hidden().start("test");
        let programs = Programs::new().unwrap();
        let mut log = Log::create(&path, &running, &programs).unwrap();
        let file = File::create(&out).unwrap();
        let mut script = command("sh");
        log.run_into(
            "the script",
            script.args(["-c", "echo out; echo err >&2"]),
            file,
        )
        .unwrap();
        assert_eq!(std::fs::read_to_string(out).unwrap(), "out\n");
        assert!(std::fs::read_to_string(path).unwrap().ends_with("\nerr\n"));
    }

    #[test]
    fn a_failure_tells_the_log_and_its_last_lines() {
        let (result, log) = run("seq 100; exit 3");
        let text = result.unwrap_err().to_string();
        assert!(
            text.contains("the script failed") && text.contains("exit status: 3"),
            "{text}"
        );
        assert!(
            text.ends_with("99\n    100") && text.contains("    81\n"),
            "{text}"
        );
        assert!(!text.contains("    80\n") && log.contains("\n1\n"));
    }

    #[test]
    fn a_missing_program_names_the_packages_to_install() {
        let text = output(&mut command("wow-no-such-program"))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("wow-no-such-program") && text.contains("syslinux"),
            "{text}"
        );
    }

    #[test]
    fn a_callers_make_does_not_reach_into_the_build() {
        let text = output(command("sh").args(["-c", "echo $LC_ALL/$TZ/$SOURCE_DATE_EPOCH"]));
        assert_eq!(text.unwrap(), "C/UTC/0");
    }
}
