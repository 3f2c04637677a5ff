//! qsub: hands a script to Slurm as PBS would take it.

mod environment;
pub mod files;
mod interactive;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Child, Stdio};

use crate::arguments::{self, Parsed};
use crate::array::Array;
use crate::directives;
use crate::failure::{Error, Failure};
use crate::job_id::{JobId, Part};
use crate::options::{Dialect, Join, Options, SPEC};
use crate::resources::{Layout, Request};
use crate::slurm::note::Note;
use crate::slurm::{self, errors, node, partition};
use crate::wrapper::{self, Work, Wrapper};
use crate::{site, time};

use files::Files;

/// Slurm refuses larger scripts (max_script_size).
const MAX_SCRIPT: u64 = 4 << 20;

/// A priority of zero. Users may only be nicer than that to others in Slurm, so all jobs begin with this
/// niceness and priority takes away from it.
const NEUTRAL: i64 = 1024;

/// How much one step of priority weighs against jobs that came earlier (one each).
const STEP: i64 = 100_000;

/// `qsub [options] [SCRIPT]` or `qsub [options] -- COMMAND ...`
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse(SPEC, arguments)?;
    let (script, name) = script(&parsed)?;
    let prefix = parsed
        .value('C')
        .map(str::to_owned)
        .or_else(|| std::env::var("PBS_DPREFIX").ok())
        .unwrap_or_else(|| directives::PREFIX.to_owned());
    let text = String::from_utf8_lossy(script.as_deref().unwrap_or_default()).into_owned();
    let found = directives::find(&text, &prefix)?;
    let options = Options::of(&found, &parsed)?;
    options.check()?;
    let job = Submission::new(&options, name)?;
    if options.interactive {
        return interactive::run(&job);
    }
    let work = match (&parsed.rest, script) {
        (Some(words), _) => Work::Command(words.clone()),
        (None, script) => Work::Script {
            interpreter: match &options.shell {
                Some(shell) => vec![shell.clone()],
                None => wrapper::interpreter(&text),
            },
            text: script.unwrap_or_default(),
            arguments: options.script_arguments.clone(),
        },
    };
    job.submit(&work)
}

/// The script, and the job's name after it.
fn script(parsed: &Parsed) -> Result<(Option<Vec<u8>>, String), Failure> {
    if let Some(words) = &parsed.rest {
        let program = words
            .first()
            .ok_or_else(|| Failure::usage("no command after --"))?;
        return Ok((None, base_name(program)));
    }
    let unreadable = |file: &str, error: std::io::Error| {
        let text = error.to_string();
        let text = text
            .split(" (os error")
            .next()
            .unwrap_or_default()
            .to_owned();
        Failure::system(format!("script file '{file}' cannot be loaded - {text}"))
    };
    let mut bytes = Vec::new();
    let name = match parsed.operands.as_slice() {
        [] if parsed.has('I') => return Ok((None, "STDIN".to_owned())),
        [] => {
            if std::io::stdin().is_terminal() {
                eprintln!("Job script will be read from standard input. Submit with CTRL+D.");
            }
            read(std::io::stdin(), &mut bytes).map_err(|error| unreadable("STDIN", error))?;
            "STDIN".to_owned()
        }
        [one] if one == "-" => {
            read(std::io::stdin(), &mut bytes).map_err(|error| unreadable("STDIN", error))?;
            "STDIN".to_owned()
        }
        [file] => {
            std::fs::File::open(file)
                .and_then(|opened| read(opened, &mut bytes))
                .map_err(|error| unreadable(file, error))?;
            base_name(file)
        }
        [_, extra, ..] => {
            return Err(Failure::usage(format!(
                "unexpected operand {extra}; use -F for arguments"
            )));
        }
    };
    if bytes.len() as u64 > MAX_SCRIPT {
        return Err(Failure::system("job script size exceeds 4 MB"));
    }
    Ok((Some(bytes), name))
}

fn read(source: impl Read, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    source.take(MAX_SCRIPT + 1).read_to_end(bytes)
}

fn base_name(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    let plain = |letter: char| !(letter.is_whitespace() || letter.is_control() || letter == '\\');
    name.chars()
        .filter(|letter| plain(*letter))
        .take(230)
        .collect()
}

/// A job that is understood and checked.
struct Submission<'a> {
    options: &'a Options,
    name: String,
    server: String,
    directory: String,
    request: Request,
    layout: Layout,
    queue: Option<String>,
}

