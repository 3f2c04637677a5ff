//! A job's attributes by PBS's names, from Slurm's fields and our note.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::commands::qsub::priority;
use crate::dependency;
use crate::job_id::Part;
use crate::resources::{Request, Resources};
use crate::site;
use crate::slurm::job::{Job, State};
use crate::slurm::note::Note;
use crate::slurm::queue::{Entry, Queue};
use crate::{size, time};

/// An attribute: its name, its resource if it is of many, and its value. Times are seconds since 1970.
pub struct Attribute {
    /// PBS's name.
    pub name: &'static str,
    /// `walltime` of `Resource_List.walltime`.
    pub resource: Option<String>,
    /// Text or number.
    pub value: Value,
    /// Whether the number is a moment.
    pub moment: bool,
}

/// What is known about an entry.
pub struct Attributes<'a> {
    entry: &'a Entry<'a>,
    note: Note,
    asked: Option<Request>,
    now: u64,
}

impl<'a> Attributes<'a> {
    /// Reads the entry's note.
    pub fn new(entry: &'a Entry<'a>, queue: &Queue) -> Self {
        let note = entry.job.note();
        let mut resources = Resources::default();
        let known = note
            .resources
            .iter()
            .all(|(name, value)| resources.add(&format!("{name}={value}")).is_ok());
        Self {
            asked: known.then(|| resources.request().ok()).flatten(),
            entry,
            note,
            now: queue.now,
        }
    }

    /// Nodes: those it has, else those it asked for.
    pub fn nodes(&self) -> u64 {
        let job = self.entry.job;
        job.node_count
            .positive()
            .or_else(|| {
                self.asked
                    .as_ref()
                    .map(|asked| u64::from(asked.layout.nodes()))
            })
            .unwrap_or(1)
    }

    /// Processors that it asked for.
    pub fn cpus(&self) -> u64 {
        match &self.asked {
            Some(asked) if !self.note.resources.is_empty() => u64::from(asked.layout.cpus()),
            _ => self.entry.job.cpus.positive().unwrap_or(1),
        }
    }

    /// Memory that it asked for.
    pub fn memory_bytes(&self) -> Option<u64> {
        let job = self.entry.job;
        self.asked
            .as_ref()
            .and_then(|asked| asked.memory_bytes)
            .or_else(|| {
                let node = job
                    .memory_per_node
                    .positive()
                    .map(|mebibytes| mebibytes * self.nodes());
                let processor = job
                    .memory_per_cpu
                    .positive()
                    .map(|mebibytes| mebibytes * self.cpus());
                node.or(processor).map(|mebibytes| mebibytes << 20)
            })
    }

    /// The time it may take: to the second as it was asked for, as long as Slurm's minutes agree.
    pub fn walltime_seconds(&self) -> Option<u64> {
        let minutes = self.entry.job.time_limit.positive()?;
        let asked = self.asked.as_ref().and_then(|asked| asked.walltime_seconds);
        Some(
            asked
                .filter(|seconds| seconds.div_ceil(60).max(1) == minutes)
                .unwrap_or(minutes * 60),
        )
    }

