//! A testbed of real `wow run` processes in network namespaces, joined by the WAN emulator's TAP
//! devices. Needs root.
//!
//! Namespaces outlive processes, so their names carry ours: `wowlab-PID-NAME`. They go with the
//! value; those of a run that was killed go when the next one starts.

use std::fs::File;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use wow_builder::host::process::ProcessId;
use wow_builder::host::{Guarded, Tether, guarded_command};

use crate::Tools;
use crate::client::Client;
use crate::command::{self, wait_until};
use crate::experiment::Node;
use crate::interrupt;
use crate::pool;
use crate::run_dir::RunDir;
use crate::topology::{Attachment, ROUTER_PORT, Topology};
use crate::wan::Wan;

const PREFIX: &str = "wowlab-";

/// The namespace of the emulator itself, where its TAP devices appear.
const WAN_SPACE: &str = "wan";

/// `ip` answers at once; on a busy machine, soon.
const IP_LIMIT: Duration = Duration::from_secs(30);

/// How long a router may take to say goodbye.
const GOODBYE_LIMIT: Duration = Duration::from_secs(5);

/// The name of a router's only network card.
const CARD: &str = "eth0";

/// Namespaces of this process; removed with this value, with everything that runs in them.
#[derive(Debug)]
pub struct Namespaces {
    made: Vec<String>,
}

impl Namespaces {
    /// Sweeps what dead runs have left.
    pub fn new() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("network namespaces need root: run this as root");
        }
        for name in existing()? {
            if owner(&name).is_some_and(|pid| ProcessId::of(pid).is_none()) {
                sweep(&name);
            }
        }
        Ok(Self { made: Vec::new() })
    }

    /// Creates namespaces; their full names. [`batch`] configures what is in them.
    pub fn create<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
        let full = |name| format!("{PREFIX}{}-{name}", std::process::id());
        let names: Vec<String> = names.into_iter().map(full).collect();
        // Known before they exist, so that half of a failed batch goes too.
        self.made.extend(names.iter().cloned());
        let lines: Vec<String> = names
            .iter()
            .map(|name| format!("netns add {name}"))
            .collect();
        batch(None, &lines)?;
        Ok(names)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.made {
            sweep(name);
        }
    }
}

/// Runs lines of `ip`, inside a namespace if one is named: one program for all of them.
pub(crate) fn batch(space: Option<&str>, lines: &[String]) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(lines.join("\n").as_bytes())?;
    let mut command = Command::new("ip");
    if let Some(space) = space {
        command.args(["-n", space]);
    }
    command.arg("-batch").arg(file.path());
    command::run(command, IP_LIMIT)?.success("ip -batch")?;
    Ok(())
}

/// A command that runs `program` inside a namespace and ends with us.
pub(crate) fn inside(space: &str, program: &Path) -> Command {
    let mut command = guarded_command("ip", Tether::Tied);
    command.args(["netns", "exec", space]).arg(program);
    command
}

fn ip(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("ip");
    command.args(arguments);
    command::run(command, IP_LIMIT)?.success(&format!("ip {}", arguments.join(" ")))
}

/// `ip` for drops, which must work after Ctrl-C too. A failure leaves what the next run sweeps.
fn ip_unconditionally(arguments: &[&str]) -> String {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// Namespaces of all runs.
fn existing() -> Result<Vec<String>> {
    let list = ip(&["netns", "list"])?;
    Ok(list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with(PREFIX))
        .map(str::to_owned)
        .collect())
}

/// The process that a namespace's name tells.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn sweep(name: &str) {
    for pid in ip_unconditionally(&["netns", "pids", name]).lines() {
        if let Some(process) = pid.trim().parse().ok().and_then(ProcessId::of) {
            process.kill(Duration::from_secs(5));
        }
    }
    ip_unconditionally(&["netns", "delete", name]);
}

