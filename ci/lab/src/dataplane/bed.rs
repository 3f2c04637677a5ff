//! Two namespaces and what lies between them, and programs of a Debian tree in them.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::Ipv4Net;
use wow_builder::host::{Guarded, Tether};

use crate::command;
use crate::namespaces::{Namespaces, batch, emulate, inside};
use crate::run_dir::RunDir;
use crate::topology::{Domain, Topology};
use crate::wan::Wan;

/// A short program's time.
pub const SHORT: Duration = Duration::from_secs(30);

/// Where the private directory is seen by programs of the tree.
const PRIVATE_INSIDE: &str = "/mnt";

/// Enters the tree in the mount namespace that `ip netns exec` has made: nothing of this is seen outside.
const ENTER: &str = "tree=$1; private=$2; shift 2; \
    mount --rbind /dev \"$tree/dev\" && mount -t proc proc \"$tree/proc\" && \
    mount --bind \"$private\" \"$tree/mnt\" && exec chroot \"$tree\" \"$@\"";

/// One end of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where flows begin.
    A,
    /// Where they end.
    B,
    /// Between the two, where there is a third namespace.
    Middle,
}

/// What lies between the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// A pair of virtual Ethernet devices.
    Wire,
    /// Two such pairs and a third namespace, which forwards nothing by itself.
    Middle,
    /// The WAN emulator: [`LOSS_PERCENT`] are lost each way, and a round trip takes [`ROUND_TRIP_MS`].
    Lossy,
}

/// See [`Between::Lossy`].
pub const LOSS_PERCENT: f64 = 1.0;
/// See [`Between::Lossy`]. As of a wide area. A flow that loses packets carries what its send buffer holds in a round
/// trip, so where this is short, what a tunnel adds to it is what gets measured.
pub const ROUND_TRIP_MS: u32 = 20;

/// The namespaces.
#[derive(Debug)]
pub struct Bed {
    spaces: Vec<String>,
    /// The ends' own addresses outside any tunnel.
    outside: Vec<Ipv4Addr>,
    tree: PathBuf,
    _wan: Option<Wan>,
    // Dropped after the processes in them: tunnels are dropped before their bed.
    _namespaces: Namespaces,
    dir: RunDir,
}

/// Something that packets pass through: its processes, and the address of the far end in it.
#[derive(Debug)]
pub struct Tunnel {
    /// Those whose time and memory count.
    pub processes: Vec<Guarded>,
    /// The address of [`End::B`].
    pub far: IpAddr,
    /// What to know of it, such as the path taken.
    pub note: String,
}

impl Bed {
    /// Makes the namespaces; `wan` is the emulator's program.
    pub fn new(tree: &Path, logs: &Path, between: Between, wan: &Path) -> Result<Self> {
        let dir = RunDir::new(logs, Tether::Tied)?;
        let mut namespaces = Namespaces::new()?;
        let third = match between {
            Between::Wire => None,
            Between::Middle => Some("m"),
            Between::Lossy => Some("wan"),
        };
        let spaces = namespaces.create(["a", "b"].into_iter().chain(third))?;
        for space in &spaces {
            batch(Some(space), &["link set lo up".into()])?;
        }
        let outside = |last| Ipv4Addr::new(192, 0, 2, last);
        let mut bed = Self {
            outside: vec![outside(1), outside(2), outside(3)],
            spaces,
            tree: tree.to_path_buf(),
            _wan: None,
            _namespaces: namespaces,
            dir,
        };
        let [a, b] = [&bed.spaces[0], &bed.spaces[1]];
        match between {
            Between::Wire => wire((a, "192.0.2.1/24", "eth0"), (b, "192.0.2.2/24", "eth0"))?,
            Between::Middle => {
                let m = &bed.spaces[2];
                wire((a, "192.0.2.1/24", "eth0"), (m, "192.0.2.3/24", "eth0"))?;
                wire(
                    (b, "198.51.100.2/24", "eth0"),
                    (m, "198.51.100.3/24", "eth1"),
                )?;
            }
            Between::Lossy => {
                let topology = lossy();
                let (ends, emulator) = bed.spaces.split_at(2);
                bed._wan = Some(emulate(wan, &topology, &emulator[0], ends, &bed.dir)?);
                let places = topology.places.iter();
                bed.outside = places.map(|place| place.address).collect();
            }
        }
        Ok(bed)
    }

