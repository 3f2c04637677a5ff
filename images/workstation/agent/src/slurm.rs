//! Slurm: its configuration, its key, and what its controller knows.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::command::{self, SLURM};
use crate::exchange::{KEY_BYTES, Secret};
use crate::files::{self, Access, PUBLIC};
use crate::hosts::Host;
use crate::users;

/// Where Slurm's files are.
const KEY: &str = "/etc/slurm/slurm.key";
const CONFIGURATION: &str = "/etc/slurm/slurm.conf";

/// Where the queue is kept over restarts.
pub const STATE: &str = "/var/lib/slurm/controller";

/// Debian's file of this name names files that are not there, which Slurm takes for errors.
const PLUGINS: &str = "/etc/slurm/plugstack.conf";

/// The controller's port.
const CONTROLLER_PORT: u16 = 6817;

/// What marks nodes that take jobs.
const WORKER_FEATURE: &str = "worker";

/// The key of the pool's Slurm, made on its head when there is none.
pub fn own_key() -> Result<Secret> {
    let path = Path::new(KEY);
    if let Ok(found) = std::fs::read(path) {
        if found.len() == KEY_BYTES {
            return Ok(Secret::new(found));
        }
        bail!("{KEY} is damaged: it has {} bytes; remove it", found.len());
    }
    let mut bytes = vec![0; KEY_BYTES];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(&mut bytes))
        .context("cannot make Slurm's key")?;
    let key = Secret::new(bytes);
    keep_key(&key)?;
    Ok(key)
}

/// Keeps the pool's key; whether it was another before.
pub fn keep_key(key: &Secret) -> Result<bool> {
    let owner = users::slurm().context("there is no user slurm: is Slurm installed?")?;
    let access = Access {
        mode: 0o600,
        owner: Some(owner),
    };
    files::write(Path::new(KEY), key.bytes(), access)
}

/// Writes what the controller reads; whether it was another before.
pub fn configure(head: &Host) -> Result<bool> {
    let owner = users::slurm().context("there is no user slurm: is Slurm installed?")?;
    std::fs::create_dir_all(STATE).with_context(|| format!("cannot make {STATE}"))?;
    std::os::unix::fs::chown(STATE, Some(owner.0), Some(owner.1))
        .with_context(|| format!("cannot give {STATE} to Slurm"))?;
    // The controller lists a job whose script it has not brought to the disk; when power fails then, it ends
    // at every start for want of the script.
    files::write_through(Path::new(STATE))?;
    quieten_plugins()?;
    let mail = ["/usr/bin/mail", "/bin/true"]
        .into_iter()
        .find(|program| Path::new(program).exists())
        .unwrap_or("/bin/true");
    let cgroups = files::write(
        Path::new("/etc/slurm/cgroup.conf"),
        b"CgroupPlugin=disabled\n",
        PUBLIC,
    )?;
    let text = configuration(head, mail);
    Ok(files::write(Path::new(CONFIGURATION), text.as_bytes(), PUBLIC)? || cgroups)
}

fn configuration(head: &Host, mail: &str) -> String {
    format!(
        "# Written by wow-workstation.\n\
         ClusterName=wow\n\
         SlurmctldHost={name}({address})\n\
         SlurmctldPort={CONTROLLER_PORT}\n\
         SlurmUser=slurm\n\
         AuthType=auth/slurm\n\
         CredType=cred/slurm\n\
         SlurmctldParameters=enable_configless\n\
         # In the pool, and nowhere else.\n\
         CommunicationParameters=NoCtldInAddrAny,NoInAddrAny\n\
         StateSaveLocation={STATE}\n\
         SlurmdSpoolDir=/var/lib/slurm/slurmd\n\
         # Nodes come and go by themselves.\n\
         MaxNodeCount=8192\n\
         TreeWidth=65000\n\
         ReturnToService=2\n\
         # A machine that is paused or moved keeps its jobs for so long; one that is dead loses them then.\n\
         SlurmdTimeout=300\n\
         SelectType=select/cons_tres\n\
         SelectTypeParameters=CR_Core\n\
         PriorityType=priority/basic\n\
         ProctrackType=proctrack/linuxproc\n\
         TaskPlugin=task/none\n\
         JobAcctGatherType=jobacct_gather/none\n\
         MpiDefault=pmix\n\
         LaunchParameters=use_interactive_step\n\
         SchedulerParameters=batch_sched_delay=1\n\
         # Without a database these are what qstat -x and dependencies know of jobs that ended.\n\
         MinJobAge=86400\n\
         MaxJobCount=100000\n\
         JobCompType=jobcomp/filetxt\n\
         JobCompLoc=/var/lib/slurm/jobcomp.log\n\
         MailProg={mail}\n\
         NodeSet=workers Feature={WORKER_FEATURE}\n\
         PartitionName=batch Nodes=workers Default=YES MaxTime=INFINITE\n",
        name = head.name,
        address = head.address,
    )
}