impl<'a> Submission<'a> {
    /// Checks what can be checked before Slurm sees it.
    fn new(options: &'a Options, name: String) -> Result<Self, Failure> {
        let directory = std::env::current_dir()
            .ok()
            .and_then(|path| path.into_os_string().into_string().ok())
            .ok_or_else(|| Failure::system("cannot get the working directory"))?;
        let request = options.resources.request()?;
        let queue = options.queue.as_deref().and_then(|queue| {
            let name = queue.split('@').next().unwrap_or_default();
            (!name.is_empty()).then(|| name.to_owned())
        });
        if let Some(queue) = &queue {
            check_queue(queue, request.walltime_seconds)?;
        }
        let layout = match &request.layout {
            Layout::Chunks { .. } => {
                let sizes: Vec<_> = node::all()?.iter().map(node::Node::size).collect();
                request.layout.clone().fitted(&sizes)
            }
            settled => settled.clone(),
        };
        Ok(Self {
            name: options.name.clone().unwrap_or(name),
            options,
            server: site::server(),
            directory,
            request,
            layout,
            queue,
        })
    }

    /// sbatch, which prints the job's number, and waits for its end if that was asked for.
    fn submit(&self, work: &Work) -> Result<u8, Failure> {
        let array = self.options.array.as_ref().map(|(_, dialect)| *dialect);
        let wrapper = self.wrapper(work).compose();
        let environment = environment::file(&self.environment("PBS_BATCH")).map_err(|error| {
            Failure::system(format!("cannot write the job's environment: {error}"))
        })?;
        let mut command = slurm::program("sbatch");
        command.args(["--parsable", "--ignore-pbs"]);
        let mut export = OsString::from("--export-file=");
        export.push(environment.path());
        command.arg(export).args(self.arguments());
        let files = Files::of(self.options, &self.name, &self.directory, &self.server);
        command.arg(format!("--output={}", files.output));
        if let Some(error) = &files.error {
            command.arg(format!("--error={error}"));
        }
        command.args(["--open-mode=truncate", "--kill-on-invalid-dep=yes"]);
        if let Some((array, _)) = &self.options.array {
            command.arg(format!("--array={array}"));
        }
        if self.options.block {
            command.arg("--wait");
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let run = |error| Failure::system(format!("cannot run sbatch: {error}"));
        let mut child = command.spawn().map_err(run)?;
        let mut stdin = child
            .stdin
            .take()
            .ok_or_else(|| Failure::system("sbatch has no input"))?;
        // An error here is one of sbatch's, which it explains itself.
        let _ = stdin.write_all(wrapper.as_bytes());
        drop(stdin);
        self.follow(child, array.is_some())
    }

    /// Prints the identifier as soon as it is there.
    fn follow(&self, mut child: Child, array: bool) -> Result<u8, Failure> {
        let run = |error| Failure::system(format!("cannot hear sbatch: {error}"));
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(run)?;
        }
        // `12;cluster` where there are several clusters.
        let number: Option<u32> = line.trim().split(';').next().and_then(|id| id.parse().ok());
        if let Some(number) = number
            && !self.options.quiet
        {
            let part = if array { Part::Array } else { Part::Whole };
            println!("{}", JobId { number, part }.full());
        }
        let output = child.wait_with_output().map_err(run)?;
        match (number, output.status.code()) {
            (None, _) => Err(errors::failure(&String::from_utf8_lossy(&output.stderr))),
            (Some(_), code) if self.options.block => {
                Ok(code.and_then(|code| code.try_into().ok()).unwrap_or(1))
            }
            (Some(_), _) => Ok(0),
        }
    }

    /// What sbatch and salloc are both told.
    fn arguments(&self) -> Vec<String> {
        let options = self.options;
        let mut arguments = vec![
            format!("--job-name={}", self.name),
            format!("--nice={}", niceness(options.priority.unwrap_or(0))),
        ];
        let mut say = |name: &str, value: &str| arguments.push(format!("--{name}={value}"));
        if let Some(queue) = &self.queue {
            say("partition", queue);
        }
        if let Some(account) = &options.account {
            say("account", account);
        }
        if let Some(seconds) = self.request.walltime_seconds {
            // Zero would be no limit to Slurm.
            say("time", &time::format_span(seconds.max(1)));
        }
        if let Some(begin) = options
            .begin
            .as_deref()
            .and_then(|text| time::parse_date(text, time::now()))
        {
            say("begin", &slurm_moment(begin));
        }
        if let Some(dependencies) = &options.dependencies {
            say("dependency", &dependencies.slurm());
        }
        if !self.request.features.is_empty() {
            say("constraint", &self.request.features.join("&"));
        }
        if let Some(gpus) = self.request.gpus {
            say("gpus-per-node", &gpus.to_string());
        }
        if let Some(gres) = &self.request.gres {
            say("gres", gres);
        }
        if let Some(comment) = self.note().comment() {
            say("comment", &comment);
        }
        say(
            "chdir",
            options.directory.as_deref().unwrap_or(&environment::home()),
        );
        let (points, users) = (
            options.mail_points.as_deref(),
            options.mail_users.as_deref(),
        );
        if let Some(kinds) = mail_kinds(points, users.is_some()) {
            say("mail-type", &kinds);
            say("mail-user", users.unwrap_or(&site::user()));
        }
        if options.hold {
            arguments.push("--hold".to_owned());
        }
        if options.exclusive || self.request.exclusive {
            arguments.push("--exclusive".to_owned());
        }
        if !options.interactive {
            let rerunable = options.rerunable.unwrap_or(true);
            arguments.push(
                if rerunable {
                    "--requeue"
                } else {
                    "--no-requeue"
                }
                .to_owned(),
            );
        }
        arguments.extend(
            self.layout
                .slurm(self.request.memory_bytes, self.request.process_memory_bytes),
        );
        arguments
    }

