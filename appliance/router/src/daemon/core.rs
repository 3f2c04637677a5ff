//! The node with its underlay, guest and control stack: everything between two waits of the loop.

mod delivery;
mod egress;
mod events;
mod network;
mod status;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use wow_control::Control;
use wow_dataplane::{Coalescer, Outbound, SendQueue};
use wow_guest::{Guest, Offload};
use wow_init::clock::{self, PauseWatch};
use wow_overlay::membership::{NodeName, Revocation, RevocationError};
use wow_overlay::node::{Config, Node, Run};
use wow_overlay::time::Instant;
use wow_overlay::wire::Remote;
use wow_underlay::{Lan, Lanes, TcpUnderlay, Underlay};

use super::command::{Command, Waiting};
use super::guests::Guests;
use super::second::Second;
use super::seeds::Seeds;
use super::trouble::Trouble;
use super::{Settings, host, report};
use crate::services::Services;
use crate::{api, random, wall_clock};

/// How often it is looked whether the machine has stood still.
const PAUSE_CHECK: Duration = Duration::from_secs(1);

/// How often the wall clock is compared and the certificate's end looked at.
const TICK: Duration = Duration::from_secs(60);

/// See the module.
pub struct Core {
    pub settings: Settings,
    pub underlay: Box<dyn Underlay>,
    pub tcp: Option<TcpUnderlay>,
    pub lanes: Lanes,
    pub lan: Option<Lan>,
    pub guest: Box<dyn Guest>,
    pub outbox: SendQueue,
    /// What goes to the guest, joined as far as it can be; empty between two waits.
    coalescer: Coalescer,
    joins_for_guest: bool,
    /// Writes to the guest when the loop is behind.
    second: Option<Second>,
    /// More datagrams waited than were taken last.
    pub is_behind: bool,
    pub control: Option<Control>,
    /// Who answers what the control stack asks.
    answers: Services,
    /// A peer's packet was given to the control stack, whose answers wait.
    stack_has_news: bool,
    /// The services of guests on a LAN.
    pub guests: Option<Guests>,
    node: Node,
    /// The address that the guest was last given.
    guest_v4: Ipv4Addr,
    waiting: Waiting,
    trouble: Trouble,
    lost: BTreeMap<&'static str, u64>,
    /// What other programs of this machine offer to the pool; the node bounds them.
    services: BTreeMap<NodeName, String>,
    started: tokio::time::Instant,
    first_joined: Option<Instant>,
    boot_to_joined_ms: Option<u64>,
    tick_due: Instant,
    pause: PauseWatch,
    pause_due: Instant,
    /// How often the wall clock had been set when it was last told to the node.
    clock_sets: u64,
    questioned: Option<Instant>,
    /// The links with addresses that are offered to other nodes.
    carriers: Vec<u32>,
    /// When the local networks are told of this node again.
    announce_due: Instant,
    /// The last join is not yet told to those who wait for it.
    tell_joined: bool,
}

impl Core {
    pub fn new(
        settings: Settings,
        underlay: Box<dyn Underlay>,
        tcp: Option<TcpUnderlay>,
        lan: Option<Lan>,
        guest: Box<dyn Guest>,
        (control, answers): (Option<Control>, Services),
        seeds: Seeds,
    ) -> Self {
        let node = Node::new(
            Config {
                identity: settings.identity.clone(),
                certificate: settings.certificate.clone(),
                pool: settings.ticket.facts().clone(),
                seeds: seeds.remotes,
                rng_seed: *random::seed(),
                wall: wall_clock::now(),
                ciphers: host::ciphers(),
                guest_mtu: settings.mtu.bytes().into(),
            },
            Instant::ZERO,
        );
        let v4 = underlay
            .bound()
            .into_iter()
            .find_map(|bound| match bound.ip() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            });
        let kept = settings.state.revocations(settings.ticket.facts());
        let trouble = Trouble::new(seeds.unknown, settings.ticket.roles(), settings.role);
        let mut core = Core {
            settings,
            tcp,
            lan,
            announce_due: Instant::ZERO,
            lanes: Lanes::new(v4.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            outbox: SendQueue::default(),
            underlay,
            coalescer: Coalescer::default(),
            joins_for_guest: guest.takes_offloads(),
            second: second_thread(&*guest),
            is_behind: false,
            guest,
            control,
            answers,
            stack_has_news: false,
            guests: None,
            guest_v4: node.addresses().v4,
            node,
            waiting: Waiting::default(),
            trouble,
            lost: BTreeMap::new(),
            services: BTreeMap::new(),
            started: tokio::time::Instant::now(),
            first_joined: None,
            boot_to_joined_ms: None,
            tick_due: Instant::ZERO + TICK,
            pause: PauseWatch::new(),
            pause_due: Instant::ZERO + PAUSE_CHECK,
            clock_sets: clock::sets(),
            questioned: None,
            carriers: Vec::new(),
            tell_joined: false,
        };
        for revocation in kept {
            // Verified when it was read.
            let _ = core.node.revoke(Instant::ZERO, revocation.bytes());
        }
        core.interfaces_changed();
        core
    }