/// Runs the emulator in a namespace, and attaches each place in its own.
pub(crate) fn emulate(
    program: &Path,
    topology: &Topology,
    wan_space: &str,
    spaces: &[String],
    dir: &RunDir,
) -> Result<Wan> {
    let taps: Vec<String> = (0..topology.places.len())
        .map(|n| format!("wowtap{n}"))
        .collect();
    let attachments: Vec<_> = taps.iter().cloned().map(Attachment::Tap).collect();
    let mut wan = Wan::start(
        inside(wan_space, program),
        &dir.private("wan.toml"),
        &topology.to_toml(&attachments),
        Some(dir.private("wan.sock")),
        &dir.log("wan.log"),
    )?;
    wait_until("the WAN emulator makes its TAP devices", IP_LIMIT, || {
        wan.check_running()?;
        let links = ip(&["-n", wan_space, "-o", "link", "show"])?;
        let there = links.lines().filter(|line| line.contains("wowtap")).count();
        Ok((there == taps.len()).then_some(()))
    })?;
    let moves: Vec<String> = taps
        .iter()
        .zip(spaces)
        .map(|(tap, space)| format!("link set {tap} netns {space} name {CARD}"))
        .collect();
    batch(Some(wan_space), &moves)?;
    for (place, space) in topology.places.iter().zip(spaces) {
        interrupt::check()?;
        let domain = topology.domain(place)?;
        let mut lines = vec!["link set lo up".to_owned()];
        lines.extend(domain.configure(place.address, CARD)?);
        batch(Some(space), &lines).with_context(|| format!("cannot attach {}", place.name))?;
    }
    Ok(wan)
}

/// A namespace for each place, with or without a router running in it.
#[derive(Debug)]
pub struct NamespaceTestbed {
    routers: Vec<Guarded>,
    nodes: Vec<Node>,
    wan: Wan,
    /// Full names, in the order of the places.
    spaces: Vec<String>,
    topology: Topology,
    ticket: PathBuf,
    tools: Tools,
    // Only ever dropped: after the processes, before the sockets' directory.
    _namespaces: Namespaces,
    dir: RunDir,
}

impl NamespaceTestbed {
    /// Creates a pool, the emulator, a namespace a place, and starts a router in each.
    pub fn start(tools: &Tools, topology: &Topology, logs: &Path) -> Result<Self> {
        let mut bed = Self::prepare(tools, topology, logs)?;
        for place in 0..topology.places.len() {
            bed.start_router(place)?;
        }
        Ok(bed)
    }

    /// The same without any router yet.
    pub fn prepare(tools: &Tools, topology: &Topology, logs: &Path) -> Result<Self> {
        let dir = RunDir::new(logs, Tether::Tied)?;
        let ticket = pool::create(&tools.wow, dir.private_dir(), "lab", &topology.seeds()?)?;
        let mut namespaces = Namespaces::new()?;
        let names = topology.places.iter().map(|place| place.name.as_str());
        let mut spaces = namespaces.create([WAN_SPACE].into_iter().chain(names))?;
        let wan_space = spaces.remove(0);
        let wan = emulate(&tools.wan, topology, &wan_space, &spaces, &dir)?;
        Ok(Self {
            routers: Vec::new(),
            nodes: Vec::new(),
            wan,
            spaces,
            topology: topology.clone(),
            ticket,
            tools: tools.clone(),
            _namespaces: namespaces,
            dir,
        })
    }

    /// Plugs a place's card into another domain and gives it an address there, as DHCP would. When
    /// the link to the old domain had gone, and when the new one was up.
    pub fn move_place(
        &mut self,
        place: usize,
        domain: &str,
        address: Ipv4Addr,
    ) -> Result<(Instant, Instant)> {
        let to = self.topology.domain_called(domain)?;
        let mut lines = vec![format!("address flush dev {CARD}")];
        lines.extend(to.configure(address, CARD)?);
        let gone = Instant::now();
        self.wan
            .move_port(&self.topology.places[place].name, domain)?;
        batch(Some(&self.spaces[place]), &lines)?;
        let up = Instant::now();
        let moved = &mut self.topology.places[place];
        moved.domain = domain.to_owned();
        moved.address = address;
        Ok((gone, up))
    }

