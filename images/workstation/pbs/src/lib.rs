//! PBS as its users know it, in front of Slurm: one program for all of PBS's commands.
//!
//! What PBS's text means (options, directives, resources, times, ids) is parsed here; Slurm's own programs do
//! the work and answer in JSON. `pbs-compat.md` beside this crate is the table of what is the same and what
//! is not. Nothing here keeps a state of its own: what Slurm has no field for stands in the job's comment.
#![forbid(unsafe_code)]

pub mod arguments;
pub mod array;
pub mod commands;
pub mod dependency;
pub mod directives;
pub mod failure;
pub mod job_id;
pub mod nodefile;
pub mod options;
pub mod resources;
pub mod site;
pub mod size;
pub mod slurm;
pub mod time;
pub mod variables;
pub mod wrapper;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use failure::Failure;

/// What a command of PBS is: its arguments in, its exit code out.
type Command = fn(Vec<OsString>) -> Result<u8, Failure>;

/// PBS's commands by their names.
const COMMANDS: &[(&str, Command)] = &[
    ("qsub", commands::qsub::run),
    ("qstat", commands::qstat::run),
    ("qdel", commands::qdel::run),
    ("qhold", commands::hold::hold),
    ("qrls", commands::hold::release),
    ("qalter", commands::qalter::run),
    ("qsig", commands::qsig::run),
    ("qselect", commands::qselect::run),
    ("qmove", commands::queue::qmove),
    ("qrerun", commands::queue::qrerun),
    ("pbsnodes", commands::pbsnodes::run),
];

/// Runs the command that `arguments` names, by the name of the program or by the first argument.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let program = arguments.next().unwrap_or_default();
    let mut name = base_name(&program);
    if find(&name).is_none() {
        name = arguments
            .next()
            .map_or_else(String::new, |first| base_name(&first));
    }
    let Some(command) = find(&name) else {
        let names: Vec<_> = COMMANDS.iter().map(|(name, _)| *name).collect();
        eprintln!("usage: wow-pbs {} ...", names.join("|"));
        return ExitCode::from(failure::USAGE);
    };
    let arguments: Vec<OsString> = arguments.collect();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("pbs_version = {}", site::VERSION);
        return ExitCode::SUCCESS;
    }
    match command(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.report(&name);
            ExitCode::from(failure.code)
        }
    }
}

fn find(name: &str) -> Option<Command> {
    COMMANDS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, command)| *command)
}

fn base_name(path: &OsString) -> String {
    Path::new(path)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}
