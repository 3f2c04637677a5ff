//! The figures of one contender: throughput, small packets, round trips, processor time, memory.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use wow_builder::host::Guarded;

use super::bed::{Bed, End, SHORT, Tunnel};
use crate::command::wait_until;
use crate::distribution::Distribution;

/// Bytes in each of the small packets.
const SMALL_BYTES: &str = "64";

/// Echo requests that come alone: until the next one, all that takes part sleeps, and much of it leaves the caches.
const LONE: [&str; 4] = ["-c", "200", "-i", "0.01"];

/// Echo requests of which each follows the answer to the last.
const IN_TURN: [&str; 3] = ["-c", "2000", "-A"];

/// Losses are rare and far apart: so many times as long as other flows.
const LOSSY_SPANS: u32 = 6;

/// What /proc counts processor time in: fixed by Linux's interface on every platform.
const TICKS_PER_SECOND: f64 = 100.0;

/// One run of iperf3.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Flow {
    /// What arrived.
    pub mbit_per_s: f64,
    /// Segments that TCP sent again.
    pub retransmits: u64,
    /// Processor time of the contender's processes for each gigabyte that arrived.
    pub cpu_s_per_gb: f64,
}

/// Everything that is measured.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// One TCP flow.
    pub one: Flow,
    /// Four TCP flows.
    pub four: Flow,
    /// One TCP flow in the other direction.
    pub reverse: Flow,
    /// UDP packets with 64 bytes in them that arrived a second, the sender going as fast as it can.
    pub small_packets_per_s: f64,
    /// Half of the round trips that followed each other took at most so long.
    pub rtt_ms: f64,
    /// The same of those that began 10 ms apart.
    pub lone_rtt_ms: f64,
    /// The largest resident memory of any process, after all of this.
    pub rss_mb: f64,
    /// What to know of the contender.
    pub note: String,
}

impl Figures {
    /// Segments that TCP sent again in all flows.
    pub fn retransmits(&self) -> u64 {
        let flows = [self.one, self.four, self.reverse];
        flows.iter().map(|flow| flow.retransmits).sum()
    }
}

/// One TCP flow where packets get lost, through the tunnel and without it.
#[derive(Debug, Clone, Serialize)]
pub struct Lossy {
    /// Through the tunnel.
    pub one: Flow,
    /// Without it.
    pub bare: Flow,
}

/// Measures a tunnel that is up.
pub fn all(bed: &Bed, tunnel: &Tunnel, span: Duration, say: &dyn Fn(&str)) -> Result<Figures> {
    let far = tunnel.far.to_string();
    say("round trips");
    // The first packets find the way.
    wait_until("an answer through the tunnel", SHORT, || {
        Ok(bed.run(End::A, &["ping", "-c1", "-W1", &far]).ok())
    })?;
    let ping = |options: &[&str]| {
        let said = bed.run(End::A, &[&["ping", &far], options].concat())?;
        round_trip(&said).context("ping tells no round trips")
    };
    let rtt_ms = ping(&IN_TURN)?;
    let lone_rtt_ms = ping(&LONE)?;
    let _server = bed.start(End::B, "iperf3", &["iperf3", "--server"])?;
    let flow = |what: &str, options: &[&str]| {
        say(what);
        flow(bed, tunnel, span, options)
    };
    let one = flow("one flow", &[])?;
    let four = flow("four flows", &["--parallel", "4"])?;
    let reverse = flow("one flow in reverse", &["--reverse"])?;
    say("small packets");
    let small = ["--udp", "--bitrate", "0", "--length", SMALL_BYTES];
    let small = iperf(bed, &far, span, &small)?;
    let sum = &small["end"]["sum"];
    let number = |name: &str| sum[name].as_f64().context("iperf3 tells no packets");
    let arrived = number("packets")? - number("lost_packets")?;
    Ok(Figures {
        one,
        four,
        reverse,
        small_packets_per_s: arrived / number("seconds")?,
        rtt_ms,
        lone_rtt_ms,
        rss_mb: tunnel.processes.iter().map(peak_mb).fold(0.0, f64::max),
        note: tunnel.note.clone(),
    })
}