    /// Starts the router of a place; it stays.
    pub fn start_router(&mut self, place: usize) -> Result<()> {
        let name = self.topology.places[place].name.clone();
        let (router, node) = self
            .launcher(place)
            .launch(&name)
            .with_context(|| format!("cannot start router {name}"))?;
        self.routers.push(router);
        self.nodes.push(node);
        Ok(())
    }

    /// What starts routers in a place, also from other threads.
    pub fn launcher(&self, place: usize) -> Launcher {
        Launcher {
            space: self.spaces[place].clone(),
            ticket: self.ticket.clone(),
            wow: self.tools.wow.clone(),
            private: self.dir.private_dir().to_path_buf(),
            logs: self.dir.logs().to_path_buf(),
        }
    }

    /// The full name of a place's namespace.
    pub fn space(&self, place: usize) -> &str {
        &self.spaces[place]
    }

    /// Where everything is now.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The emulator.
    pub fn wan(&self) -> &Wan {
        &self.wan
    }

    /// The nodes, the seed first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The directory of the logs.
    pub fn logs(&self) -> PathBuf {
        self.dir.logs().to_path_buf()
    }

    /// An error when a router or the emulator has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.wan.check_running()?;
        for (router, node) in self.routers.iter_mut().zip(&self.nodes) {
            if let Some(status) = router.try_wait()? {
                bail!(
                    "router {} ended with {status}; its log is in {}",
                    node.name,
                    self.dir.logs().display()
                );
            }
        }
        Ok(())
    }

    /// Kills the router of this name, as a machine that loses its power.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let index = self
            .nodes
            .iter()
            .position(|node| node.name == name)
            .with_context(|| format!("there is no router {name}"))?;
        self.nodes.remove(index);
        self.routers.remove(index).kill();
        Ok(())
    }
}

/// Starts routers in one place.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The namespace's full name.
    pub space: String,
    ticket: PathBuf,
    wow: PathBuf,
    private: PathBuf,
    logs: PathBuf,
}

impl Launcher {
    /// Starts a router called `name`, with an identity of its own.
    pub fn launch(&self, name: &str) -> Result<(Guarded, Node)> {
        self.launch_with(name, &[])
    }

    /// The same with further options.
    pub fn launch_with(&self, name: &str, more: &[&str]) -> Result<(Guarded, Node)> {
        let socket = self.private.join(format!("{name}.sock"));
        let log = self.logs.join(format!("{name}.log"));
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = inside(&self.space, &self.wow);
        command.arg("run").arg("--ticket").arg(&self.ticket);
        command.args([
            "--name",
            name,
            "--listen",
            &format!("0.0.0.0:{ROUTER_PORT}"),
        ]);
        command.args(more);
        command.arg("--state").arg(self.state(name));
        command.arg("--socket").arg(&socket);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let started = Instant::now();
        let router = Guarded::spawn(command)?;
        let node = Node {
            name: name.to_owned(),
            client: Client::new(&self.wow, &socket),
            started,
        };
        Ok((router, node))
    }

    /// Ends a router as its operator would, so that it says goodbye, and forgets its identity.
    pub fn retire(&self, mut router: Guarded, name: &str) -> Result<()> {
        if let Some(pid) = i32::try_from(router.pid()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        if router.wait_for(GOODBYE_LIMIT)?.is_none() {
            router.kill();
        }
        match std::fs::remove_dir_all(self.state(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("cannot remove a node's state")
            }
            _ => Ok(()),
        }
    }

    fn state(&self, name: &str) -> PathBuf {
        self.private.join(format!("{name}.state"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner("wowlab-123-a"), Some(123));
        assert_eq!(owner("wowlab-x-a"), None);
        assert_eq!(owner("other-123-a"), None);
    }
}
