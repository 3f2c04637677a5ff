//! A testbed of real `wow run` processes in network namespaces, joined by the WAN emulator's TAP
//! devices. Needs root.
//!
//! Namespaces outlive processes, so their names carry ours: `wowlab-PID-NAME`. They go with the
//! value; those of a run that was killed go when the next one starts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use wow_builder::host::process::ProcessId;
use wow_builder::host::{Guarded, Tether, guarded_command};

use crate::Tools;
use crate::client::Client;
use crate::command::{self, wait_until};
use crate::experiment::Node;
use crate::pool;
use crate::run_dir::RunDir;
use crate::topology::{Attachment, Place, ROUTER_PORT, Topology};
use crate::wan::Wan;

const PREFIX: &str = "wowlab-";

/// The namespace of the emulator itself, where its TAP devices appear.
const WAN_SPACE: &str = "wan";

/// `ip` answers at once; on a busy machine, soon.
const IP_LIMIT: Duration = Duration::from_secs(30);

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

    /// Creates a namespace with its loopback up; its full name.
    pub fn create(&mut self, name: &str) -> Result<String> {
        let full = format!("{PREFIX}{}-{name}", std::process::id());
        ip(&["netns", "add", &full])?;
        self.made.push(full.clone());
        ip(&["-n", &full, "link", "set", "lo", "up"])?;
        Ok(full)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.made {
            sweep(name);
        }
    }
}

/// A command that runs `program` inside a namespace and ends with us.
fn inside(space: &str, program: &Path) -> Command {
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

/// Running routers.
#[derive(Debug)]
pub struct NamespaceTestbed {
    routers: Vec<Guarded>,
    nodes: Vec<Node>,
    wan: Wan,
    // Only ever dropped: after the processes, before the sockets' directory.
    _spaces: Namespaces,
    dir: RunDir,
}

impl NamespaceTestbed {
    /// Creates a pool, the emulator, a namespace a place, and starts a router in each.
    pub fn start(tools: &Tools, topology: &Topology, logs: &Path) -> Result<Self> {
        let dir = RunDir::new(logs, Tether::Tied)?;
        let ticket = pool::create(&tools.wow, dir.private_dir(), "lab", &topology.seed()?)?;
        let mut spaces = Namespaces::new()?;
        let wan_space = spaces.create(WAN_SPACE)?;
        let taps: Vec<String> = (0..topology.places.len())
            .map(|n| format!("wowtap{n}"))
            .collect();
        let attachments: Vec<_> = taps.iter().cloned().map(Attachment::Tap).collect();
        let wan = Wan::start(
            inside(&wan_space, &tools.wan),
            &dir.private("wan.toml"),
            &topology.to_toml(&attachments),
            &dir.log("wan.log"),
        )?;
        let mut bed = Self {
            routers: Vec::new(),
            nodes: Vec::new(),
            wan,
            _spaces: spaces,
            dir,
        };
        for (place, tap) in topology.places.iter().zip(&taps) {
            let space = bed._spaces.create(&place.name)?;
            bed.plug(&wan_space, tap, &space, topology, place)
                .with_context(|| format!("cannot attach {}", place.name))?;
            bed.start_router(tools, &space, place, &ticket)
                .with_context(|| format!("cannot start router {}", place.name))?;
        }
        Ok(bed)
    }

    /// Moves the emulator's TAP device into the router's namespace and configures it.
    fn plug(
        &mut self,
        wan_space: &str,
        tap: &str,
        space: &str,
        topology: &Topology,
        place: &Place,
    ) -> Result<()> {
        let domain = topology.domain(place)?;
        let gateway = domain.gateway().context("the domain has no gateway")?;
        wait_until("the WAN emulator makes its TAP devices", IP_LIMIT, || {
            self.wan.check_running()?;
            Ok(ip(&["-n", wan_space, "link", "show", tap])
                .is_ok()
                .then_some(()))
        })?;
        let address = format!("{}/{}", place.address, domain.subnet.prefix_len());
        ip(&["-n", wan_space, "link", "set", tap, "netns", space])?;
        ip(&["-n", space, "link", "set", tap, "name", CARD])?;
        ip(&["-n", space, "address", "add", &address, "dev", CARD])?;
        ip(&["-n", space, "link", "set", CARD, "up"])?;
        ip(&[
            "-n",
            space,
            "route",
            "add",
            "default",
            "via",
            &gateway.to_string(),
        ])?;
        Ok(())
    }

    fn start_router(
        &mut self,
        tools: &Tools,
        space: &str,
        place: &Place,
        ticket: &Path,
    ) -> Result<()> {
        let socket = self.dir.private(&format!("{}.sock", place.name));
        let log = self.dir.log(&format!("{}.log", place.name));
        let log = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = inside(space, &tools.wow);
        command.arg("run").arg("--ticket").arg(ticket);
        command.args([
            "--name",
            &place.name,
            "--listen",
            &format!("0.0.0.0:{ROUTER_PORT}"),
        ]);
        command
            .arg("--state")
            .arg(self.dir.private(&format!("{}.state", place.name)));
        command.arg("--socket").arg(&socket);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let started = Instant::now();
        self.routers.push(Guarded::spawn(command)?);
        let client = Client::new(&tools.wow, &socket);
        self.nodes.push(Node {
            name: place.name.clone(),
            client,
            started,
        });
        Ok(())
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
