//! qstat: jobs, queues and the server, as tables, in full or as JSON.

mod attributes;
mod full;
mod queues;
mod tables;

use std::ffi::OsString;

use crate::arguments::{self, Parsed};
use crate::failure::{Error, Failure};
use crate::job_id::{JobId, Part};
use crate::site;
use crate::slurm::job::State;
use crate::slurm::partition;
use crate::slurm::queue::{Entry, Queue};

const SPEC: &str = "aefinpqrstwxu:F:GHJMQEBW:T1R";

/// The options that ask for the other table.
const OTHER_TABLE: &str = "ainrsuHTGMR";

/// `qstat [-a|-i|-r|-n|-s|-H|-u USERS|-f] [-t] [-x] [-1] [-w] [-F json] [JOB|QUEUE|@SERVER...]`, `qstat -Q`,
/// `qstat -q`, `qstat -B`
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse(SPEC, arguments)?;
    if parsed.value('F').is_some_and(|format| format != "json") {
        return Err(Failure::illegal('F'));
    }
    let modes = ['Q', 'B', 'q']
        .iter()
        .filter(|mode| parsed.has(**mode))
        .count();
    if modes > 1 || (modes == 1 && OTHER_TABLE.chars().any(|option| parsed.has(option))) {
        return Err(Failure::usage("conflicting options."));
    }
    let queue = Queue::load()?;
    if modes == 1 {
        return queues::run(&parsed, &queue);
    }
    let (entries, code) = select(&parsed, &queue)?;
    let letters = Letters {
        history: parsed.has('x') || parsed.has('H'),
    };
    if parsed.has('F') {
        full::json(&entries, &queue, letters);
    } else if parsed.has('f') {
        full::text(
            &entries,
            &queue,
            letters,
            parsed.has('1') || parsed.has('w'),
        );
    } else if OTHER_TABLE.chars().any(|option| parsed.has(option)) {
        let style = tables::Style {
            nodes: parsed.has('n'),
            comment: parsed.has('s'),
            one_line: parsed.has('1'),
            wide: parsed.has('w'),
        };
        tables::other(&entries, &queue, letters, style);
    } else {
        tables::plain(&entries, &queue, letters, parsed.has('p'));
    }
    Ok(code)
}

/// How states are written.
#[derive(Debug, Clone, Copy)]
struct Letters {
    history: bool,
}

impl Letters {
    /// An element that is over is expired as long as its array lives.
    fn of(self, entry: &Entry) -> char {
        let element = matches!(entry.id.part, Part::Elements(_));
        if element && entry.state == State::Finished && !self.history {
            'X'
        } else {
            entry.state.letter()
        }
    }
}

/// The entries that the operands and options ask for, and the exit code for operands that name nothing.
fn select<'a>(parsed: &Parsed, queue: &'a Queue) -> Result<(Vec<Entry<'a>>, u8), Failure> {
    let history = parsed.has('x') || parsed.has('H');
    let elements = parsed.has('t');
    let wanted = |entry: &Entry| {
        let state = entry.state;
        let element = matches!(entry.id.part, Part::Elements(_));
        let user = |users: &str| {
            users
                .split(',')
                .any(|user| user.trim().split('@').next() == Some(&entry.job.user_name))
        };
        (history || element || state != State::Finished)
            && (!parsed.has('H') || state == State::Finished)
            && (!parsed.has('i') || state.is_pending() || state == State::Exiting)
            && (!parsed.has('r')
                || matches!(state, State::Running | State::Suspended | State::Begun))
            && (!parsed.has('J') || entry.id.part == Part::Array || element)
            && parsed.value('u').is_none_or(user)
    };
    let all = || {
        let entries = queue.entries(elements);
        // Elements of an array that is over are history with it.
        let over: Vec<u32> = entries
            .iter()
            .filter(|entry| entry.id.part == Part::Array && entry.state == State::Finished)
            .map(|entry| entry.id.number)
            .collect();
        entries
            .into_iter()
            .filter(move |entry| history || !over.contains(&entry.id.number))
            .filter(&wanted)
    };
    if parsed.operands.is_empty() {
        return Ok((all().collect(), 0));
    }
    let mut found = Vec::new();
    let mut code = 0;
    for operand in &parsed.operands {
        let named = match destination(operand) {
            Some(name) => known_queue(name).map(|()| {
                all()
                    .filter(|entry| name.is_empty() || entry.job.partition == name)
                    .collect()
            }),
            None => named(operand, queue, history, elements),
        };
        match named {
            Ok(entries) => found.extend(entries),
            Err(failure) => {
                failure.report("qstat");
                code = failure.code;
            }
        }
    }
    Ok((found, code))
}

/// The queue that an operand names; empty for all of the server's. `None` for a job.
fn destination(operand: &str) -> Option<&str> {
    if operand.starts_with(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    Some(operand.split('@').next().unwrap_or_default())
}

fn known_queue(name: &str) -> Result<(), Failure> {
    if name.is_empty()
        || partition::all()?
            .iter()
            .any(|partition| partition.name == name)
    {
        return Ok(());
    }
    Err(Failure::about(Error::UnknownQueue, name))
}

fn named<'a>(
    operand: &str,
    queue: &'a Queue,
    history: bool,
    elements: bool,
) -> Result<Vec<Entry<'a>>, Failure> {
    let id = JobId::operand(operand)?;
    let mut entries = queue.find(&id)?;
    if let [entry] = entries.as_slice()
        && entry.state == State::Finished
        && !history
    {
        return Err(Failure {
            message: format!(
                "{} Job has finished, use -x or -H to obtain historical job information",
                entry.id.full()
            ),
            code: Error::Finished.code(),
        });
    }
    if elements && entries.len() == 1 && entries[0].id.part == Part::Array {
        let number = id.number;
        entries = queue
            .entries(true)
            .into_iter()
            .filter(|entry| entry.id.number == number)
            .collect();
    }
    Ok(entries)
}

/// The identifier with as much of the server's name as tables have room for.
fn short_id(id: &JobId) -> String {
    let server = site::server();
    format!("{id}.{}", server.split('.').next().unwrap_or(&server))
}