    /// The overlay's time: since the daemon's start.
    pub fn now(&self) -> Instant {
        let micros = self.started.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// When [`Self::handle_deadline`] is due.
    pub fn next_deadline(&mut self) -> tokio::time::Instant {
        let control = self.control.as_ref().and_then(Control::next_deadline);
        let control = control.map(|(due, _)| Instant::ZERO + due);
        let node = self.node.next_deadline().map(|(due, _)| due);
        let announce = self.lan.as_ref().map(|_| self.announce_due);
        let own = self.tick_due.min(self.pause_due);
        let trouble = self.trouble.due(&self.node);
        let guests = self.guests.as_ref().and_then(Guests::next_deadline);
        let due = [node, control, announce, trouble, guests]
            .into_iter()
            .flatten()
            .fold(own, Instant::min);
        self.started + Duration::from_micros(due.as_micros())
    }

    /// Takes datagrams that came together. Packets for the guest wait for
    /// [`finish_batch`](Self::finish_batch), which joins them.
    pub fn handle_datagrams<'d>(
        &mut self,
        now: Instant,
        datagrams: impl Iterator<Item = (Remote, &'d mut [u8])>,
    ) {
        let mut run = Run::default();
        for (from, datagram) in datagrams {
            let packet = self.node.open_next(&mut run, now, from, datagram);
            // What came in parts before it goes before it.
            self.deliver_queued();
            if let Some(packet) = packet {
                self.deliver(packet.bytes, packet.lacks_checksum);
            }
        }
    }

    /// Takes a packet of the guest; what follows from it waits for [`finish_batch`](Self::finish_batch).
    pub fn handle_guest_packet(&mut self, now: Instant, offload: Offload, packet: &mut [u8]) {
        let Ok(packets) = Outbound::new(offload, packet) else {
            *self.lost.entry("drop_guest_malformed").or_default() += 1;
            return;
        };
        match &mut self.control {
            Some(control) if control.wants(packets.head()) => {
                packets.each_complete(|packet| control.handle_packet(now - Instant::ZERO, packet));
                self.drain_control();
            }
            _ => self.node.handle_guest_packets(now, &packets),
        }
    }

    /// Lets the control stack do what is due, or what it was woken for.
    pub fn handle_control(&mut self) {
        let now = self.now() - Instant::ZERO;
        if let Some(control) = &mut self.control {
            control.handle_deadline(now);
        }
        self.drain_control();
    }

    /// Does what follows from datagrams or packets that came together.
    pub fn finish_batch(&mut self) {
        self.drain_node();
    }

    pub fn handle_deadline(&mut self) {
        let now = self.now();
        if self.node.next_deadline().is_some_and(|(due, _)| due <= now) {
            self.node.handle_deadline(now);
            self.drain_node();
        }
        let control_due = self.control.as_ref().and_then(Control::next_deadline);
        if control_due.is_some_and(|(due, _)| due <= now - Instant::ZERO) {
            self.handle_control();
        }
        if let Some(guests) = &mut self.guests
            && guests.next_deadline().is_some_and(|due| due <= now)
        {
            guests.handle_deadline(now);
            self.drain_node();
        }
        if self.pause_due <= now {
            self.pause_due = now + PAUSE_CHECK;
            if let Some(span) = self.pause.poll() {
                tracing::warn!(seconds = span.as_secs(), "this machine stood still");
                self.node.set_wall_clock(now, wall_clock::now());
                self.node.question_paths(now);
                self.drain_node();
            }
            if std::mem::replace(&mut self.clock_sets, clock::sets()) != clock::sets() {
                // The node and its certificate go by the clock.
                self.tick_due = now;
            }
        }
        if self.lan.is_some() && self.announce_due <= now {
            self.announce(now);
        }
        if self.trouble.due(&self.node).is_some_and(|due| due <= now) {
            self.trouble.tell(&self.node, now);
        }
        if self.tick_due <= now {
            self.tick_due = now + TICK;
            self.lanes.expire();
            let wall = wall_clock::now();
            self.node.set_wall_clock(now, wall);
            self.renew_certificate(now, wall);
            self.drain_node();
        }
    }

    pub fn handle_command(&mut self, command: Command) {
        let now = self.now();
        // Who asked may have gone away since; then the answer is nobody's loss.
        match command {
            Command::Status(asker) => {
                let _ = asker.send(Box::new(self.status()));
            }
            Command::Peers(asker) => {
                let _ = asker.send(report::peers(&self.node, now));
            }
            Command::Joined(asker) if self.node.is_joined() => {
                let _ = asker.send(Box::new(self.status()));
            }
            Command::Joined(asker) => self.waiting.join(asker),
            Command::Revoke(text, asker) => {
                let _ = asker.send(self.revoke(now, &text));
            }
            Command::Whois(address, asker) => {
                let _ = asker.send(report::whois(&self.node, address));
            }
            Command::Offer(service, value, asker) => {
                let _ = asker.send(self.offer(now, &service, value));
            }
            Command::Withdraw(service, asker) => {
                if self.services.remove(&service).is_some() {
                    self.node.withdraw_service(now, service.as_str());
                }
                let _ = asker.send(());
            }
            Command::Trouble(from, sentences, asker) => {
                let _ = asker.send(self.trouble.told(from, sentences));
            }
            Command::Leases(asker) => {
                let _ = asker.send(report::leases(&self.node, now));
            }
            Command::LookUp(key, asker) => {
                let query = self.node.look_up(now, key);
                self.waiting.look_up(query, asker);
            }
            Command::Resolve(target, asker) => {
                let query = self.node.resolve(now, target);
                self.waiting.resolve(query, asker);
            }
            Command::Echo(id, asker) => {
                let ping = self.node.ping(now, id);
                self.waiting.echo(ping, asker);
            }
            Command::Path(id, asker) => {
                let _ = asker.send(report::path_to(&self.node, id));
            }
            Command::Trace(id, asker) => {
                let trace = self.node.trace(now, id);
                self.waiting.trace(trace, asker);
            }
            Command::Links(id, via, asker) => {
                let query = self.node.ask_links(now, id, via);
                self.waiting.ask_links(query, id, asker);
            }
        }
        self.drain_node();
    }

    /// Whether a service is offered now. Who offers it again changes nothing: claims are renewed here.
    fn offer(&mut self, now: Instant, service: &NodeName, value: String) -> bool {
        if self.services.get(service) == Some(&value) {
            return true;
        }
        let bytes = value.clone().into_bytes();
        let offered = self.node.offer_service(now, service.as_str(), bytes);
        if offered {
            self.services.insert(service.clone(), value);
        }
        offered
    }

    fn revoke(
        &mut self,
        now: Instant,
        text: &str,
    ) -> Result<api::RevocationReport, RevocationError> {
        let revocation = Revocation::parse(text, self.settings.ticket.facts())?;
        let told = self.node.peers().len();
        let news = self.node.revoke(now, revocation.bytes())?;
        Ok(api::RevocationReport {
            revoked: revocation.revoked().to_string(),
            news,
            told: if news { told } else { 0 },
        })
    }

    /// Says goodbye to the neighbours.
    pub fn leave(&mut self) {
        let now = self.now();
        self.node.leave(now);
        self.drain_node();
        self.flush();
    }

    /// Has the underlay's queues take what the node sends.
    pub fn queue_datagrams(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            if transmit.to.is_tcp() {
                self.send_tcp(transmit);
            } else if transmit.to.lane() != 0 {
                self.send_on_lane(transmit);
            } else {
                self.send_udp(transmit);
            }
        }
    }

    /// The drain order of [`Node`]: datagrams, guest packets, events.
    fn drain_node(&mut self) {
        self.queue_datagrams();
        self.deliver_queued();
        self.flush_guest();
        while let Some(event) = self.node.poll_event() {
            self.handle_event(event);
        }
        if std::mem::take(&mut self.tell_joined) {
            for asker in self.waiting.joined() {
                let _ = asker.send(Box::new(self.status()));
            }
        }
        self.drain_guests();
        if std::mem::take(&mut self.stack_has_news) {
            self.drain_control();
        }
    }
}

/// The thread that writes to a guest which takes superpackets, if there is a processor for it.
fn second_thread(guest: &dyn Guest) -> Option<Second> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let writer = (processors > 1 && guest.takes_offloads()).then(|| guest.writer())??;
    match Second::start(writer) {
        Ok(second) => Some(second),
        Err(error) => {
            tracing::warn!(%error, "going on with one thread");
            None
        }
    }
}
