//! Guest back ends compared: one virtual machine forwards frames between two network cards, by the
//! kernel's packet sockets or by driving the cards itself, and two network namespaces are its peers.
//!
//! Everything but the back end is the same: kernel, machine, frames, and the loop that moves them. The
//! cards' other ends are TAP devices, which pass superpackets as a hypervisor's do. Needs root.

mod machine;
mod packets;
mod report;
mod stream;

use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use wow_builder::qemu::{Choice, Emulator, ImageFiles};

use crate::progress::Task;

pub use machine::Counters;
pub use packets::Soak;
pub use report::{Verdict, table, verdicts};

use machine::Machine;
use packets::Limit;

/// How frames are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackEnd {
    /// Packet sockets.
    Packet,
    /// The cards' own queues.
    Virtio,
}

impl BackEnd {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Packet, Self::Virtio];
}

impl fmt::Display for BackEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Packet => "packet",
            Self::Virtio => "virtio",
        })
    }
}

/// What a measurement needs.
#[derive(Debug, Clone)]
pub struct Setup {
    /// QEMU.
    pub emulator: Emulator,
    /// How it runs guests.
    pub accelerator: Choice,
    /// The image `forwarder`.
    pub image: ImageFiles,
    /// Where logs go.
    pub logs: PathBuf,
}

/// What a flow of one kind did.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Flow {
    /// Payload that arrived.
    pub mbit_per_s: f64,
    /// Packets that arrived: of a TCP flow those that a network without superpackets would carry.
    pub packets_per_s: f64,
    /// Processor time of the whole machine, its emulation included, for each gigabyte that arrived.
    pub cpu_s_per_gb: f64,
    /// The same for a million packets.
    pub cpu_s_per_million: f64,
}

/// The figures of one back end.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Which.
    pub back_end: BackEnd,
    /// One TCP flow, in superpackets.
    pub stream: Flow,
    /// UDP packets of 64 bytes, as many under way as a card's queue holds.
    pub small: Flow,
    /// UDP packets of 1,400 bytes in the same way.
    pub large: Flow,
    /// Of these, packets that did not arrive.
    pub missing: u64,
    /// What the machine counted.
    pub counters: Counters,
}

/// Bytes in the small and large packets.
const SMALL_BYTES: usize = 64;
const LARGE_BYTES: usize = 1400;

/// What a TCP segment carries here: 1500 bytes less the headers with timestamps.
const SEGMENT_BYTES: f64 = 1448.0;

/// Measures one back end in a fresh machine.
pub fn measure(setup: &Setup, back_end: BackEnd, span: Duration, task: &Task) -> Result<Row> {
    task.now("booting");
    let mut machine = boot(setup, back_end, false)?;
    // What is new on the way (routes, translated code) is no part of the figures.
    stream::run(&machine, Duration::from_secs(1))?;
    task.now("a TCP flow");
    let stream = metered(&machine, || {
        let bytes = stream::run(&machine, span)? as f64;
        Ok((bytes, bytes / SEGMENT_BYTES))
    })?;
    let missing = Cell::new(0);
    let packets = |what: &str, size: usize| {
        task.now(what);
        metered(&machine, || {
            let limit = Limit::Time(span);
            let result = packets::run(&machine, limit, packets::Sizes::Fixed(size), &mut |_| {})?;
            missing.set(missing.get() + result.missing);
            let arrived = result.arrived as f64;
            Ok((arrived * size as f64, arrived))
        })
    };
    let small = packets("packets of 64 bytes", SMALL_BYTES)?;
    let large = packets("packets of 1400 bytes", LARGE_BYTES)?;
    let counters = machine.counters()?;
    let missing = missing.get();
    Ok(Row {
        back_end,
        stream,
        small,
        large,
        missing,
        counters,
    })
}

/// Has so many packets of many lengths forwarded both ways; the cards are given back to the kernel and
/// taken again before. An error if the traffic stalls, or a packet is lost without being counted,
/// overtaken, or changed.
pub fn soak(setup: &Setup, back_end: BackEnd, packets: u64, task: &Task) -> Result<Soak> {
    task.now("booting");
    let mut machine = boot(setup, back_end, true)?;
    let mut told = 0;
    let mut say = |done: u64| {
        if done - told >= packets / 20 {
            told = done;
            task.now(&format!("{done} of {packets} packets"));
        }
    };
    let limit = Limit::Packets(packets);
    let mut soak = packets::run(&machine, limit, packets::Sizes::Many, &mut say)?;
    soak.counters = machine.counters()?;
    soak.check()?;
    Ok(soak)
}

fn boot(setup: &Setup, back_end: BackEnd, back: bool) -> Result<Machine> {
    let logs: &Path = &setup.logs.join(back_end.to_string());
    Machine::boot(setup, back_end, back, logs)
        .with_context(|| format!("no machine forwards by {back_end}"))
}

/// Runs `work`, which tells bytes and packets that arrived, beside the machine's clock.
fn metered(machine: &Machine, work: impl FnOnce() -> Result<(f64, f64)>) -> Result<Flow> {
    let (started, before) = (std::time::Instant::now(), machine.cpu_seconds()?);
    let (bytes, packets) = work()?;
    let seconds = started.elapsed().as_secs_f64();
    let spent = machine.cpu_seconds()? - before;
    Ok(Flow {
        mbit_per_s: bytes * 8.0 / 1e6 / seconds,
        packets_per_s: packets / seconds,
        cpu_s_per_gb: spent / (bytes / 1e9),
        cpu_s_per_million: spent / (packets / 1e6),
    })
}
