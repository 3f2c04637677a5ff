//! One host: an `ssh` process, what is written to it and what it says, within its limits of time.
//!
//! Threads of their own read and write, since each may wait for ever. They end with the pipes, which end with
//! the process; they are not waited for, as a proxy of ssh's may hold a pipe longer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::hosts::Target;
use super::order::Order;
use super::outcome::{Ended, Outcome};
use super::reply::{self, Line};
use super::{Event, Plan, Watch, ssh};
use crate::bundle::Bundle;
use crate::host::Guarded;

/// How often a wait looks whether it is to stop.
const SLICE: Duration = Duration::from_millis(200);
/// How much later than ssh's own limit for connecting ours is: ssh knows better what happened.
const GRACE: Duration = Duration::from_secs(1);
/// How long ssh may take to end when the host has closed its side.
const END_LIMIT: Duration = Duration::from_secs(5);
/// What a host may say altogether. Sessions take a few hundred lines of nobody.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;
/// How much of ssh's complaints is kept.
const COMPLAINT_BYTES_MAX: u64 = 16 * 1024;
/// Lines that wait to be looked at.
const LINES_MAX: usize = 64;

/// Does the order on one host.
pub(super) fn run(
    plan: &Plan,
    order: &Order,
    target: &Target,
    watch: &Watch<'_>,
    stopped: &dyn Fn() -> bool,
) -> Outcome {
    let started = Instant::now();
    let command = plan
        .login
        .command(target, plan.limits.connect, &order.command);
    let outcome = match Session::open(command, order) {
        Ok(mut session) => session.listen(plan, target, started, watch, stopped),
        Err(error) => {
            let mut outcome = Outcome::new(target, Ended::Failed);
            let remedy = "install the package openssh-client on this machine";
            outcome.fail(format!("cannot run ssh: {error}"), Some(remedy));
            outcome
        }
    };
    outcome.after(started.elapsed())
}

struct Session {
    ssh: Guarded,
    lines: Receiver<String>,
    complaints: Receiver<String>,
    /// Dropped when nothing more is to be written; then standard input ends.
    bundles: Option<SyncSender<Bundle>>,
    bundle: Option<Bundle>,
}

impl Session {
    fn open(mut command: Command, order: &Order) -> io::Result<Self> {
        let (input_reader, input) = io::pipe()?;
        let (output, output_writer) = io::pipe()?;
        let (complaint, complaint_writer) = io::pipe()?;
        command
            .stdin(input_reader)
            .stdout(output_writer)
            .stderr(complaint_writer);
        let ssh = Guarded::spawn(command)?;
        let (line_sender, lines) = sync_channel(LINES_MAX);
        let (complaint_sender, complaints) = sync_channel(1);
        let (bundle_sender, bundles) = sync_channel(1);
        let text = order.input.clone();
        thread::spawn(move || write(input, text.bytes(), &bundles));
        thread::spawn(move || read_lines(output, &line_sender));
        thread::spawn(move || {
            let mut text = Vec::new();
            let mut complaint = complaint.take(COMPLAINT_BYTES_MAX);
            // What was read before an error counts.
            let _ = complaint.read_to_end(&mut text);
            let _ = complaint_sender.send(String::from_utf8_lossy(&text).into_owned());
            // The rest is read, or ssh would wait for us.
            let _ = io::copy(&mut complaint.into_inner(), &mut io::sink());
        });
        Ok(Self {
            ssh,
            lines,
            complaints,
            bundles: Some(bundle_sender),
            bundle: order.bundle.clone(),
        })
    }

    /// Follows what the host says until it is done or its time is.
    fn listen(
        &mut self,
        plan: &Plan,
        target: &Target,
        started: Instant,
        watch: &Watch<'_>,
        stopped: &dyn Fn() -> bool,
    ) -> Outcome {
        let limits = plan.limits;
        let mut outcome = Outcome::new(target, Ended::Failed);
        let mut answered = false;
        let mut step = "logging in".to_owned();
        watch(Event::Step(target, &step));
        let failure = loop {
            let limit = match answered {
                true => limits.host,
                false => limits.host.min(limits.connect + GRACE),
            };
            let left = limit.saturating_sub(started.elapsed());
            if stopped() {
                break "interrupted".to_owned();
            }
            if left.is_zero() {
                let seconds = limit.as_secs();
                break match answered {
                    true => format!("not done after {seconds} s, when it was {step}"),
                    false => format!("no answer to the login within {seconds} s"),
                };
            }
            let text = match self.lines.recv_timeout(left.min(SLICE)) {
                Ok(text) => text,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => {
                    self.ended_early(&mut outcome, answered, &step);
                    return outcome;
                }
            };
            let Some(line) = reply::parse(&text) else {
                continue;
            };
            if !answered {
                answered = true;
                step = "preparing".into();
                watch(Event::Step(target, &step));
            }
            match line {
                Line::Send => {
                    step = "sending the bundle".into();
                    watch(Event::Step(target, &step));
                    if let (Some(bundles), Some(bundle)) = (&self.bundles, self.bundle.take()) {
                        // The thread ends only with ssh, whose end shows as that of its output.
                        let _ = bundles.send(bundle);
                    }
                    self.bundles = None;
                }
                Line::Step(text) => {
                    watch(Event::Step(target, &text));
                    step = text;
                }
                Line::Fact(key, value) => note(&mut outcome, &key, value),
                Line::Status(node) => {
                    outcome.name = Some(node.name);
                    outcome.id = Some(node.id);
                    outcome.address = Some(node.addresses.v4);
                }
                Line::Fail(error) => {
                    let remedy = host_remedy(&error);
                    outcome.fail(error, remedy);
                    self.end();
                    return outcome;
                }
                Line::Done(result) => {
                    match Ended::of_host(&result) {
                        Some(ended) => outcome.ended = ended,
                        None => outcome.fail(format!("an unknown result: {result}"), None),
                    }
                    self.end();
                    return outcome;
                }
            }
        };
        self.kill();
        let complaint = self.complaint();
        let error = match complaint.is_empty() {
            true => failure,
            false => format!("{failure}: {complaint}"),
        };
        let remedy = match answered {
            false => "see whether `ssh -v` gets through, and run this again",
            true => "run this again: it goes on with what is left; or give it a longer --timeout",
        };
        outcome.fail(error, Some(remedy));
        outcome
    }

