//! What the node tells: who joined, came and went, what was leased, and the answers that somebody waits for.

use std::net::Ipv4Addr;

use wow_init::clock;
use wow_overlay::membership::CertificateError;
use wow_overlay::node::{DownReason, Event, LeaseId};
use wow_overlay::time::{Instant, UnixTime};

use super::super::command::Pong;
use super::super::report;
use super::Core;
use crate::{config, state, wall_clock};

impl Core {
    pub(super) fn handle_event(&mut self, event: Event) {
        match event {
            Event::Joined => {
                let now = self.now();
                if self.first_joined.is_none() {
                    self.first_joined = Some(self.node.joined_at().unwrap_or(now));
                    if self.settings.booted {
                        let since = wow_init::since_boot();
                        self.boot_to_joined_ms = Some(report::whole_milliseconds(since));
                    }
                }
                self.tell_joined = true;
                self.trouble.joined();
                let addresses = self.node.addresses();
                tracing::info!(
                    pool = %self.settings.ticket.facts().name,
                    after_ms = report::whole_milliseconds(now - Instant::ZERO),
                    v4 = %addresses.v4,
                    peers = self.node.peers().len(),
                    "joined"
                );
            }
            Event::Isolated => {
                tracing::warn!("no neighbour left; trying the seeds again");
                let now = self.now();
                self.trouble.isolated(now);
            }
            Event::PeerUp { id, name } => {
                tracing::info!(id = id.short(), name, "peer up");
            }
            Event::PeerDown { id, reason } => {
                tracing::info!(id = id.short(), ?reason, "peer down");
                if reason == DownReason::Unheard && !self.node.has_peers() {
                    self.trouble.unheard(id);
                }
            }
            Event::BatchesHarm { remote } => tracing::warn!(
                to = %remote,
                "datagrams go one by one to this destination: together they do not arrive"
            ),
            Event::Resolved { query, result } => {
                let result = result.map(|found| report::resolved(&found));
                self.waiting.resolved(query, result);
            }
            Event::Pong {
                ping, rtt, hops, ..
            } => self.waiting.echoed(ping, Some(Pong { rtt, hops })),
            Event::PingTimeout { ping } => self.waiting.echoed(ping, None),
            Event::Traced { trace, route } => self.waiting.traced(trace, route),
            Event::Links { query, result } => {
                self.waiting
                    .told_links(query, |of| report::links(of, result));
            }
            Event::Revocation(revocation) => {
                tracing::warn!(revoked = %revocation.revoked(), "membership ended by the pool's authority");
                if let Err(error) = self.settings.state.keep_revocation(&revocation) {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the revocation will be forgotten with a restart");
                }
            }
            Event::OutOfTime { from, error } => {
                self.learn_time(&error);
                self.trouble.out_of_time(from, &error);
            }
            Event::Revoked => tracing::error!(
                "the pool's authority has ended this node's membership; it needs a new ticket, and a \
                 new identity if the node itself was revoked"
            ),
            Event::Record { query, result } => {
                self.waiting.looked_up(query, result.map(report::record));
            }
            Event::Leased { lease, address } => self.on_leased(lease, address),
            Event::LeaseLost { lease, address, to } => {
                tracing::warn!(
                    lease = lease.0,
                    %address,
                    to = to.map(|to| to.short()),
                    "lost an address; leasing another"
                );
                let now = self.now();
                if let Some(guests) = &mut self.guests {
                    guests.lost(now, lease);
                }
            }
            Event::NameTaken { name, with }
                if self
                    .guests
                    .as_ref()
                    .is_some_and(|guests| guests.has_name(&name)) =>
            {
                tracing::warn!(
                    name,
                    with = with.short(),
                    "another node has the name of this guest; give the guest another"
                );
            }
            Event::NameTaken { name, with } => tracing::warn!(
                name,
                with = with.short(),
                "another node has this name; give one of them another with --name"
            ),
            Event::AddressConflict { with, address } => tracing::warn!(
                with = with.short(),
                %address,
                "another node has the address that this one was given; give one of them another with \
                 --address"
            ),
        }
    }

    fn on_leased(&mut self, lease: LeaseId, address: Ipv4Addr) {
        tracing::debug!(lease = lease.0, %address, "leased");
        let now = self.now();
        if let Some(guests) = &mut self.guests {
            guests.leased(now, lease, address);
        }
        if lease != LeaseId::OWN || self.guest_v4 == address {
            return;
        }
        match self.guest.set_address(address) {
            Ok(()) => {
                tracing::warn!(from = %self.guest_v4, to = %address, "this machine's virtual address changed");
                self.guest_v4 = address;
                if let Some(control) = self.control.as_mut().filter(|_| self.guests.is_some()) {
                    control.set_own(address, self.node.addresses().v6);
                }
            }
            Err(error) => tracing::error!(%error, %address, "cannot change the guest's address"),
        }
    }

    /// Replaces the certificate in time.
    pub(super) fn renew_certificate(&mut self, now: Instant, wall: UnixTime) {
        let settings = &self.settings;
        let held = self.node.certificate();
        // By a clock that was ahead and was set back it begins too late for others.
        let is_early = held.not_before() > wall.max(settings.ticket.not_before());
        if wall < state::renewal_due(held) && !is_early {
            return;
        }
        let renewed = settings.state.certificate(
            &settings.identity,
            &settings.ticket,
            &settings.name,
            config::certified_roles(settings.ticket.roles(), settings.role),
            settings.address,
            wall,
        );
        match renewed {
            Ok(certificate)
                if is_early || certificate.not_after() > self.node.certificate().not_after() =>
            {
                tracing::info!(
                    until = wall_clock::show(certificate.not_after()),
                    "certificate renewed"
                );
                let renewed = self.node.set_certificate(now, certificate);
                debug_assert!(renewed, "the same keys, name and address were certified");
            }
            // It already ends with the ticket.
            Ok(_) => tracing::debug!("the certificate ends with its ticket"),
            Err(error) => tracing::warn!(
                error = %format!("{error:#}"),
                until = wall_clock::show(self.node.certificate().not_after()),
                "cannot renew the certificate; give the node a new ticket"
            ),
        }
    }

    /// Takes a member's certificate, which its ticket has signed, as evidence of how late it is: on a machine whose own
    /// clock said nothing, or it could join nothing.
    fn learn_time(&self, error: &CertificateError) {
        let evidence = wall_clock::evidence(error, self.settings.ticket.not_after());
        if let Some(when) = evidence
            && clock::raise_to(when.0)
        {
            tracing::warn!(
                "the machine has no clock: set to the beginning of a member's certificate"
            );
        }
    }
}
