//! The node with its underlay, guest and control stack: everything between two waits of the loop.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use wow_control::Control;
use wow_dataplane::{Coalescer, Outbound, SendQueue, segment};
use wow_guest::{Guest, Offload, WriteError};
use wow_init::clock::{self, PauseWatch};
use wow_overlay::membership::{CertificateError, NodeName, Revocation, RevocationError};
use wow_overlay::node::{Config, DownReason, Event, GuestPacket, LeaseId, Node, Run, Transmit};
use wow_overlay::time::{Instant, UnixTime};
use wow_overlay::wire::Remote;
use wow_underlay::portmap::{Mapped, Transport};
use wow_underlay::tcp::Refusal;
use wow_underlay::{InterfaceAddress, Lan, Lanes, Outgoing, SendError, TcpUnderlay, Underlay};

use super::Settings;
use super::command::{Command, Pong, Waiting};
use super::guests::Guests;
use super::second::Second;
use super::seeds::Seeds;
use super::trouble::Trouble;
use super::{host, report};
use crate::services::Services;
use crate::{api, config, random, state, wall_clock};

/// How often it is looked whether the machine has stood still.
const PAUSE_CHECK: Duration = Duration::from_secs(1);

/// Paths are not questioned because of links more often than this.
const QUESTION_PAUSE: Duration = Duration::from_secs(1);

/// How often local networks are told of this node: by one that has peers, and by one that has none.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(60);
const ANNOUNCE_ALONE: Duration = Duration::from_secs(4);