    /// The host has said all and not that it is done: ssh failed, or the host's shell.
    fn ended_early(&mut self, outcome: &mut Outcome, answered: bool, step: &str) {
        self.bundles = None;
        let status = self.ssh.wait_for(END_LIMIT).ok().flatten();
        self.kill();
        let all = self.complaint_text();
        let said = last_line(&all);
        if answered {
            let error = format!("the connection broke while it was {step}: {said}");
            outcome.fail(error, Some("run this again: it goes on with what is left"));
        } else if status.and_then(|status: ExitStatus| status.code()) == Some(ssh::OWN_FAILURE) {
            let said = match said.is_empty() {
                true => "it ended without a word".to_owned(),
                false => said,
            };
            let said = said.strip_prefix("ssh: ").unwrap_or(&said);
            outcome.fail(format!("ssh: {said}"), ssh::remedy(&all));
        } else {
            let error = format!("the login runs no commands: {said}");
            let remedy =
                ssh::remedy(&all).or(Some("give the login an ordinary shell on that host"));
            outcome.fail(error, remedy);
        }
    }

    /// Lets ssh end by itself, for a while.
    fn end(&mut self) {
        self.bundles = None;
        if !matches!(self.ssh.wait_for(END_LIMIT), Ok(Some(_))) {
            self.kill();
        }
    }

    /// Ends ssh with its proxies.
    fn kill(&mut self) {
        let group = i32::try_from(self.ssh.pid()).ok().and_then(Pid::from_raw);
        if let (Some(group), Ok(None)) = (group, self.ssh.try_wait()) {
            // It may just have ended.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.ssh.kill();
    }

    fn complaint(&self) -> String {
        last_line(&self.complaint_text())
    }

    fn complaint_text(&self) -> String {
        self.complaints.recv_timeout(SLICE).unwrap_or_default()
    }
}

fn write(mut input: io::PipeWriter, text: &[u8], bundles: &Receiver<Bundle>) {
    // An error is the end of ssh, which is noticed by its output.
    if input.write_all(text).is_err() {
        return;
    }
    if let Ok(bundle) = bundles.recv() {
        let _ = input.write_all(bundle.bytes());
    }
}

/// Sends lines on until there are no more, or too much of them.
fn read_lines(output: io::PipeReader, lines: &SyncSender<String>) {
    let mut output = BufReader::new(output.take(OUTPUT_BYTES_MAX));
    loop {
        let mut line = Vec::new();
        let mut rest = (&mut output).take(reply::LINE_BYTES_MAX as u64);
        match rest.read_until(b'\n', &mut line) {
            Ok(1..) => {}
            _ => return,
        }
        if lines
            .send(String::from_utf8_lossy(&line).into_owned())
            .is_err()
        {
            return;
        }
    }
}

fn note(outcome: &mut Outcome, key: &str, value: String) {
    let value = (!value.is_empty()).then_some(value);
    match key {
        "manager" => outcome.manager = value,
        "boot" => outcome.boot = value,
        "version" => outcome.version = value,
        "previous" => outcome.previous = value,
        "log" => outcome.log = value,
        _ => {}
    }
}

/// What to do about a failure that the host reports.
fn host_remedy(error: &str) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 8] = [
        ("disk is full", "make room there, and run this again"),
        ("No space left", "make room there, and run this again"),
        ("quota", "make room there, and run this again"),
        (
            "Read-only file system",
            "make the home directory writable there, and run this again",
        ),
        (
            "not in its pool",
            "see what it says; --status asks it again",
        ),
        (
            "does not run; its log",
            "correct what its log says, and run this again",
        ),
        ("somebody else deploys", "wait for them, and run this again"),
        ("Permission denied", "let the login write there"),
    ];
    let found = REMEDIES.iter().find(|(words, _)| error.contains(words));
    found.map(|(_, remedy)| *remedy)
}

fn last_line(text: &str) -> String {
    let line = text.lines().rev().find(|line| !line.trim().is_empty());
    reply::shown(line.unwrap_or_default())
}