    fn note(&self) -> Note {
        let join = match self.options.join {
            Some(Join::IntoOutput) => "oe",
            Some(Join::IntoError) => "eo",
            Some(Join::Apart) | None => "",
        };
        Note {
            resources: self
                .options
                .resources
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            directory: self.directory.clone(),
            join: join.to_owned(),
            array: self
                .options
                .array
                .as_ref()
                .map_or_else(String::new, |(array, _)| array.to_string()),
            torque: matches!(self.options.array, Some((Array { .. }, Dialect::Torque))),
            project: self.options.project.clone().unwrap_or_default(),
        }
    }

    fn wrapper<'w>(&'w self, work: &'w Work) -> Wrapper<'w> {
        Wrapper {
            server: &self.server,
            torque: matches!(self.options.array, Some((_, Dialect::Torque))),
            // Who hands on the whole environment wants that one, not the profile's.
            profile: !self.options.whole_environment,
            umask: self.options.umask,
            limits: &self.request.limits,
            layout: &self.layout,
            work,
        }
    }

    fn environment(&self, kind: &str) -> Vec<(OsString, OsString)> {
        environment::of(&environment::Sources {
            options: self.options,
            server: &self.server,
            directory: &self.directory,
            layout: &self.layout,
            chunk: self.request.layout.first(),
            threads: self.request.threads,
            walltime_seconds: self.request.walltime_seconds,
            kind,
        })
    }
}

/// A moment as Slurm reads it.
pub fn slurm_moment(moment: jiff::civil::DateTime) -> String {
    moment.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// The niceness that stands for a priority.
pub fn niceness(priority: i32) -> i64 {
    (NEUTRAL - i64::from(priority)) * STEP
}

/// The priority that a niceness stands for.
pub fn priority(niceness: i64) -> i64 {
    NEUTRAL - niceness / STEP
}

/// Refuses queues that take no jobs, and times longer than theirs.
pub fn check_queue(name: &str, walltime_seconds: Option<u64>) -> Result<(), Failure> {
    let partitions = partition::all()?;
    let queue = partition::open(&partitions, name)?;
    match (walltime_seconds, queue.max_seconds()) {
        (Some(wanted), Some(most)) if wanted > most => Err(Failure::because(
            Error::ExceedsQueue,
            "cannot satisfy queue max walltime requirement",
        )),
        _ => Ok(()),
    }
}

/// Slurm's kinds of mail for PBS's points. Without a word about mail there is none.
pub fn mail_kinds(points: Option<&str>, has_users: bool) -> Option<String> {
    let points = match points {
        Some(points) => points,
        // PBS's default, for those who say where mail goes.
        None if has_users => "a",
        None => return None,
    };
    let mut kinds = Vec::new();
    for point in points.chars() {
        match point {
            'a' | 'f' => kinds.extend(["FAIL", "TIME_LIMIT"]),
            'b' => kinds.push("BEGIN"),
            'e' => kinds.push("END"),
            _ => {}
        }
    }
    kinds.dedup();
    Some(if kinds.is_empty() {
        "NONE".to_owned()
    } else {
        kinds.join(",")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_become_niceness_that_users_may_have() {
        for priority in [-1024, -1, 0, 5, 1023] {
            let nice = niceness(priority);
            assert!(nice > 0 && nice < i64::from(i32::MAX));
            assert_eq!(super::priority(nice), i64::from(priority));
        }
    }

    #[test]
    fn mail_is_sent_at_the_points_that_were_asked_for() {
        for (points, users, kinds) in [
            (None, false, None),
            (None, true, Some("FAIL,TIME_LIMIT")),
            (Some("abe"), false, Some("FAIL,TIME_LIMIT,BEGIN,END")),
            (Some("n"), true, Some("NONE")),
        ] {
            assert_eq!(mail_kinds(points, users).as_deref(), kinds, "{points:?}");
        }
    }

    #[test]
    fn names_come_from_files() {
        assert_eq!(base_name("/a/b/job 1.sh"), "job1.sh");
    }
}