    /// All of them, in OpenPBS's order.
    pub fn all(&self, letter: char) -> Vec<Attribute> {
        let job = self.entry.job;
        let state = self.entry.state;
        let mut list = List(Vec::new());
        let host = if job.allocating_node.is_empty() {
            site::server()
        } else {
            job.allocating_node.clone()
        };
        list.text("Job_Name", self.entry.name());
        list.text("Job_Owner", format!("{}@{host}", job.user_name));
        let ran = self.entry.ran_seconds(self.now);
        if !state.is_pending() && self.entry.id.part != Part::Array {
            list.of(
                "resources_used",
                "ncpus",
                json!(job.cpus.get().unwrap_or(0)),
            );
            list.of("resources_used", "walltime", json!(time::format_span(ran)));
        }
        list.text("job_state", letter.to_string());
        list.text("queue", &job.partition);
        list.text("server", site::server());
        if !job.account.is_empty() {
            list.text("Account_Name", &job.account);
        }
        list.text("Checkpoint", "u");
        list.moment("ctime", job.submit_time.get());
        if !job.dependency.is_empty() {
            list.text(
                "depend",
                dependency::from_slurm(&job.dependency, &site::server()),
            );
        }
        if job.batch_flag {
            list.text(
                "Error_Path",
                format!("{host}:{}", self.file(&job.standard_error)),
            );
        }
        if let Some(hosts) = exec_host(job) {
            list.text("exec_host", hosts);
            let chunks: Vec<String> = job
                .allocations()
                .iter()
                .map(|allocation| format!("({}:ncpus={})", allocation.name, allocation.cpus()))
                .collect();
            list.text("exec_vnode", chunks.join("+"));
        }
        if state == State::Waiting {
            list.moment("Execution_Time", job.eligible_time.get());
        }
        let held = state == State::Held;
        let holder = match &*job.state_reason {
            "JobHeldAdmin" => "s",
            "Dependency" | "DependencyNeverSatisfied" => "s",
            _ => "u",
        };
        list.text("Hold_Types", if held { holder } else { "n" });
        list.text(
            "Join_Path",
            if self.note.join.is_empty() {
                "n"
            } else {
                &self.note.join
            },
        );
        list.text("Keep_Files", "n");
        list.text("Mail_Points", mail_points(&job.mail_type));
        if !job.mail_user.is_empty() && !job.mail_type.is_empty() {
            list.text("Mail_Users", &job.mail_user);
        }
        let changed = match state {
            State::Finished | State::Exiting => job.end_time.positive(),
            _ if !state.is_pending() => job.start_time.positive(),
            _ => None,
        };
        list.moment("mtime", changed.or(job.submit_time.get()));
        if job.batch_flag {
            list.text(
                "Output_Path",
                format!("{host}:{}", self.file(&job.standard_output)),
            );
        } else {
            list.text("interactive", "True");
        }
        list.add("Priority", None, json!(priority(job.nice)));
        list.moment("qtime", job.submit_time.get());
        list.text("Rerunable", if job.requeue { "True" } else { "False" });
        for (name, value) in self.resource_list() {
            list.of("Resource_List", &name, value);
        }
        if !state.is_pending() {
            list.moment("stime", job.start_time.positive());
        }
        let variables = [
            ("PBS_O_HOST", host.clone()),
            ("PBS_O_LOGNAME", job.user_name.clone()),
            ("PBS_O_SYSTEM", "Linux".to_owned()),
            ("PBS_O_QUEUE", job.partition.clone()),
            ("PBS_O_WORKDIR", self.note.directory.clone()),
        ];
        for (name, value) in variables.into_iter().filter(|(_, value)| !value.is_empty()) {
            list.of("Variable_List", name, json!(value));
        }
        if let Some(comment) = comment(self.entry) {
            list.text("comment", comment);
        }
        list.moment("etime", job.eligible_time.positive());
        list.text("euser", &job.user_name);
        list.text("egroup", &job.group_name);
        list.add(
            "run_count",
            None,
            json!(job.restart_cnt + u32::from(!state.is_pending())),
        );
        if !self.note.project.is_empty() {
            list.text("project", &self.note.project);
        }
        self.array(&mut list);
        if state == State::Finished && self.entry.id.part != Part::Array {
            list.add("Exit_status", None, json!(job.exit_status()));
        }
        list.0
    }

