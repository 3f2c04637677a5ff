//! The daemon: the only event loop of the program. It waits for whatever comes next, hands it to
//! [`Core`], and waits again.

pub mod command;
mod core;
pub mod guests;
pub mod host;
pub mod report;
mod second;
pub mod seeds;
mod trouble;

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, sleep_until};
use wow_control::Control;
use wow_guest::{Guest, GuestGone, PacketBatch};
use wow_overlay::membership::{Certificate, Identity, NodeName, Roles, Ticket};
use wow_overlay::wire::Remote;
use wow_underlay::portmap::Mapped;
use wow_underlay::{
    InterfaceWatch, Lan, PortMapper, ReceiveBatch, ReceiveError, TcpUnderlay, Underlay, tcp,
};

use self::command::Command;
use self::core::Core;
pub use self::guests::Guests;
use self::seeds::Seeds;
pub use self::trouble::overlap;
use crate::config::GuestMtu;
use crate::services::Services;
use crate::state::State;
use crate::timekeeping::Timekeeping;

/// How long the goodbye may wait for room in the sockets' buffers.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Who the node is and what it keeps.
pub struct Settings {
    /// Its ticket.
    pub ticket: Ticket,
    /// Where it keeps its credentials.
    pub state: State,
    /// Its keys.
    pub identity: Identity,
    /// Its certificate at the start.
    pub certificate: Certificate,
    /// Its name.
    pub name: NodeName,
    /// The workstation's role that was asked for, whether the ticket allows it or not.
    pub role: Option<Roles>,
    /// Its fixed address, if it has one.
    pub address: Option<Ipv4Addr>,
    /// The guest's interface, where it has one.
    pub tun: Option<String>,
    /// The guest's MTU.
    pub mtu: GuestMtu,
    /// Whether this process is the machine's own node.
    pub booted: bool,
    /// What the clock is kept by.
    pub clock: Timekeeping,
}

/// What the loop stands between.
pub struct Parts {
    /// The way to other nodes.
    pub underlay: Box<dyn Underlay>,
    /// The way to nodes that UDP does not lead to; `None` where there is no other.
    pub tcp: Option<TcpUnderlay>,
    /// The way to the guest.
    pub guest: Box<dyn Guest>,
    /// The stack that answers at the pool's control address, or in the place of a guest.
    pub control: Option<Control>,
    /// Who answers what the stack asks.
    pub services: Services,
    /// The services of guests on a LAN, where that is what `guest` leads to.
    pub guests: Option<Guests>,
    /// The machine's local networks, where members are found without a seed; `None` where they are not
    /// looked for.
    pub lan: Option<Lan>,
    /// Mappings on the gateway; `None` where none are asked for.
    pub mapper: Option<PortMapper>,
    /// News of the machine's addresses; `None` where they never change.
    pub interfaces: Option<InterfaceWatch>,
    /// Called whenever the loop has done what was due and datagrams leave: at least every few seconds.
    pub progress: Box<dyn FnMut()>,
    /// Where the seeds are.
    pub seeds: watch::Receiver<Seeds>,
    /// Questions of other tasks.
    pub commands: mpsc::Receiver<Command>,
}

/// The loop.
pub struct Daemon {
    core: Core,
    received: ReceiveBatch,
    packets: PacketBatch,
    mapper: Option<PortMapper>,
    interfaces: Option<InterfaceWatch>,
    progress: Box<dyn FnMut()>,
    /// Something left since the last deadline, or nothing waited.
    moves: bool,
    seeds: watch::Receiver<Seeds>,
    commands: mpsc::Receiver<Command>,
    /// Rings when the next deadline is due, or before: one that moves away costs nothing until then.
    alarm: Pin<Box<Sleep>>,
}

/// What the loop woke up for.
enum Wake {
    Datagrams(Result<(), ReceiveError>),
    /// What came together on a TCP connection.
    Stream(tcp::Received),
    /// One by itself, on an extra socket.
    Datagram(Remote, Vec<u8>),
    Announcement(SocketAddr, Vec<u8>),
    Sendable,
    Packets(Result<(), GuestGone>),
    Deadline,
    /// The control stack has something to do.
    Control,
    Command(Command),
    Interfaces(std::io::Result<Vec<u32>>),
    Mapped(Vec<Mapped>),
    Seeds,
}

impl Daemon {
    /// A node that begins to join. Must be called inside a tokio runtime.
    pub fn new(settings: Settings, mut parts: Parts) -> Self {
        let seeds = parts.seeds.borrow_and_update().clone();
        let received = match parts.underlay.receives_joined() {
            true => ReceiveBatch::for_joined(),
            false => ReceiveBatch::new(),
        };
        let mut core = Core::new(
            settings,
            parts.underlay,
            parts.tcp,
            parts.lan,
            parts.guest,
            (parts.control, parts.services),
            seeds,
        );
        core.guests = parts.guests;
        Daemon {
            core,
            received,
            packets: PacketBatch::new(),
            mapper: parts.mapper,
            interfaces: parts.interfaces,
            progress: parts.progress,
            moves: true,
            seeds: parts.seeds,
            commands: parts.commands,
            alarm: Box::pin(sleep_until(Instant::now())),
        }
    }

