//! Process 1 of the machine that compares guest back ends: it forwards frames between two network cards,
//! as the router does between guests and the overlay, and does nothing else.
//!
//! The kernel's command line says how: `forward=packet` or `forward=virtio`; `peers=MAC,MAC`, to whom
//! the frames go that leave by the first and second card; with `back` the cards are first driven by
//! virtio and given back. What it has to say are lines on the console that begin with `forward: `.
#![forbid(unsafe_code)]

mod counters;
mod words;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use wow_guest::virtio::Choice;
use wow_guest::{PacketBatch, PacketPort, Port, VirtioPort};

use counters::Counters;
use words::{BackEnd, Words};

/// The two cards, as the kernel calls them.
const CARDS: [&str; 2] = ["eth0", "eth1"];

/// How long the kernel may take to have the cards again: it probes them while they are given back.
const BACK_LIMIT: Duration = Duration::from_secs(10);

/// How often the counters are told, if they have changed.
const REPORT: Duration = Duration::from_secs(1);

fn main() {
    if let Err(error) = run() {
        println!("forward: failed: {error:#}");
    }
    // Process 1 must not end. Without the right to power off the process is a wrong one all the same.
    let off = reboot(RebootCommand::PowerOff);
    println!("forward: cannot power off: {off:?}");
}

fn run() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let mounted = mount(kind, place, kind, MountFlags::empty(), None);
        mounted.with_context(|| format!("cannot mount {place}"))?;
    }
    tracing_subscriber::fmt().with_ansi(false).init();
    let line = std::fs::read_to_string("/proc/cmdline").context("cannot read the command line")?;
    let words = Words::parse(&line)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    runtime.block_on(async {
        if words.back {
            drop(open(BackEnd::Virtio)?);
            given_back().await?;
            println!("forward: given back");
        }
        let mut ports = open(words.back_end)?;
        println!("forward: ready {}", words.back_end);
        forward(&mut ports, &words.peers).await
    })
}

fn open(back_end: BackEnd) -> Result<[Box<dyn Port>; 2]> {
    let port = |card: &str| -> Result<Box<dyn Port>> {
        Ok(match back_end {
            BackEnd::Packet => Box::new(PacketPort::open(card, true)?),
            BackEnd::Virtio => Box::new(VirtioPort::open(&Choice::Interface(card.to_owned()))?),
        })
    };
    Ok([port(CARDS[0])?, port(CARDS[1])?])
}

/// Waits until the kernel drives the cards again.
async fn given_back() -> Result<()> {
    let there = || {
        let shown = |card: &&str| std::path::Path::new("/sys/class/net").join(card).exists();
        CARDS.iter().all(shown)
    };
    let waited = tokio::time::timeout(BACK_LIMIT, async {
        while !there() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited
        .await
        .context("the kernel does not have the cards again")
}

/// Forwards until a card is gone.
async fn forward(ports: &mut [Box<dyn Port>; 2], peers: &[[u8; 6]; 2]) -> Result<()> {
    let own = [ports[0].mac(), ports[1].mac()];
    let mut batches = [PacketBatch::new(), PacketBatch::new()];
    let mut counters = Counters::default();
    let mut report = tokio::time::interval(REPORT);
    report.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let ready = poll_fn(|cx| {
            let mut ready = [false; 2];
            for (port, (batch, ready)) in ports.iter_mut().zip(batches.iter_mut().zip(&mut ready)) {
                match port.poll_read(cx, batch) {
                    Poll::Ready(Ok(())) => *ready = true,
                    Poll::Ready(Err(gone)) => return Poll::Ready(Err(gone)),
                    Poll::Pending => {}
                }
            }
            let tick = report.poll_tick(cx).is_ready();
            match tick || ready.contains(&true) {
                true => Poll::Ready(Ok((ready, tick))),
                false => Poll::Pending,
            }
        });
        let (ready, tick) = ready.await?;
        for from in [0, 1] {
            if !ready[from] {
                continue;
            }
            let to = 1 - from;
            for at in 0..batches[from].len() {
                let (offload, frame) = batches[from].packet_mut(at);
                counters.received += 1;
                let Some((header, rest)) = frame.split_first_chunk_mut::<14>() else {
                    bail!("a port gave a frame without a header");
                };
                header[..6].copy_from_slice(&peers[to]);
                header[6..12].copy_from_slice(&own[to]);
                match ports[to].write(offload, header, rest) {
                    Ok(()) => counters.sent += 1,
                    Err(error) => counters.not_sent(&error),
                }
            }
            ports[to].flush();
        }
        if tick {
            counters.malformed = ports.iter().map(|port| port.malformed()).sum();
            counters.lost = ports.iter().map(|port| port.lost()).sum();
            if let Some(line) = counters.changed() {
                println!("forward: counters {line}");
            }
        }
    }
}
