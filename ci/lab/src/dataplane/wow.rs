//! This project's routers as a contender: directly, over TCP, or by a relay.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use wow_builder::host::Guarded;

use super::bed::{Bed, End, SHORT, Tunnel};
use crate::client::Client;
use crate::command::wait_until;
use crate::namespaces::inside;
use crate::pool;

/// Two nodes know each other's path by then.
const JOIN_LIMIT: Duration = Duration::from_secs(60);

/// How packets are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// In datagrams of their own.
    Direct,
    /// The same, each by itself all along.
    OneByOne,
    /// In a connection.
    Tcp,
    /// By the node in the middle.
    Relay,
}

/// Starts the routers and waits until packets go the way that is meant.
pub fn start(bed: &Bed, wow: &Path, way: Way) -> Result<Tunnel> {
    let seeds: Vec<String> = match way {
        Way::Direct | Way::OneByOne => vec![format!("{}:4001", bed.address(End::B))],
        Way::Tcp => vec![format!("tcp:{}:443", bed.address(End::B))],
        Way::Relay => vec!["192.0.2.3:4001".into(), "198.51.100.3:4001".into()],
    };
    let ticket = pool::create(wow, bed.private_dir(), "bench", &seeds)?;
    if way == Way::Tcp {
        let rule = "rule add to 192.0.2.0/24 ipproto udp prohibit";
        bed.ip(End::A, &[rule.into()])?;
    }
    let mut processes = Vec::new();
    let mut launch = |end, name: &str| -> Result<Client> {
        let socket = bed.private(&format!("{name}.sock"));
        let mut command = inside(bed.space(end), wow);
        command.arg("run").arg("--ticket").arg(&ticket);
        command.args(["--name", name, "--listen", "0.0.0.0:4001"]);
        command.args(["--tcp-listen", "443", "--no-lan", "--no-port-mapping"]);
        command
            .arg("--state")
            .arg(bed.private(&format!("{name}.state")));
        command.arg("--socket").arg(&socket);
        if way == Way::OneByOne {
            command.arg("--no-offload");
        }
        processes.push(bed.spawn(command, name)?);
        Ok(Client::new(wow, &socket))
    };
    if way == Way::Relay {
        launch(End::Middle, "m")?;
    }
    let (b, a) = (launch(End::B, "b")?, launch(End::A, "a")?);
    for node in [&b, &a] {
        wait_until("a router's control socket", SHORT, || {
            Ok(node.socket().exists().then_some(()))
        })?;
    }
    a.wait_joined(JOIN_LIMIT)?;
    let far = b.wait_joined(JOIN_LIMIT)?.addresses.v4;
    let kind = match way {
        Way::Direct | Way::OneByOne => "udp",
        Way::Tcp => "tcp",
        Way::Relay => "relay",
    };
    let path = wait_until(&format!("a path by {kind}"), JOIN_LIMIT, || {
        // Traffic is what nodes find their paths for.
        let ping = a.ping(&far.to_string(), 1)?;
        let path = ping.path.filter(|path| path.kind == kind);
        Ok(path.filter(|_| ping.received > 0))
    })?;
    Ok(Tunnel {
        processes: alive(processes)?,
        far: far.into(),
        note: path.remote.or(path.via).unwrap_or(path.kind),
    })
}

/// The processes, if none has ended.
fn alive(mut processes: Vec<Guarded>) -> Result<Vec<Guarded>> {
    for process in &mut processes {
        let ended = process.try_wait()?;
        anyhow::ensure!(ended.is_none(), "a router ended within {SHORT:?}");
    }
    Ok(processes)
}
