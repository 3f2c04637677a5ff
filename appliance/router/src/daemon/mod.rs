//! The daemon: the only event loop of the program. It waits for whatever comes next, hands it to
//! [`Core`], and waits again.

mod alarm;
pub mod command;
mod core;
pub mod guests;
pub mod host;
mod news;
pub mod report;
mod second;
pub mod seeds;
mod trouble;
mod wake;

use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::stream::{BoxStream, SelectAll};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use wow_control::{Control, Flag};
use wow_guest::{Guest, PacketBatch};
use wow_overlay::membership::{Certificate, Identity, NodeName, Roles, Ticket};
use wow_overlay::wire::Remote;
use wow_underlay::{InterfaceWatch, Lan, PortMapper, ReceiveBatch, TcpUnderlay, Underlay};

pub use self::alarm::Alarm;
use self::command::Command;
use self::core::Core;
pub use self::guests::Guests;
use self::news::News;
use self::seeds::Seeds;
pub use self::trouble::overlap;
use self::wake::Wake;
use crate::config::GuestMtu;
use crate::services::Services;
use crate::state::State;
use crate::timekeeping::Timekeeping;

/// How long the goodbye may wait for room in the sockets' buffers.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

/// Turns of the loop before the kernel is asked what else has happened.
const IN_A_ROW_MAX: u32 = 16;

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
    /// Rings when something is due.
    pub alarm: Alarm,
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
    progress: Box<dyn FnMut()>,
    /// Something left since the last deadline, or nothing waited.
    moves: bool,
    news: SelectAll<BoxStream<'static, News>>,
    commands: mpsc::Receiver<Command>,
    /// Rings when the next deadline is due, or before: one that moves away costs nothing until then.
    alarm: Alarm,
    /// The guest has sent since the alarm was set.
    sends: bool,
    /// When the alarm was set last after the guest had sent.
    sent: Option<Instant>,
    /// Raised when something else may have happened than that packets came, which is all that most turns of
    /// the loop look for.
    others: Arc<Flag>,
    /// They are to be looked at in any case.
    looks_at_others: bool,
    /// Who was looked at last: the guest, the network or the others; and which of these.
    turn: usize,
    other: usize,
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
            news: news::of(parts.interfaces, parts.mapper.as_ref(), parts.seeds),
            mapper: parts.mapper,
            progress: parts.progress,
            moves: true,
            commands: parts.commands,
            alarm: parts.alarm,
            sends: false,
            sent: None,
            others: Arc::default(),
            looks_at_others: true,
            turn: 0,
            other: 0,
        }
    }

    /// Runs until `stop`, then says goodbye.
    ///
    /// # Errors
    /// The guest's device is gone.
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<()> {
        let mut stop = std::pin::pin!(stop);
        let mut in_a_row = 0;
        loop {
            self.moves |= self.flush();
            self.set_alarm();
            let wake = poll_fn(|cx| {
                let wake = self.poll_wake(cx, stop.as_mut());
                if wake.is_pending() {
                    in_a_row = 0;
                }
                wake
            });
            match wake.await {
                Wake::Stop => break,
                wake => self.handle(wake)?,
            }
            in_a_row += 1;
            if in_a_row == IN_A_ROW_MAX {
                in_a_row = 0;
                tokio::task::yield_now().await;
            }
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

    /// Does what follows from what came together; what became datagrams leaves before all else.
    fn finish_batch(&mut self) {
        self.core.queue_datagrams();
        self.moves |= self.flush();
        self.core.finish_batch();
    }

    fn handle(&mut self, wake: Wake) -> Result<()> {
        match wake {
            Wake::Datagrams(Ok(())) => {
                let now = self.core.now();
                self.core.is_behind = self.received.is_full();
                let datagrams = self.received.iter_mut_by(Remote::udp);
                self.core.handle_datagrams(now, datagrams);
                self.finish_batch();
                self.core.is_behind = false;
            }
            Wake::Announcement(from, mut bytes) => self.core.handle_announcement(from, &mut bytes),
            Wake::Stream(mut received) => {
                let now = self.core.now();
                let from = Remote::tcp(received.from);
                let datagrams = received.iter_mut().map(|datagram| (from, datagram));
                self.core.handle_datagrams(now, datagrams);
                self.finish_batch();
            }
            Wake::Datagram(from, mut datagram) => {
                let now = self.core.now();
                let datagram = std::iter::once((from, &mut datagram[..]));
                self.core.handle_datagrams(now, datagram);
                self.finish_batch();
            }
            Wake::Datagrams(Err(error)) => tracing::debug!(%error, "underlay"),
            // The loop flushes before it waits again.
            Wake::Sendable => {}
            Wake::Packets(Ok(())) => {
                self.sends = true;
                let now = self.core.now();
                for index in 0..self.packets.len() {
                    let (offload, packet) = self.packets.packet_mut(index);
                    self.core.handle_guest_packet(now, offload, packet);
                }
                self.finish_batch();
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
            Wake::News(News::Interfaces(Ok(links))) => {
                self.core.interfaces_changed();
                self.core.links_changed(&links);
                if let Some(mapper) = &self.mapper {
                    mapper.network_changed();
                }
            }
            Wake::News(News::Interfaces(Err(error))) => {
                tracing::warn!(%error, "no longer told of changes of the machine's addresses");
            }
            Wake::News(News::Mapped(mapped)) => self.core.mappings_changed(&mapped),
            Wake::News(News::Seeds(seeds)) => self.core.seeds_changed(seeds),
            Wake::Stop => unreachable!("the loop ends with it"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
