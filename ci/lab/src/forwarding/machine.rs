//! The machine in the middle, and the two namespaces on its cards.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use wow_builder::host::{Guarded, Tether};
use wow_builder::qemu::{Backend, Firmware, Hardware, Machine as Board, Nic, Serial, VmSpec};

use super::{BackEnd, Setup};
use crate::command::wait_until;
use crate::namespaces::{Namespaces, batch, inside};
use crate::run_dir::RunDir;

/// Under TCG a boot takes a second; on a busy machine, more.
const BOOT_LIMIT: Duration = Duration::from_secs(60);

/// The machine tells its counters once a second while they change.
const COUNTERS_LIMIT: Duration = Duration::from_secs(10);

/// The cards' addresses, which the peers send to.
const CARDS: [[u8; 6]; 2] = [
    [0x52, 0x54, 0x00, 0x77, 0x02, 0x01],
    [0x52, 0x54, 0x00, 0x77, 0x02, 0x02],
];

/// The peers' own.
const PEERS: [[u8; 6]; 2] = [
    [0x02, 0x77, 0x6f, 0x77, 0x00, 0x01],
    [0x02, 0x77, 0x6f, 0x77, 0x00, 0x02],
];

/// The peers' addresses: one network, as if the machine were a cable.
pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

/// What /proc counts processor time in: fixed by Linux's interface on every platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the machine counted, as it tells on its console.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames that came.
    pub received: u64,
    /// Frames that were handed to the other card.
    pub sent: u64,
    /// Frames for which its queue had no room.
    pub full: u64,
    /// Frames that it did not take.
    pub refused: u64,
    /// Frames that it took and could not send.
    pub lost: u64,
    /// Frames whose description made no sense.
    pub malformed: u64,
}

impl Counters {
    /// Frames that came in and did not go out, all reasons together.
    pub fn dropped(&self) -> u64 {
        self.full + self.refused + self.lost + self.malformed
    }
}

/// A running machine. Everything ends with it.
#[derive(Debug)]
pub struct Machine {
    process: Guarded,
    console: PathBuf,
    spaces: Vec<String>,
    // Only ever dropped, after what runs in them.
    _namespaces: Namespaces,
    _dir: RunDir,
}

