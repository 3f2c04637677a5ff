//! What a host is to do, and the text that is sent to do it. Pure.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::bundle::Bundle;

/// What runs on the host.
const SCRIPT: &str = include_str!("host.sh");

/// What is done on every host.
#[derive(Debug, Clone)]
pub enum Action {
    /// Installs, upgrades, or sees that all is as it should be.
    Deploy(Deployment),
    /// Goes back to the version before this one.
    Rollback,
    /// Says how the node is.
    Status,
    /// Ends the node and removes everything.
    Remove,
}

/// What is put on a host.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The program and what starts it.
    pub bundle: Bundle,
    /// The ticket's text, or none for the one that the host has.
    pub ticket: Option<Secret>,
    /// What `wow run` is told, or none for what the host's was told before.
    pub options: Option<NodeOptions>,
}

/// Options of `wow run`, the same for all hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeOptions {
    /// How the host takes part; by default by a TUN device where root can make one.
    pub guest: Option<Guest>,
    /// Where to listen; any port by default.
    pub listen: Option<SocketAddr>,
    /// TCP ports too.
    pub tcp_listen: Vec<u16>,
    /// Nodes to join by besides the ticket's, as `wow` reads them.
    pub seeds: Vec<String>,
    /// Where a node without a guest serves SOCKS to its host's programs.
    pub socks: Option<SocketAddr>,
    /// Its ways into the pool and out of it, as `wow` reads them.
    pub forwards: Vec<String>,
}

/// How a host takes part in the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// By a TUN device; needs root.
    Tun,
    /// It carries others' traffic only.
    None,
}

/// A text that stays out of logs.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Takes it in.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What goes over one connection.
#[derive(Debug)]
pub struct Order {
    /// The command line on the host: no secrets, and nothing that differs between login shells.
    pub command: String,
    /// Standard input: the script, then ticket and options.
    pub input: Secret,
    /// What follows if the host asks for it.
    pub bundle: Option<Bundle>,
}

impl Action {
    /// The order for a host, which is to see a node join within `join_limit`.
    pub fn order(&self, join_limit: Duration) -> Order {
        let deployment = match self {
            Self::Deploy(deployment) => Some(deployment),
            _ => None,
        };
        let options = deployment.and_then(|d| d.options.as_ref());
        let text = options.map(NodeOptions::to_toml).unwrap_or_default();
        let ticket = deployment.and_then(|d| d.ticket.as_ref());
        let ticket = ticket.map_or(&[][..], |ticket| &ticket.0);
        let bundle = deployment.map(|d| d.bundle.clone());
        let guest = match options.and_then(|options| options.guest) {
            None => "auto",
            Some(Guest::Tun) => "tun",
            Some(Guest::None) => "none",
        };
        // All of these are words or numbers of ours: nothing needs quoting.
        let script = format!(
            "action={} version={} bundle_bytes={} ticket_bytes={} options_bytes={} options={} \
             guest={guest} join_seconds={}\n{SCRIPT}",
            self.name(),
            bundle
                .as_ref()
                .map_or("", |bundle| bundle.version().as_str()),
            bundle.as_ref().map_or(0, |bundle| bundle.bytes().len()),
            ticket.len(),
            text.len(),
            if options.is_some() { "new" } else { "keep" },
            join_limit.as_secs().max(1),
        );
        let command = format!(
            "exec /bin/sh -c 'eval \"$(dd bs=1 count={} 2>/dev/null)\"'",
            script.len()
        );
        let mut input = script.into_bytes();
        input.extend_from_slice(ticket);
        input.extend_from_slice(text.as_bytes());
        Order {
            command,
            input: Secret::new(input),
            bundle,
        }
    }

    /// The script's function.
    fn name(&self) -> &'static str {
        match self {
            Self::Deploy(_) => "deploy",
            Self::Rollback => "rollback",
            Self::Status => "status",
            Self::Remove => "remove",
        }
    }
}

impl Secret {
    /// The bytes, for who passes them on.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl NodeOptions {
    /// As `wow run --config` reads them; the host adds `guest`.
    fn to_toml(&self) -> String {
        let mut table = toml::Table::new();
        if let Some(listen) = self.listen {
            table.insert("listen".into(), listen.to_string().into());
        }
        if !self.tcp_listen.is_empty() {
            let ports = self.tcp_listen.iter().map(|port| i64::from(*port).into());
            table.insert("tcp-listen".into(), toml::Value::Array(ports.collect()));
        }
        if let Some(socks) = self.socks {
            table.insert("socks".into(), socks.to_string().into());
        }
        for (key, texts) in [("seeds", &self.seeds), ("forward", &self.forwards)] {
            if !texts.is_empty() {
                let texts = texts.iter().map(|text| text.as_str().into());
                table.insert(key.into(), toml::Value::Array(texts.collect()));
            }
        }
        table.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_counts_what_it_sends() {
        let order = Action::Status.order(Duration::from_secs(7));
        let script = std::str::from_utf8(order.input.bytes()).unwrap();
        assert!(order.command.contains(&format!("count={} ", script.len())));
        assert!(script.starts_with("action=status version= bundle_bytes=0 ticket_bytes=0"));
        assert!(script.contains("join_seconds=7\n"));
        assert!(order.bundle.is_none());
    }

    #[test]
    fn a_ticket_is_in_no_command_line_and_in_no_debug_output() {
        let repository = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap();
        let directory = tempfile::tempdir().unwrap();
        let written =
            crate::bundle::write(repository, directory.path(), b"program".to_vec()).unwrap();
        let action = Action::Deploy(Deployment {
            bundle: Bundle::read(&written.tar).unwrap(),
            ticket: Some(Secret::new(b"the-ticket".to_vec())),
            options: Some(NodeOptions {
                guest: Some(Guest::None),
                seeds: vec!["a\"b:1".into()],
                socks: Some(([127, 0, 0, 1], 1080).into()),
                forwards: vec!["pool:22=127.0.0.1:22".into()],
                ..NodeOptions::default()
            }),
        });
        let order = action.order(Duration::from_secs(1));
        assert!(!order.command.contains("the-ticket"));
        assert!(!format!("{order:?}{action:?}").contains("the-ticket"));
        let input = String::from_utf8(order.input.bytes().to_vec()).unwrap();
        let (script, rest) = input.split_once("the-ticket").unwrap();
        assert!(script.contains("ticket_bytes=10 "));
        assert!(script.contains("guest=none "));
        let options: toml::Table = toml::from_str(rest).unwrap();
        assert_eq!(options["seeds"][0].as_str(), Some("a\"b:1"));
        assert_eq!(options["socks"].as_str(), Some("127.0.0.1:1080"));
        assert_eq!(options["forward"][0].as_str(), Some("pool:22=127.0.0.1:22"));
    }
}