    /// Runs until `stop`, then says goodbye.
    ///
    /// # Errors
    /// The guest's device is gone.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let mut stop = std::pin::pin!(stop);
        loop {
            self.moves |= self.flush();
            let wake = tokio::select! {
                () = &mut stop => break,
                wake = self.wake() => wake,
            };
            self.handle(wake)?;
        }
        tracing::info!("leaving the pool");
        self.core.leave();
        let goodbye = async {
            while !self.core.flush() {
                poll_fn(|cx| self.core.underlay.poll_sendable(cx)).await;
            }
        };
        let goodbye = tokio::time::timeout(GOODBYE_MAX, goodbye);
        let unmapped = async {
            if let Some(mapper) = self.mapper.take() {
                mapper.end().await;
            }
        };
        let (told, ()) = tokio::join!(goodbye, unmapped);
        if told.is_err() {
            tracing::debug!("not every neighbour heard the goodbye");
        }
        Ok(())
    }

    /// Sends what waits, as far as the sockets take it. False where nothing of it left: a loop that turns while
    /// no datagram leaves is no progress, and not for the watchdog.
    fn flush(&mut self) -> bool {
        let waited = self.core.outbox.waiting().len();
        self.core.flush() || self.core.outbox.waiting().len() < waited
    }

    fn handle(&mut self, wake: Wake) -> Result<()> {
        match wake {
            Wake::Datagrams(Ok(())) => {
                let now = self.core.now();
                self.core.is_behind = self.received.is_full();
                let datagrams = self.received.iter_mut_by(Remote::udp);
                self.core.handle_datagrams(now, datagrams);
                self.core.finish_batch();
                self.core.is_behind = false;
            }
            Wake::Announcement(from, mut bytes) => self.core.handle_announcement(from, &mut bytes),
            Wake::Stream(mut received) => {
                let now = self.core.now();
                let from = Remote::tcp(received.from);
                let datagrams = received.iter_mut().map(|datagram| (from, datagram));
                self.core.handle_datagrams(now, datagrams);
                self.core.finish_batch();
            }
            Wake::Datagram(from, mut datagram) => {
                let now = self.core.now();
                let datagram = std::iter::once((from, &mut datagram[..]));
                self.core.handle_datagrams(now, datagram);
                self.core.finish_batch();
            }
            Wake::Datagrams(Err(error)) => tracing::debug!(%error, "underlay"),
            // The loop flushes before it waits again.
            Wake::Sendable => {}
            Wake::Packets(Ok(())) => {
                let now = self.core.now();
                for index in 0..self.packets.len() {
                    let (offload, packet) = self.packets.packet_mut(index);
                    self.core.handle_guest_packet(now, offload, packet);
                }
                self.core.finish_batch();
            }
            Wake::Packets(Err(gone)) => {
                self.core.leave();
                return Err(gone).context("the node cannot go on");
            }
            Wake::Deadline => {
                self.core.handle_deadline();
                if std::mem::take(&mut self.moves) {
                    (self.progress)();
                }
            }
            Wake::Control => self.core.handle_control(),
            Wake::Command(command) => self.core.handle_command(command),
            Wake::Interfaces(Ok(links)) => {
                self.core.interfaces_changed();
                self.core.links_changed(&links);
                if let Some(mapper) = &self.mapper {
                    mapper.network_changed();
                }
            }
            Wake::Mapped(mapped) => self.core.mappings_changed(&mapped),
            Wake::Interfaces(Err(error)) => {
                tracing::warn!(%error, "no longer told of changes of the machine's addresses");
                self.interfaces = None;
            }
            Wake::Seeds => {
                let seeds = self.seeds.borrow_and_update().clone();
                self.core.seeds_changed(seeds);
            }
        }
        Ok(())
    }

    /// Waits for the next thing to do. Cancelling it loses nothing.
    async fn wake(&mut self) -> Wake {
        let deadline = self.core.next_deadline();
        if deadline < self.alarm.deadline() || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(deadline);
        }
        let has_room = self.core.outbox.has_room();
        let Core {
            underlay,
            tcp: streams,
            lanes,
            lan,
            guest,
            outbox,
            control,
            ..
        } = &mut self.core;
        let network = poll_fn(|cx| {
            if !outbox.is_empty() && underlay.poll_sendable(cx).is_ready() {
                return Poll::Ready(Wake::Sendable);
            }
            if let Some(streams) = streams
                && let Poll::Ready(received) = streams.poll_receive(cx)
            {
                return Poll::Ready(Wake::Stream(received));
            }
            if let Some(lan) = lan
                && let Poll::Ready((from, bytes)) = lan.poll_receive(cx)
            {
                return Poll::Ready(Wake::Announcement(from, bytes));
            }
            if let Poll::Ready((lane, from, datagram)) = lanes.poll_receive(cx) {
                let from = Remote::udp(from).on_lane(lane);
                return Poll::Ready(Wake::Datagram(from, datagram));
            }
            underlay
                .poll_receive(cx, &mut self.received)
                .map(Wake::Datagrams)
        });
        let packets = &mut self.packets;
        tokio::select! {
            wake = network => wake,
            result = poll_fn(|cx| guest.poll_read(cx, packets)), if has_room => Wake::Packets(result),
            () = woken(control.as_ref()) => Wake::Control,
            () = &mut self.alarm => Wake::Deadline,
            Some(command) = self.commands.recv() => Wake::Command(command),
            changed = changed(&mut self.interfaces) => Wake::Interfaces(changed),
            mapped = mapped(&mut self.mapper) => Wake::Mapped(mapped),
            Ok(()) = self.seeds.changed() => Wake::Seeds,
        }
    }
}

async fn changed(interfaces: &mut Option<InterfaceWatch>) -> std::io::Result<Vec<u32>> {
    match interfaces {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}

async fn woken(control: Option<&Control>) {
    match control {
        Some(control) => poll_fn(|cx| control.poll_woken(cx)).await,
        None => std::future::pending().await,
    }
}

async fn mapped(mapper: &mut Option<PortMapper>) -> Vec<Mapped> {
    match mapper {
        Some(mapper) => mapper.changed().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