impl Machine {
    /// Boots it, and waits until it forwards.
    pub fn boot(setup: &Setup, back_end: BackEnd, back: bool, logs: &Path) -> Result<Self> {
        let dir = RunDir::new(logs, Tether::Tied)?;
        let mut namespaces = Namespaces::new()?;
        let spaces = namespaces.create(["m", "a", "b"])?;
        let console = dir.log("console.log");
        let spec = spec(setup, back_end, back, &dir);
        let mut command = inside(&spaces[0], &setup.emulator.program);
        command.args(spec.arguments(setup.accelerator.accelerator)?);
        let messages = dir.log("qemu.log");
        let file = File::create(&messages)
            .with_context(|| format!("cannot write {}", messages.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let mut machine = Machine {
            process: Guarded::spawn(command).context("cannot start QEMU")?,
            console,
            spaces,
            _namespaces: namespaces,
            _dir: dir,
        };
        for number in 0..2 {
            machine.attach(number)?;
        }
        wait_until("the machine forwards", BOOT_LIMIT, || {
            if let Some(status) = machine.process.try_wait()? {
                let said = std::fs::read_to_string(&messages).unwrap_or_default();
                bail!("QEMU ended with {status}: {}", said.trim());
            }
            let console = machine.console();
            if let Some(failed) = line(&console, "failed: ") {
                bail!("the machine says: {failed}");
            }
            if back && line(&console, "ready ").is_some() && line(&console, "given back").is_none()
            {
                bail!("the cards were not given back");
            }
            Ok(line(&console, "ready ").map(drop))
        })?;
        Ok(machine)
    }

    /// Moves a card's TAP device into its peer's namespace and sets it up there.
    fn attach(&mut self, number: usize) -> Result<()> {
        let tap = tap(number);
        let (middle, space) = (&self.spaces[0], &self.spaces[1 + number]);
        let moving = format!("link set {tap} netns {space} name eth0");
        wait_until("QEMU makes its TAP devices", BOOT_LIMIT, || {
            if let Some(status) = self.process.try_wait()? {
                bail!("QEMU ended with {status}");
            }
            Ok(batch(Some(middle), std::slice::from_ref(&moving)).ok())
        })?;
        let other = ADDRESSES[1 - number];
        let lines = [
            "link set lo up".to_owned(),
            format!("link set eth0 address {}", text(PEERS[number])),
            format!("address add {}/24 dev eth0", ADDRESSES[number]),
            "link set eth0 up".to_owned(),
            format!(
                "neigh replace {other} lladdr {} dev eth0",
                text(CARDS[number])
            ),
        ];
        batch(Some(space), &lines)
    }

    /// The namespace of a peer.
    pub fn space(&self, number: usize) -> &str {
        &self.spaces[1 + number]
    }

    /// Processor time of the machine so far: its processor, and QEMU's work for it.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid()));
        let ticks = cpu_ticks(&stat.context("the machine has ended")?);
        Ok(ticks.context("/proc tells no processor time")? as f64 / TICKS_PER_SECOND)
    }

    /// What the machine has counted, once nothing moves any more.
    pub fn counters(&mut self) -> Result<Counters> {
        let mut last: Option<Counters> = None;
        let mut still_since = std::time::Instant::now();
        wait_until("the machine's counters", COUNTERS_LIMIT, || {
            let console = self.console();
            let told = line_last(&console, "counters ");
            let now = told.and_then(|text| serde_json::from_str(text).ok());
            if now != last {
                last = now;
                still_since = std::time::Instant::now();
            }
            // It tells them every second while they change.
            let still = still_since.elapsed() > Duration::from_secs(3);
            Ok(last.filter(|_| still).map(drop))
        })?;
        Ok(last.expect("it was waited for"))
    }

    fn console(&self) -> String {
        let bytes = std::fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn spec(setup: &Setup, back_end: BackEnd, back: bool, dir: &RunDir) -> VmSpec {
    let peers = PEERS.map(text).join(",");
    let mut append = vec![format!("forward={back_end}"), format!("peers={peers}")];
    if back {
        append.push("back".into());
    }
    let nic = |number: usize| Nic {
        mac: CARDS[number],
        backend: Backend::Tap(tap(number)),
    };
    VmSpec {
        name: format!("forwarder-{back_end}"),
        machine: Board::Q35,
        hardware: Hardware::Virtio,
        firmware: Firmware::Direct,
        image: setup.image.clone(),
        uefi: None,
        memory_mib: 64,
        cpus: 1,
        nics: vec![nic(0), nic(1)],
        disks: Vec::new(),
        serial: Serial::Socket {
            path: dir.private("serial"),
            log: dir.log("console.log"),
        },
        control: None,
        qmp: None,
        fw_cfg: Vec::new(),
        append,
        reboots: false,
        incoming: None,
        ports: 0,
        rtc: None,
    }
}

fn tap(number: usize) -> String {
    format!("wowfwd{number}")
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What follows `what` in the machine's own first whole line of that kind.
fn line<'a>(console: &'a str, what: &str) -> Option<&'a str> {
    lines(console, what).next()
}

fn line_last<'a>(console: &'a str, what: &str) -> Option<&'a str> {
    lines(console, what).last()
}

fn lines<'a>(console: &'a str, what: &str) -> impl Iterator<Item = &'a str> {
    let whole = console.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(move |line| {
        let (_, said) = line.split_once("forward: ")?;
        Some(said.strip_prefix(what)?.trim_end())
    })
}

/// Fields 14 and 15 of /proc/PID/stat; the name before them may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_heard_among_the_kernels_lines_and_only_in_whole_ones() {
        let console = "[ 0.1] x\r\nforward: ready virtio\r\nforward: counters {\"a\":1}\r\n\
                       [ 0.2] yforward: counters {\"a\":2}\r\nforward: counters {\"a\":";
        assert_eq!(line(console, "ready "), Some("virtio"));
        assert_eq!(line_last(console, "counters "), Some("{\"a\":2}"));
        assert_eq!(line(console, "failed: "), None);
    }
}