/// The controller's command.
pub fn controller() -> Vec<String> {
    ["slurmctld", "-D"].map(str::to_owned).to_vec()
}

/// The command of a member's slurmd: a node that takes jobs, or one that is only there to submit.
pub fn node(head: &Host, takes_jobs: bool) -> Vec<String> {
    let server = format!("{}:{CONTROLLER_PORT}", head.address);
    let mut words = ["slurmd", "-D", "-Z", "--conf-server", &server]
        .map(str::to_owned)
        .to_vec();
    if takes_jobs {
        words.extend(["--conf".into(), format!("Feature={WORKER_FEATURE}")]);
    }
    words
}

/// Before slurmd starts: no remains of Debian's or of a head's configuration.
pub fn prepare_node() -> Result<()> {
    quieten_plugins()?;
    for file in [CONFIGURATION, "/etc/slurm/cgroup.conf"] {
        files::remove(Path::new(file))?;
    }
    let spool = "/var/lib/slurm/slurmd";
    std::fs::create_dir_all(spool).with_context(|| format!("cannot make {spool}"))
}

fn quieten_plugins() -> Result<()> {
    files::write(Path::new(PLUGINS), b"# None.\n", PUBLIC).map(drop)
}

/// What the controller knows of its nodes, also of those outside every partition.
pub fn nodes() -> Result<Nodes> {
    let text = command::run("scontrol", &["show", "nodes", "--oneliner"], SLURM);
    Ok(Nodes::parse(&text?))
}

/// See [`nodes`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// Those that the controller knows.
    pub known: BTreeSet<String>,
    /// Those of them that do not answer.
    pub silent: BTreeSet<String>,
    /// Those that are down.
    pub down: BTreeSet<String>,
}

impl Nodes {
    fn parse(text: &str) -> Self {
        let mut nodes = Nodes::default();
        for line in text.lines() {
            let name = line.strip_prefix("NodeName=");
            let name = name.and_then(|rest| rest.split_whitespace().next());
            let Some(name) = name else { continue };
            nodes.known.insert(name.to_owned());
            let state = line.split_whitespace();
            let state = state.filter_map(|word| word.strip_prefix("State=")).next();
            let state = state.unwrap_or_default();
            if state.contains("NOT_RESPONDING") {
                nodes.silent.insert(name.to_owned());
            }
            if state.starts_with("DOWN") {
                nodes.down.insert(name.to_owned());
            }
        }
        nodes
    }
}

/// Takes a node out of use, so that its jobs start elsewhere.
pub fn take_down(node: &str, reason: &str) -> Result<()> {
    let node = format!("nodename={node}");
    let reason = format!("reason={reason}");
    command::run("scontrol", &["update", &node, "state=down", &reason], SLURM).map(drop)
}

/// Forgets a node.
pub fn forget(node: &str) -> Result<()> {
    let node = format!("nodename={node}");
    command::run("scontrol", &["delete", &node], SLURM).map(drop)
}

/// Opens the queue for new jobs, or closes it.
pub fn open_queue(open: bool) -> Result<()> {
    let state = if open { "state=UP" } else { "state=INACTIVE" };
    command::run("scontrol", &["update", "partitionname=batch", state], SLURM).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_known_and_away_as_slurm_says() {
        let all = "NodeName=w1 Arch=x86_64 State=IDLE+DYNAMIC_NORM ThreadsPerCore=1\n\
                   NodeName=w2 Arch=x86_64 State=DOWN+DYNAMIC_NORM\n\
                   NodeName=w3 Arch=x86_64 State=MIXED+DYNAMIC_NORM+NOT_RESPONDING\n\
                   NodeName=l1 State=IDLE+DYNAMIC_NORM\n";
        let nodes = Nodes::parse(all);
        let names = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>();
        assert_eq!(names(&nodes.known), ["l1", "w1", "w2", "w3"]);
        assert_eq!(names(&nodes.down), ["w2"]);
        assert_eq!(names(&nodes.silent), ["w3"]);
        assert_eq!(Nodes::parse("No nodes in the system\n"), Nodes::default());
    }

    #[test]
    fn a_login_host_takes_no_jobs() {
        let head = Host {
            name: "head".into(),
            address: [10, 128, 0, 2].into(),
        };
        assert!(node(&head, true).contains(&"Feature=worker".to_owned()));
        assert!(!node(&head, false).contains(&"--conf".to_owned()));
        let text = configuration(&head, "/bin/true");
        assert!(text.contains("\nSlurmctldHost=head(10.128.0.2)\n"));
        assert!(text.contains("Nodes=workers"), "not ALL");
    }
}