    /// Sets TCP's congestion control in all namespaces.
    pub fn set_congestion(&self, name: &str) -> Result<()> {
        for space in &self.spaces {
            let mut command = inside(space, Path::new("sh"));
            let set = "echo $1 >/proc/sys/net/ipv4/tcp_congestion_control";
            command.args(["-c", set, "sh", name]);
            command::run(command, SHORT)?.success(&format!("setting {name} in {space}"))?;
        }
        Ok(())
    }

    /// An end's namespace.
    pub fn space(&self, end: End) -> &str {
        &self.spaces[end as usize]
    }

    /// An end's own address, outside any tunnel.
    pub fn address(&self, end: End) -> Ipv4Addr {
        self.outside[end as usize]
    }

    /// No tunnel at all.
    pub fn bare(&self) -> Tunnel {
        Tunnel {
            processes: Vec::new(),
            far: self.address(End::B).into(),
            note: String::new(),
        }
    }

    /// A file in the private directory, as programs outside the tree know it.
    pub fn private(&self, name: &str) -> PathBuf {
        self.dir.private(name)
    }

    /// The private directory.
    pub fn private_dir(&self) -> &Path {
        self.dir.private_dir()
    }

    /// The same file as programs of the tree know it.
    pub fn within(name: &str) -> String {
        format!("{PRIVATE_INSIDE}/{name}")
    }

    /// Writes a file into the private directory.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.private(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// A command of the tree, in an end's namespace.
    pub fn command(&self, end: End, words: &[&str]) -> Command {
        let mut command = inside(self.space(end), Path::new("sh"));
        command.args(["-c", ENTER, "sh"]);
        command.arg(&self.tree).arg(self.private_dir()).args(words);
        command
    }

    /// Runs a command of the tree to its end; what it printed.
    pub fn run(&self, end: End, words: &[&str]) -> Result<String> {
        self.run_for(end, words, SHORT)
    }

    /// The same with a limit of its own.
    pub fn run_for(&self, end: End, words: &[&str], limit: Duration) -> Result<String> {
        command::run(self.command(end, words), limit)?.success(&words.join(" "))
    }

    /// Starts a program of the tree that stays.
    pub fn start(&self, end: End, log: &str, words: &[&str]) -> Result<Guarded> {
        self.spawn(self.command(end, words), log)
    }

    /// Starts a command that stays, with its output in a log.
    pub fn spawn(&self, mut command: Command, log: &str) -> Result<Guarded> {
        let path = self.dir.log(&format!("{log}.log"));
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        Ok(Guarded::spawn(command)?)
    }

    /// Lines of `ip` in an end's namespace.
    pub fn ip(&self, end: End, lines: &[String]) -> Result<()> {
        batch(Some(self.space(end)), lines)
    }

    /// Waits until an end has a device of this name, then gives it an address and brings it up.
    pub fn raise(&self, end: End, device: &str, address: &str) -> Result<()> {
        command::wait_until(&format!("the device {device}"), SHORT, || {
            let shown = self.ip(end, &[format!("link show dev {device}")]);
            Ok(shown.is_ok().then_some(()))
        })?;
        let lines = [
            format!("address replace {address} dev {device}"),
            format!("link set {device} up"),
        ];
        self.ip(end, &lines)
    }
}

/// Two public networks, one of which loses packets.
fn lossy() -> Topology {
    let domain = |name: &str, subnet: [u8; 4], loss_percent| Domain {
        name: name.into(),
        subnet: Ipv4Net::new_assert(subnet.into(), 24),
        nat: None,
        latency_ms: ROUND_TRIP_MS / 4,
        loss_percent,
    };
    let mut topology = Topology {
        domains: vec![
            domain("near", [192, 0, 2, 0], LOSS_PERCENT),
            domain("far", [198, 51, 100, 0], 0.0),
        ],
        places: Vec::new(),
        seeds: 0,
        map: None,
    };
    topology.add("a", "near");
    topology.add("b", "far");
    topology
}

type Socket<'a> = (&'a str, &'a str, &'a str);

/// Joins two namespaces: each its name, address and device.
fn wire(near: Socket, far: Socket) -> Result<()> {
    let ((a, at_a, device_a), (b, at_b, device_b)) = (near, far);
    let pair = format!("link add {device_a} type veth peer name {device_b} netns {b}");
    batch(Some(a), &[pair])?;
    for (space, address, device) in [(a, at_a, device_a), (b, at_b, device_b)] {
        let lines = [
            format!("address add {address} dev {device}"),
            format!("link set {device} up"),
        ];
        batch(Some(space), &lines)?;
    }
    Ok(())
}
