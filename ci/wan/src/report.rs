//! The JSON that programs read: the ready line, and the report at the end.

use std::net::Ipv4Addr;

use serde::Serialize;

use crate::{
    config::{Attachment, Config},
    counters::{Counters, Traffic},
    time::Instant,
    world::World,
};

/// The line on standard output once every port is set up.
#[derive(Debug, Serialize)]
pub struct Ready {
    /// Always `"ready"`.
    pub event: &'static str,
    /// Process id.
    pub pid: u32,
    /// The ports in the configuration's order.
    pub ports: Vec<ReadyPort>,
}

/// A port in the ready line.
#[derive(Debug, Serialize)]
pub struct ReadyPort {
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// The TAP device, if it is one.
    pub tap: Option<String>,
    /// The Unix socket, if it is one.
    pub unix: Option<String>,
}

/// What happened from start to end.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Run time in milliseconds.
    pub uptime_ms: u64,
    /// The domains in the configuration's order.
    pub domains: Vec<DomainReport>,
    /// The ports in the configuration's order.
    pub ports: Vec<NamedPortReport>,
}

/// One domain's part.
#[derive(Debug, Serialize)]
pub struct DomainReport {
    /// Its name.
    pub name: String,
    /// Mappings held, expired ones not yet forgotten included; absent without NAT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_mappings: Option<usize>,
    /// Sessions held, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nat_sessions: Option<usize>,
    /// DHCP leases in force.
    pub leases: Vec<LeaseReport>,
    /// Counts.
    #[serde(flatten)]
    pub counters: Counters,
}

/// A DHCP lease.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct LeaseReport {
    /// The holder's MAC address.
    pub mac: String,
    /// The address held.
    pub ip: Ipv4Addr,
}

/// One port's part, without its name.
#[derive(Debug, Serialize)]
pub struct PortReport {
    /// Frames from the machine.
    pub received: Traffic,
    /// Frames to the machine.
    pub sent: Traffic,
}

/// What a port carried, and what its attachment met.
#[derive(Debug, Serialize)]
pub struct NamedPortReport {
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: String,
    /// Counts of the emulator's core.
    #[serde(flatten)]
    pub traffic: PortReport,
    /// Counts of the attachment.
    #[serde(flatten)]
    pub attachment: AttachmentCounters,
}

/// What happened between the emulator and a machine.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct AttachmentCounters {
    /// Times the attachment came up.
    pub connects: u64,
    /// Frames dropped because nobody was attached.
    pub dropped_detached: u64,
    /// Frames dropped because the machine did not take them fast enough.
    pub dropped_full: u64,
    /// Errors of reading, writing or framing.
    pub errors: u64,
}

impl Ready {
    /// The ready line for this configuration.
    pub fn new(config: &Config) -> Ready {
        let ports = config.ports().iter().map(|port| {
            let (tap, unix) = match &port.attachment {
                Attachment::Tap(name) => (Some(name.clone()), None),
                Attachment::Unix(path) => (None, Some(path.display().to_string())),
            };
            ReadyPort {
                name: port.name.clone(),
                domain: port.domain.clone(),
                tap,
                unix,
            }
        });
        Ready {
            event: "ready",
            pid: std::process::id(),
            ports: ports.collect(),
        }
    }
}

impl Report {
    /// The report on a world that ran from zero to `now`.
    pub fn new(world: &World, attachments: &[AttachmentCounters], now: Instant) -> Report {
        let ports = world
            .config()
            .ports()
            .iter()
            .zip(world.port_reports())
            .zip(attachments)
            .map(|((port, traffic), attachment)| NamedPortReport {
                name: port.name.clone(),
                domain: port.domain.clone(),
                traffic,
                attachment: *attachment,
            });
        Report {
            uptime_ms: (now - Instant::ZERO).as_millis() as u64,
            domains: world.domain_reports(now),
            ports: ports.collect(),
        }
    }
}
