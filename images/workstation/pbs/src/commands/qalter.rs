//! qalter: changes jobs that wait, and a little of those that run.

use std::ffi::OsString;

use crate::arguments;
use crate::dependency::Dependencies;
use crate::failure::{Error, Failure};
use crate::options::Options;
use crate::resources::{Layout, Request};
use crate::slurm::queue::Entry;
use crate::slurm::{self, node};
use crate::time;

use super::qsub::files::Files;
use super::qsub::{check_queue, mail_kinds, niceness, slurm_moment};

/// As qsub's, except that `-h` says which holds.
const SPEC: &str = "a:A:c:e:h:j:k:l:m:M:N:o:p:P:r:S:u:v:W:x:t:";

/// What Slurm changes of a job that runs already.
const WHILE_RUNNING: &str = "almMNpr";

/// `qalter OPTIONS JOB...`
pub fn run(arguments: Vec<OsString>) -> Result<u8, Failure> {
    let parsed = arguments::parse(SPEC, arguments)?;
    let mut options = Options::default();
    let mut hold = None;
    for (option, value) in &parsed.options {
        match option {
            'h' => hold = Some(value.as_str()),
            'W' if value.trim() == "depend=" => {
                // An empty dependency: none any more.
                options.dependencies = None;
            }
            'A' | 'S' | 'v' | 'u' | 'j' | 'k' | 'P' | 'x' | 't' => {
                return Err(Failure::usage(format!(
                    "-{option} cannot be changed here; delete the job and submit it again"
                )));
            }
            _ => options.set(*option, value)?,
        }
    }
    let forget = parsed
        .options
        .iter()
        .any(|(option, value)| *option == 'W' && value.trim() == "depend=");
    let request = options.resources.request()?;
    let fixed = parsed
        .options
        .iter()
        .find(|(option, _)| !WHILE_RUNNING.contains(*option));
    super::each("qalter", &parsed.operands, |_, entries| {
        for entry in entries {
            super::unfinished(entry)?;
            if !entry.state.is_pending() && (fixed.is_some() || options.resources.has_placement()) {
                return Err(Failure::of(Error::Running));
            }
            if let Some(priority) = options.priority {
                prioritise(entry, priority)?;
            }
            let mut changes = changes(&options, &request, entry)?;
            if forget {
                changes.push("Dependency=".to_owned());
            }
            if !changes.is_empty() {
                changes.insert(0, format!("JobId={}", entry.slurm_id()));
                changes.insert(0, "update".to_owned());
                slurm::act("scontrol", &changes)?;
            }
            if let Some(kinds) = hold {
                let verb = match kinds {
                    "n" => "release",
                    "u" => "uhold",
                    "o" | "s" | "uo" | "us" | "os" | "uos" => "hold",
                    _ => return Err(Failure::illegal('h')),
                };
                slurm::act("scontrol", &[verb, &entry.slurm_id()])?;
            }
        }
        Ok(())
    })
}

/// Changes a job's niceness. Slurm lets go of a held job by that, so such a one is put off meanwhile.
fn prioritise(entry: &Entry, priority: i32) -> Result<(), Failure> {
    let job = entry.job;
    let id = format!("JobId={}", entry.slurm_id());
    let nice = format!("Nice={}", niceness(priority));
    let verb = match &*job.state_reason {
        "JobHeldUser" => "uhold",
        "JobHeldAdmin" if rustix::process::geteuid().is_root() => "hold",
        "JobHeldAdmin" => return Err(Failure::of(Error::Permission)),
        _ => return slurm::act("scontrol", &["update", &id, &nice]).map(drop),
    };
    slurm::act("scontrol", &["update", &id, &nice, "StartTime=now+1hour"])?;
    slurm::act("scontrol", &[verb, &entry.slurm_id()])?;
    let start = match job.start_time.positive().and_then(time::local) {
        Some(moment) if moment > time::now() => slurm_moment(moment),
        _ => "now".to_owned(),
    };
    slurm::act("scontrol", &["update", &id, &format!("StartTime={start}")]).map(drop)
}

/// What is to change, in scontrol's words. The job's comment follows what it was asked for.
fn changes(options: &Options, request: &Request, entry: &Entry) -> Result<Vec<String>, Failure> {
    let job = entry.job;
    let mut changes = Vec::new();
    let mut say = |name: &str, value: &str| changes.push(format!("{name}={value}"));
    if let Some(name) = &options.name {
        say("JobName", name);
    }
    if let Some(rerunable) = options.rerunable {
        say("Requeue", if rerunable { "1" } else { "0" });
    }
    if let Some(begin) = options
        .begin
        .as_deref()
        .and_then(|text| time::parse_date(text, time::now()))
    {
        say("StartTime", &slurm_moment(begin));
    }
    if let Some(dependencies) = &options.dependencies {
        say("Dependency", &Dependencies::slurm(dependencies));
    }
    if let Some(kinds) = mail_kinds(options.mail_points.as_deref(), options.mail_users.is_some()) {
        say("MailType", &kinds);
    }
    if let Some(users) = &options.mail_users {
        say("MailUser", users);
    }
    let note = job.note();
    let files = Files::of(
        options,
        options.name.as_deref().unwrap_or(&job.name),
        &note.directory,
        &crate::site::server(),
    );
    // Who renames a job means its files too, as long as they have the job's name.
    let renamed = |path: &str| options.name.is_some() && path.contains(&format!("/{}.", job.name));
    if options.output.is_some() || renamed(&job.standard_output) {
        say("StdOut", &files.output);
    }
    if let Some(error) = &files.error
        && note.join.is_empty()
        && (options.error.is_some() || renamed(&job.standard_error))
    {
        say("StdErr", error);
    }
    if options.resources.is_empty() {
        return Ok(changes);
    }
    if let Some(seconds) = request.walltime_seconds {
        check_queue(&job.partition, Some(seconds))?;
        say("TimeLimit", &time::format_span(seconds.max(1)));
    }
    if options.resources.has_placement() {
        let sizes: Vec<_> = node::all()?.iter().map(node::Node::size).collect();
        let layout = request.layout.clone().fitted(&sizes);
        if !matches!(layout, Layout::Shares(_)) || !same_shape(&layout) {
            // The node file is written by the script that was submitted.
            return Err(Failure::because(
                Error::BadValue,
                "only nodes of the same size can be asked for afterwards",
            ));
        }
        let (processes, cpus) = layout.first();
        say("NumNodes", &layout.nodes().to_string());
        say("NumTasks", &layout.processes().to_string());
        say("NumCPUs", &layout.cpus().to_string());
        say("TasksPerNode", &processes.to_string());
        say("CPUsPerTask", &cpus.div_ceil(processes).to_string());
        say("MinCPUsNode", &cpus.to_string());
    }
    let mut note = note;
    let mut resources = crate::resources::Resources::default();
    for (name, value) in &note.resources {
        resources.add(&format!("{name}={value}"))?;
    }
    resources.override_with(options.resources.clone());
    note.resources = resources
        .iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    if let Some(comment) = note.comment() {
        say("Comment", &comment);
    }
    Ok(changes)
}

fn same_shape(layout: &Layout) -> bool {
    match layout {
        Layout::Shares(shares) => {
            shares.windows(2).all(|pair| pair[0] == pair[1])
                && shares.iter().all(|share| share.host.is_none())
        }
        _ => false,
    }
}