    fn array(&self, list: &mut List) {
        match (&self.entry.id.part, self.entry.index()) {
            (Part::Array, _) => {
                let count = |fits: fn(State) -> bool| {
                    self.entry
                        .elements
                        .iter()
                        .filter(|(_, state)| fits(*state))
                        .count()
                };
                list.text("array", "True");
                list.text(
                    "array_state_count",
                    format!(
                        "Queued:{} Running:{} Exiting:{} Expired:{}",
                        count(State::is_pending),
                        count(|state| matches!(state, State::Running | State::Suspended)),
                        count(|state| state == State::Exiting),
                        count(|state| state == State::Finished),
                    ),
                );
                let submitted = self.note.array.split('%').next().unwrap_or_default();
                list.text("array_indices_submitted", submitted);
            }
            (Part::Elements(_), Some(index)) => {
                list.text(
                    "array_id",
                    format!("{}[].{}", self.entry.id.number, site::server()),
                );
                list.add("array_index", None, json!(index));
            }
            _ => {}
        }
    }

    /// What was asked for, and what that is altogether.
    fn resource_list(&self) -> BTreeMap<String, Value> {
        let mut list: BTreeMap<String, Value> = self
            .note
            .resources
            .iter()
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect();
        list.insert("ncpus".into(), json!(self.cpus()));
        list.insert("nodect".into(), json!(self.nodes()));
        if let Some(seconds) = self.walltime_seconds() {
            list.insert("walltime".into(), json!(time::format_span(seconds)));
        }
        if let Some(bytes) = self.memory_bytes() {
            list.insert("mem".into(), json!(format!("{}mb", size::mebibytes(bytes))));
        }
        list
    }

    /// A file's path with Slurm's patterns resolved, as far as the entry is one job.
    fn file(&self, path: &str) -> String {
        let number = self.entry.id.number.to_string();
        let index = self
            .entry
            .index()
            .map_or_else(|| "^array_index^".to_owned(), |index| index.to_string());
        let mut resolved = String::new();
        let mut letters = path.chars();
        while let Some(letter) = letters.next() {
            match (letter, letters.clone().next()) {
                ('%', Some(pattern @ ('j' | 'A' | 'a' | '%'))) => {
                    letters.next();
                    resolved.push_str(match pattern {
                        'a' => &index,
                        '%' => "%",
                        _ => &number,
                    });
                }
                _ => resolved.push(letter),
            }
        }
        resolved
    }
}

struct List(Vec<Attribute>);

impl List {
    fn add(&mut self, name: &'static str, resource: Option<&str>, value: Value) {
        self.0.push(Attribute {
            name,
            resource: resource.map(str::to_owned),
            value,
            moment: false,
        });
    }

    fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.add(name, None, Value::String(value.into()));
    }

    fn of(&mut self, name: &'static str, resource: &str, value: Value) {
        self.add(name, Some(resource), value);
    }

    fn moment(&mut self, name: &'static str, seconds: Option<u64>) {
        if let Some(seconds) = seconds {
            self.0.push(Attribute {
                name,
                resource: None,
                value: json!(seconds),
                moment: true,
            });
        }
    }
}

/// `w1/0*2+w2/0*2`: what a running job has.
pub fn exec_host(job: &Job) -> Option<String> {
    let hosts: Vec<String> = job
        .allocations()
        .iter()
        .map(|allocation| match allocation.cpus() {
            0 | 1 => format!("{}/0", allocation.name),
            cpus => format!("{}/0*{cpus}", allocation.name),
        })
        .collect();
    (!hosts.is_empty()).then(|| hosts.join("+"))
}

/// Why a job is where it is.
pub fn comment(entry: &Entry) -> Option<String> {
    let reason = match &*entry.job.state_reason {
        "" | "None" => None,
        reason => Some(reason),
    };
    match entry.state {
        state if state.is_pending() => reason.map(|reason| format!("Not Running: {reason}")),
        State::Finished => reason.map(|reason| format!("Job ended: {reason}")),
        _ => None,
    }
}

fn mail_points(kinds: &[String]) -> String {
    let points: String = [("FAIL", 'a'), ("BEGIN", 'b'), ("END", 'e')]
        .iter()
        .filter(|(kind, _)| kinds.iter().any(|one| one == kind))
        .map(|(_, point)| *point)
        .collect();
    if points.is_empty() {
        "n".to_owned()
    } else {
        points
    }
}