/// Measures a tunnel that is up beside what it goes through, where that loses packets.
pub fn lossy(bed: &Bed, tunnel: &Tunnel, span: Duration, say: &dyn Fn(&str)) -> Result<Lossy> {
    let _server = bed.start(End::B, "iperf3", &["iperf3", "--server"])?;
    let span = span * LOSSY_SPANS;
    say("one flow without a tunnel");
    let bare = flow(bed, &bed.bare(), span, &[])?;
    say("one flow");
    let one = flow(bed, tunnel, span, &[])?;
    Ok(Lossy { one, bare })
}

/// Runs TCP flows through a tunnel.
fn flow(bed: &Bed, tunnel: &Tunnel, span: Duration, options: &[&str]) -> Result<Flow> {
    let before = cpu_seconds(&tunnel.processes);
    let result = iperf(bed, &tunnel.far.to_string(), span, options)?;
    let spent = cpu_seconds(&tunnel.processes) - before;
    let end = &result["end"];
    let bytes = end["sum_received"]["bytes"].as_f64().unwrap_or(0.0);
    let rate = &end["sum_received"]["bits_per_second"];
    Ok(Flow {
        mbit_per_s: rate.as_f64().context("iperf3 tells no rate")? / 1e6,
        retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
        cpu_s_per_gb: spent / (bytes / 1e9),
    })
}

fn iperf(bed: &Bed, far: &str, span: Duration, options: &[&str]) -> Result<Value> {
    let seconds = span.as_secs().max(1).to_string();
    let words = ["iperf3", "--json", "--client", far, "--time", &seconds];
    let words = [&words[..], options].concat();
    let mut said = String::new();
    // The server takes one test at a time, and may still be busy with the last one's end.
    wait_until("iperf3's server", SHORT, || {
        let limit = span + SHORT;
        said = match bed.run_for(End::A, &words, limit) {
            Ok(said) => said,
            Err(error) => {
                let text = error.to_string();
                let early = ["busy", "refused"].iter().any(|part| text.contains(part));
                return if early { Ok(None) } else { Err(error) };
            }
        };
        Ok(Some(()))
    })?;
    serde_json::from_str(&said).context("iperf3 prints no JSON")
}

/// The median of the times that ping printed.
fn round_trip(said: &str) -> Option<f64> {
    let times = said.lines().filter_map(|line| {
        let (_, rest) = line.split_once("time=")?;
        rest.split_whitespace().next()?.parse().ok()
    });
    let times: Vec<f64> = times.collect();
    Distribution::new(times.into_iter().map(Some)).percentile(50)
}

/// User and system time of processes so far.
fn cpu_seconds(processes: &[Guarded]) -> f64 {
    let ticks = |process: &Guarded| {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).ok()?;
        cpu_ticks(&stat)
    };
    let ticks: u64 = processes.iter().filter_map(ticks).sum();
    ticks as f64 / TICKS_PER_SECOND
}

/// Fields 14 and 15 of /proc/PID/stat; the name before them may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn peak_mb(process: &Guarded) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid()));
    let status = status.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ping_prints_gives_its_median() {
        let said = "64 bytes from 10.0.0.2: icmp_seq=1 ttl=64 time=0.9 ms\n\
                    64 bytes from 10.0.0.2: icmp_seq=2 ttl=64 time=0.2 ms\n\
                    64 bytes from 10.0.0.2: icmp_seq=3 ttl=64 time=0.3 ms\n\
                    rtt min/avg/max/mdev = 0.2/0.4/0.9/0.3 ms\n";
        assert_eq!(round_trip(said), Some(0.3));
        assert_eq!(round_trip("nothing"), None);
    }

    #[test]
    fn processor_time_is_read_past_any_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 30 12 0 0 20 0 1 0 5 6";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("7 (x"), None);
    }
}