/// How long after a change of the machine's addresses at most.
const ANNOUNCE_SPREAD: Duration = Duration::from_millis(200);

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
    pub fn next_deadline(&self) -> tokio::time::Instant {
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

    /// Reads the machine's addresses anew.
    pub fn interfaces_changed(&mut self) {
        let own = wow_underlay::interfaces::list().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the machine's addresses");
            Vec::new()
        });
        let pool = self.settings.ticket.facts();
        let tcp = self.tcp.as_ref().map_or(&[][..], TcpUnderlay::listening);
        let bound = self.underlay.bound().into_iter().map(Remote::udp);
        let bound: Vec<_> = bound.chain(tcp.iter().copied().map(Remote::tcp)).collect();
        let prefix = pool.summary().v6_prefix;
        let candidates = host::candidates(&bound, &own, pool.range, prefix);
        let offered = |ip| candidates.iter().any(|candidate| candidate.ip() == ip);
        let carriers = own.iter().filter(|address| offered(address.ip));
        self.carriers = carriers.map(|address| address.index).collect();
        tracing::debug!(?candidates, "own underlay addresses");
        let now = self.now();
        if let Some(lan) = &mut self.lan {
            let usable = |address: &InterfaceAddress| {
                let udp = candidates.iter().filter(|candidate| candidate.is_udp());
                udp.map(|candidate| candidate.ip())
                    .any(|ip| ip == address.ip)
            };
            let mut networks = own.clone();
            networks.retain(usable);
            lan.set_networks(&networks);
            // Many machines of one network may have woken up at once.
            self.announce_due = now + ANNOUNCE_SPREAD.mul_f64(random::share(0.0, 1.0));
        }
        if let Some(tun) = &self.settings.tun {
            let pool = self.settings.ticket.facts();
            self.trouble.routes_changed(pool, tun);
        }
        if self.node.set_host_candidates(now, candidates) {
            self.questioned = Some(now);
        }
        self.drain_node();
    }

    /// Links changed or announced themselves: one with an address of ours may lead elsewhere now, as
    /// after the migration of a virtual machine.
    pub fn links_changed(&mut self, links: &[u32]) {
        let now = self.now();
        let ours = links.iter().any(|link| self.carriers.contains(link));
        let lately = |last: Instant| now - last < QUESTION_PAUSE;
        if ours && !self.questioned.is_some_and(lately) {
            tracing::debug!(?links, "a link announced itself: probing every path");
            self.questioned = Some(now);
            self.node.question_paths(now);
            self.drain_node();
        }
    }

    pub fn mappings_changed(&mut self, mapped: &[Mapped]) {
        tracing::info!(?mapped, "ports mapped by the gateway");
        let remote = |mapped: &Mapped| match mapped.transport {
            Transport::Udp => Remote::udp(mapped.external.into()),
            Transport::Tcp => Remote::tcp(mapped.external.into()),
        };
        let now = self.now();
        let mapped = mapped.iter().map(remote).collect();
        self.node.set_mapped_candidates(now, mapped);
        self.drain_node();
    }

    pub fn handle_announcement(&mut self, from: SocketAddr, bytes: &mut [u8]) {
        let now = self.now();
        self.node.handle_announcement(now, from, bytes);
        self.drain_node();
    }

    /// Tells the local networks of this node: often while it knows nobody.
    fn announce(&mut self, now: Instant) {
        let span = match self.node.has_peers() {
            true => ANNOUNCE_INTERVAL,
            false => ANNOUNCE_ALONE,
        };
        self.announce_due = now + span.mul_f64(random::share(0.75, 1.25));
        let announcement = self.node.announcement();
        if let Some(lan) = &self.lan {
            lan.announce(&announcement);
        }
    }

    pub fn seeds_changed(&mut self, seeds: Seeds) {
        tracing::debug!(?seeds, "seeds");
        let now = self.now();
        self.trouble.seeds_changed(seeds.unknown);
        self.node.set_seeds(now, seeds.remotes);
        self.drain_node();
    }

    /// Says goodbye to the neighbours.
    pub fn leave(&mut self) {
        let now = self.now();
        self.node.leave(now);
        self.drain_node();
        self.flush();
    }

    /// Offers the waiting datagrams to the underlay; whether all are gone.
    pub fn flush(&mut self) -> bool {
        while !self.outbox.is_empty() {
            let waiting = self.outbox.waiting();
            let sent = self.underlay.send(waiting);
            let failed = sent.failures.into_iter();
            let failed: Vec<_> = failed
                .map(|(index, error)| (waiting[index].to, waiting[index].datagram_bytes, error))
                .collect();
            for (to, length, error) in failed {
                self.count_unsent(Remote::udp(to), length, &error);
            }
            if sent.taken == 0 {
                return false;
            }
            for buffer in self.outbox.remove(sent.taken) {
                self.node.recycle(buffer);
            }
        }
        true
    }

    fn count_unsent(&mut self, to: Remote, length: usize, error: &SendError) {
        tracing::debug!(%to, length, %error, "datagram not sent");
        if let SendError::TooBig = error {
            self.node.handle_too_long(self.now(), to, length);
        }
        let reason = match error.reason() {
            "unreachable" => "drop_send_unreachable",
            "too_big" => "drop_send_too_big",
            "no_socket" => "drop_send_no_socket",
            "forbidden" => "drop_send_forbidden",
            _ => "drop_send_other",
        };
        *self.lost.entry(reason).or_default() += 1;
    }

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

    /// The drain order of [`Node`]: datagrams, guest packets, events.
    fn drain_node(&mut self) {
        while let Some(transmit) = self.node.poll_transmit() {
            if transmit.to.is_tcp() {
                self.send_tcp(transmit);
            } else if transmit.to.lane() != 0 {
                self.send_on_lane(transmit);
            } else {
                self.send_udp(transmit);
            }
        }
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

    /// Has the LAN's services do what is to be done, and the node what they want of it.
    fn drain_guests(&mut self) {
        let now = self.now();
        if let Some(guests) = &mut self.guests
            && guests.drive(now, &mut *self.guest, &mut self.node, &self.settings.state)
        {
            self.drain_node();
        }
    }

    fn deliver_queued(&mut self) {
        while let Some(GuestPacket {
            bytes,
            lacks_checksum,
        }) = self.node.poll_guest_packet()
        {
            self.deliver(&bytes, lacks_checksum);
            self.node.recycle(bytes);
        }
    }

    fn send_udp(&mut self, transmit: Transmit) {
        let queued = self.outbox.push(Outgoing {
            to: transmit.to.address(),
            payload: transmit.datagram,
            datagram_bytes: transmit.datagram_bytes,
        });
        if let Err(lost) = queued {
            let count = lost.payload.len().div_ceil(lost.datagram_bytes.max(1)) as u64;
            *self.lost.entry("drop_send_full").or_default() += count;
            self.node.recycle(lost.payload);
        }
    }

    fn send_on_lane(&mut self, transmit: Transmit) {
        let (to, lane) = (transmit.to.address(), transmit.to.lane());
        if let Err(error) = self.lanes.send(lane, to, &transmit.datagram) {
            self.count_unsent(transmit.to, transmit.datagram.len(), &error);
        }
        self.node.recycle(transmit.datagram);
    }

    fn send_tcp(&mut self, transmit: Transmit) {
        let Some(tcp) = &self.tcp else {
            return self.node.recycle(transmit.datagram);
        };
        let Transmit {
            to,
            datagram,
            datagram_bytes,
            ..
        } = transmit;
        if let Err(refusal) = tcp.send(to.address(), &datagram, datagram_bytes) {
            let lost = match refusal {
                Refusal::Full { lost } => lost,
                _ => datagram.len().div_ceil(datagram_bytes.max(1)),
            };
            let reason = match refusal.reason() {
                "full" => "drop_tcp_full",
                "too_many" => "drop_tcp_too_many",
                "too_big" => "drop_tcp_too_big",
                _ => "drop_tcp_failed",
            };
            *self.lost.entry(reason).or_default() += lost as u64;
        }
        self.node.recycle(datagram);
    }

    fn drain_control(&mut self) {
        while let Some(question) = self.control.as_mut().and_then(Control::poll_question) {
            self.answers.answer(question);
        }
        let mut asked = false;
        while let Some(packet) = self.control.as_mut().and_then(Control::poll_packet) {
            asked |= self.send_from_stack(&packet);
        }
        self.guest.flush();
        if asked {
            self.drain_node();
        }
    }

    /// Hands a packet of the stack to the guest it is for, or, if it comes from the node's own address, to the pool;
    /// whether the node has it.
    fn send_from_stack(&mut self, packet: &[u8]) -> bool {
        let is_own = self
            .control
            .as_ref()
            .is_some_and(|control| control.is_from_own(packet));
        match self.guest.write(Offload::default(), packet) {
            Err(WriteError::NoNeighbour) if is_own => {
                let now = self.now();
                self.node.handle_guest_packet(now, packet);
                return true;
            }
            Err(error) => self.count_unwritten(&error),
            Ok(()) => {}
        }
        false
    }

    /// Gives the stack a packet of a peer's that is for the node's own address, where that lives there; whether it
    /// was one.
    fn deliver_to_stack(&mut self, packet: &[u8], lacks_checksum: bool) -> bool {
        let now = self.now() - Instant::ZERO;
        let Some(control) = &mut self.control else {
            return false;
        };
        if !control.is_for_own(packet) {
            return false;
        }
        let mut packet = packet.to_vec();
        if lacks_checksum && segment::fill_checksum(&mut packet).is_err() {
            *self.lost.entry("drop_peer_malformed").or_default() += 1;
            return true;
        }
        control.handle_packet(now, &packet);
        self.stack_has_news = true;
        true
    }

    /// Hands a packet from a peer to the guest: soon, where it may be joined with the next ones.
    fn deliver(&mut self, packet: &[u8], lacks_checksum: bool) {
        if self.guests.is_some() && self.deliver_to_stack(packet, lacks_checksum) {
            return;
        }
        let malformed = if self.joins_for_guest {
            if self.coalescer.is_full() {
                self.flush_guest();
            }
            self.coalescer.push(packet, lacks_checksum).is_err()
        } else if lacks_checksum {
            let mut packet = packet.to_vec();
            let filled = segment::fill_checksum(&mut packet);
            if filled.is_ok() {
                self.write_guest(Offload::default(), &packet);
            }
            filled.is_err()
        } else {
            self.write_guest(Offload::default(), packet);
            false
        };
        if malformed {
            *self.lost.entry("drop_peer_malformed").or_default() += 1;
        }
    }

    /// Hands over what was joined.
    fn flush_guest(&mut self) {
        if self.hands_over() {
            let packets = self.coalescer.drain().collect();
            if let Some(second) = &mut self.second {
                second.hand(packets);
            }
            return;
        }
        let mut coalescer = std::mem::take(&mut self.coalescer);
        coalescer.take(|offload, packet| self.write_guest(offload, packet));
        self.coalescer = coalescer;
        self.guest.flush();
    }

    /// Whether the second thread is to write what was joined: the loop is behind, or what came before is still
    /// under way there.
    fn hands_over(&mut self) -> bool {
        let Some(second) = &mut self.second else {
            return false;
        };
        let mut errors = Vec::new();
        while let Some(written) = second.poll_written() {
            errors.extend(written.errors);
            for (_, buffer) in written.packets {
                self.coalescer.reuse(buffer);
            }
        }
        let is_busy = second.is_busy();
        for error in errors {
            self.count_unwritten(&error);
        }
        (self.is_behind || is_busy) && !self.coalescer.is_empty()
    }

    fn write_guest(&mut self, offload: Offload, packet: &[u8]) {
        if let Err(error) = self.guest.write(offload, packet) {
            self.count_unwritten(&error);
        }
    }

    fn count_unwritten(&mut self, error: &WriteError) {
        let reason = match error.reason() {
            "full" => "drop_guest_full",
            "no_guest" => "drop_no_guest",
            "no_neighbour" => "drop_guest_unknown",
            _ => "drop_guest_refused",
        };
        tracing::trace!(%error, "packet not written to the guest");
        *self.lost.entry(reason).or_default() += 1;
    }

    fn handle_event(&mut self, event: Event) {
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

    /// Takes a member's certificate, which its ticket has signed, as evidence of how late it is: on a machine whose own
    /// clock said nothing, or it could join nothing.
    fn learn_time(&self, error: &CertificateError) {
        if let CertificateError::NotYetValid { when } = error
            && *when < self.settings.ticket.not_after()
            && clock::raise_to(when.0)
        {
            tracing::warn!(
                "the machine has no clock: set to the beginning of a member's certificate"
            );
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
    fn renew_certificate(&mut self, now: Instant, wall: UnixTime) {
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
