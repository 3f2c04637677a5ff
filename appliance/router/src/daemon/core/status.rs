//! How the node is, for people and programs.

use wow_overlay::time::Instant;

use super::super::{host, report};
use super::Core;
use crate::api;

impl Core {
    /// How the node is.
    pub fn status(&self) -> api::Status {
        let now = self.now();
        let pool = self.settings.ticket.facts();
        let certificate = self.node.certificate();
        let addresses = self.node.addresses();
        let mut counters = report::counters(&self.node);
        counters.extend(
            self.lost
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count)),
        );
        counters.insert("drop_receive_oversized".into(), self.underlay.oversized());
        counters.insert("drop_guest_device".into(), self.guest.malformed());
        if let Some(tcp) = &self.tcp {
            let tallies = tcp.tallies();
            counters.insert("udp_lanes".into(), self.lanes.len() as u64);
            counters.insert("tcp_connections".into(), tallies.connections as u64);
            counters.insert("drop_tcp_refused".into(), tallies.refused);
            counters.insert("drop_tcp_unproven".into(), tallies.unproven);
            counters.insert("drop_tcp_malformed".into(), tallies.malformed);
        }
        if let Some(control) = &self.control {
            let losses = control.losses().into_iter();
            counters.extend(losses.map(|(name, count)| (name.to_owned(), count)));
        }
        let mut trouble = self.trouble.list(&self.node, now);
        trouble.extend(self.settings.state.files().trouble());
        trouble.extend(self.settings.clock.trouble());
        let (kind, lan) = match &self.guests {
            Some(guests) => {
                counters.extend(guests.counters());
                trouble.extend(guests.trouble(now));
                (guests.kind().to_owned(), guests.list(now))
            }
            None => {
                let tun = self.settings.tun.as_ref();
                (
                    tun.map_or("none".into(), |tun| format!("tun {tun}")),
                    Vec::new(),
                )
            }
        };
        api::Status {
            id: self.node.id().to_string(),
            name: certificate.name().to_string(),
            pool: pool.name.to_string(),
            pool_id: pool.pool_id().to_string(),
            range: pool.range.to_string(),
            addresses: api::VirtualAddresses {
                v4: addresses.v4,
                v6: addresses.v6,
            },
            roles: certificate.roles().to_string(),
            role: self.settings.role.map(|role| role.to_string()),
            joined: self.node.is_joined(),
            joined_after_ms: self
                .first_joined
                .map(|joined| report::whole_milliseconds(joined - Instant::ZERO)),
            boot_to_joined_ms: self.boot_to_joined_ms,
            uptime_ms: report::whole_milliseconds(now - Instant::ZERO),
            rss_bytes: host::rss_bytes(),
            neighbours: report::neighbours(&self.node),
            peers: self.node.peers().len(),
            pool_size_estimate: self.node.size_estimate(),
            listen: self.underlay.bound(),
            tcp_listen: self
                .tcp
                .as_ref()
                .map_or_else(Vec::new, |tcp| tcp.listening().to_vec()),
            guest: kind,
            lan,
            trouble,
            certificate_until: certificate.not_after().0,
            clock: Some(self.settings.clock.report()),
            version: env!("CARGO_PKG_VERSION").into(),
            counters,
        }
    }
}
