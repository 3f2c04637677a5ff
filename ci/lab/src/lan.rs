//! A LAN of ordinary machines for an appliance's second card: a bridge and namespaces on it, which run nothing
//! of ours but what a system's own DHCP client does. Needs root.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{self, Outcome, wait_until};
use crate::namespaces::{Namespaces, batch};

/// The bridge of a LAN, and every machine's card.
const BRIDGE: &str = "br0";
const CARD: &str = "eth0";

/// QEMU makes its TAP devices when it starts; on a busy machine, soon.
const PLUG_LIMIT: Duration = Duration::from_secs(60);

/// A program in a machine, the client that tries for long included.
const PROGRAM_LIMIT: Duration = Duration::from_secs(150);

/// A LAN. Its namespaces are the [`Namespaces`]' that it was made with.
#[derive(Debug)]
pub struct Lan {
    tap: String,
    bridge: String,
    /// The machines, in the order they were named.
    pub machines: Vec<Machine>,
}

/// An ordinary machine on it.
#[derive(Debug)]
pub struct Machine {
    /// Its namespace's full name.
    pub space: String,
    script: PathBuf,
    told: PathBuf,
}

/// What DHCP told a machine.
#[derive(Debug, Clone)]
pub struct Told(String);

impl Told {
    /// A value by its name in the client's environment: `ip`, `router`, `dns`, `mtu`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }
}

impl Lan {
    /// Makes a LAN called `name` with machines of these names, whose files are in `directory`. `number` tells it
    /// from the others of this process.
    pub fn new(
        namespaces: &mut Namespaces,
        name: &str,
        number: u8,
        machines: &[&str],
        directory: &Path,
    ) -> Result<Self> {
        let names = [name].into_iter().chain(machines.iter().copied());
        let mut spaces = namespaces.create(names)?;
        let bridge = spaces.remove(0);
        let mut lines = vec![
            // As a switch it has no addresses, and every group's frames go everywhere.
            format!("link add {BRIDGE} type bridge mcast_snooping 0"),
            format!("link set {BRIDGE} addrgenmode none up"),
        ];
        for (machine, space) in machines.iter().zip(&spaces) {
            lines.push(format!(
                "link add {machine} type veth peer name {CARD} netns {space}"
            ));
            lines.push(format!(
                "link set {machine} master {BRIDGE} addrgenmode none up"
            ));
        }
        batch(Some(&bridge), &lines)?;
        let machines = spaces.into_iter().zip(machines).map(|(space, name)| {
            batch(
                Some(&space),
                &["link set lo up".into(), format!("link set {CARD} up")],
            )?;
            Machine::new(space, name, directory)
        });
        Ok(Self {
            // Unique on the host, where it is for a moment, and at most 15 bytes.
            tap: format!("wl{}-{number}", std::process::id()),
            bridge,
            machines: machines.collect::<Result<_>>()?,
        })
    }

    /// The name of the TAP device that the appliance's QEMU is to make.
    pub fn tap(&self) -> &str {
        &self.tap
    }

    /// Plugs the appliance in, once its QEMU has made the device: after every start.
    pub fn plug(&self) -> Result<()> {
        let (tap, bridge) = (&self.tap, &self.bridge);
        let moving = [format!("link set {tap} netns {bridge}")];
        wait_until("QEMU makes its TAP device", PLUG_LIMIT, || {
            Ok(batch(None, &moving).ok())
        })?;
        batch(
            Some(bridge),
            &[format!(
                "link set {tap} master {BRIDGE} addrgenmode none up"
            )],
        )
    }
}

impl Machine {
    fn new(space: String, name: &str, directory: &Path) -> Result<Self> {
        let file = |kind: &str| directory.join(format!("{name}.{kind}"));
        let (script, told) = (file("udhcpc"), file("told"));
        let text = format!(
            "#!/bin/sh\n\
             [ \"$1\" = bound ] || exit 0\n\
             ip -4 addr flush dev $interface\n\
             ip addr add $ip/$mask dev $interface\n\
             ip link set $interface mtu $mtu\n\
             ip route replace default via $router\n\
             env > {}\n",
            told.display()
        );
        std::fs::write(&script, text)
            .and_then(|()| std::fs::set_permissions(&script, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", script.display()))?;
        Ok(Self {
            space,
            script,
            told,
        })
    }

    /// Has its DHCP client ask for an address as its system would at boot, under this name.
    pub fn ask(&self, hostname: &str) -> Result<Told> {
        let script = self.script.to_string_lossy();
        let hostname = format!("hostname:{hostname}");
        let client = [
            "udhcpc", "-f", "-q", "-n", "-t", "40", "-T", "1", "-O", "mtu",
        ];
        let how = ["-i", CARD, "-s", &script, "-x", &hostname];
        let outcome = self.run(&[&client[..], &how].concat())?;
        outcome.success("udhcpc")?;
        let told = std::fs::read_to_string(&self.told);
        told.map(Told).context("the DHCP client told nothing")
    }

    /// Runs a program in it.
    pub fn run(&self, words: &[&str]) -> Result<Outcome> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]).args(words);
        command::run(command, PROGRAM_LIMIT)
    }

    /// Pings until something answers, or it has waited in vain.
    pub fn ping(&self, to: &str) -> Result<()> {
        let outcome = self.run(&["ping", "-c", "3", "-i", "0.2", "-w", "60", to])?;
        outcome.success(&format!("ping {to}")).map(drop)
    }
}
