//! The task that owns the network: which interfaces ask for a lease, which one is the underlay, and
//! what the kernel is told.
//!
//! The first interface that gets a lease becomes the underlay and the others fall silent. They are
//! asked again when it loses its lease or its carrier. A fresh lease after a carrier change replaces the
//! old one only when it has come, so that a cable pulled for a moment costs no connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::dhcp::Event;
use super::kernel::{Kernel, KernelError, Kind, Link, News};
use super::lease::Lease;
use super::nic::{self, Report};
use super::plan::{Plan, StaticAddress};
use super::{Status, Underlay, resolv};
use crate::backoff::Backoff;

/// An interface that reports no carrier is asked on nevertheless after this time: some drivers never
/// report one.
const CARRIER_PATIENCE: Duration = Duration::from_secs(4);
/// Pauses between messages about a missing interface or answer.
const COMPLAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));
/// Announcements sooner than this after the last start of a client do not start another.
const SETTLE: Duration = Duration::from_secs(10);
/// Ethernet interfaces used at most.
const MOST_INTERFACES: usize = 16;
const REPORTS: usize = 16;

/// One Ethernet interface.
struct Port {
    link: Link,
    hardware: [u8; 6],
    client: Option<Running>,
}

struct Running {
    run: u64,
    since: Instant,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) struct Manager {
    plan: Plan,
    /// The interface that guests are behind: not ours to touch.
    guests: Option<String>,
    resolv_conf: PathBuf,
    kernel: Kernel,
    news: BoxStream<'static, News>,
    ports: BTreeMap<u32, Port>,
    runs: u64,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    publish: watch::Sender<Status>,
    /// When the underlay's lease ends, whatever became of the client that got it.
    expires: Option<Instant>,
    started: Instant,
    complain: Backoff,
}

impl Manager {
    pub(crate) fn connect(
        plan: Plan,
        guests: Option<String>,
        resolv_conf: PathBuf,
        publish: watch::Sender<Status>,
    ) -> std::io::Result<Self> {
        let (kernel, news) = Kernel::connect()?;
        let (reporter, reports) = mpsc::channel(REPORTS);
        Ok(Self {
            plan,
            guests,
            resolv_conf,
            kernel,
            news,
            ports: BTreeMap::new(),
            runs: 0,
            reports,
            reporter,
            publish,
            expires: None,
            started: Instant::now(),
            complain: COMPLAIN,
        })
    }

    pub(crate) async fn run(mut self) {
        self.list_links().await;
        self.publish.send_modify(|status| status.links_ready = true);
        let mut patience = Some(self.started + CARRIER_PATIENCE);
        let mut complaint = Instant::now() + self.complain.pause();
        loop {
            let never = Instant::now() + Duration::from_secs(86_400);
            tokio::select! {
                news = self.news.next() => match news {
                    Some(News::Link(link)) => self.on_link(link).await,
                    Some(News::Gone(index)) => self.on_gone(index).await,
                    Some(News::Lost) => self.list_links().await,
                    None => {
                        tracing::error!("the kernel's news of links ended: changes go unnoticed");
                        return;
                    }
                },
                Some(report) = self.reports.recv() => self.on_report(report).await,
                () = tokio::time::sleep_until(patience.unwrap_or(never)) => {
                    patience = None;
                    self.ask_everywhere(true).await;
                }
                () = tokio::time::sleep_until(self.expires.unwrap_or(never)) => {
                    if self.expires.is_some_and(|at| at <= Instant::now()) {
                        tracing::warn!("the lease ran out");
                        self.lose_underlay().await;
                    }
                }
                () = tokio::time::sleep_until(complaint) => {
                    self.complain_if_stuck();
                    complaint = Instant::now() + self.complain.pause();
                }
            }
        }
    }

    async fn list_links(&mut self) {
        match self.kernel.links().await {
            Ok(links) => {
                let gone: Vec<u32> = self
                    .ports
                    .keys()
                    .filter(|index| links.iter().all(|link| link.index != **index))
                    .copied()
                    .collect();
                for index in gone {
                    self.on_gone(index).await;
                }
                for link in links {
                    self.on_link(link).await;
                }
            }
            Err(error) => tracing::error!("network: {error}"),
        }
    }

    async fn on_link(&mut self, link: Link) {
        if self.guests.as_ref() == Some(&link.name) {
            return;
        }
        let wanted = match link.kind {
            Kind::Loopback => true,
            Kind::Ethernet(_) => self.plan != Plan::None,
            Kind::Other => return,
        };
        if wanted && !link.up {
            note(self.kernel.set_up(&link).await);
        }
        let Kind::Ethernet(hardware) = link.kind else {
            return;
        };
        let (index, carrier) = (link.index, link.carrier);
        let (mut had_carrier, mut same) = (false, false);
        let room = self.ports.len() < MOST_INTERFACES;
        match self.ports.get_mut(&index) {
            Some(port) => {
                (had_carrier, same) = (port.link.carrier, port.link == link);
                port.link = link;
                port.hardware = hardware;
            }
            None if !room => return,
            None => {
                tracing::debug!(interface = link.name, carrier, "interface found");
                self.ports.insert(
                    index,
                    Port {
                        link,
                        hardware,
                        client: None,
                    },
                );
                self.publish_interfaces();
            }
        }
        let announced = same && carrier && self.is_settled(index);
        if (carrier && !had_carrier && self.underlay_index() == Some(index)) || announced {
            tracing::info!(
                index,
                "the link is back or announced itself: asking for a lease anew"
            );
            self.publish.send_modify(|status| status.announcements += 1);
            self.stop(index);
            self.ask(index).await;
        } else if carrier && !had_carrier && !self.has_working_underlay() {
            self.ask(index).await;
        } else if had_carrier && !carrier && self.underlay_index() == Some(index) {
            tracing::warn!(index, "the underlay's link lost its carrier");
            self.ask_everywhere(false).await;
        }
    }

    async fn on_gone(&mut self, index: u32) {
        if self.ports.remove(&index).is_none() {
            return;
        }
        self.publish_interfaces();
        if self.underlay_index() == Some(index) {
            tracing::warn!(index, "the underlay's interface is gone");
            self.lose_underlay().await;
        }
    }

    async fn on_report(&mut self, report: Report) {
        let Some(port) = self.ports.get(&report.index) else {
            return;
        };
        if port
            .client
            .as_ref()
            .is_none_or(|client| client.run != report.run)
        {
            return;
        }
        let name = port.link.name.clone();
        match report.event {
            Event::Refused(refusal) => {
                tracing::warn!(
                    interface = name,
                    "refused a DHCP server's answer: {refusal}"
                );
            }
            Event::Renewed(lease) => {
                tracing::debug!(
                    interface = name,
                    lease_s = lease.lifetime.as_secs(),
                    "lease renewed"
                );
                self.expires = Some(Instant::now() + lease.lifetime);
            }
            Event::Acquired(lease) => self.take_lease(report.index, name, lease).await,
            Event::Lost => {
                if self.underlay_index() == Some(report.index) {
                    tracing::warn!(interface = name, "the lease is lost");
                    self.lose_underlay().await;
                }
            }
        }
    }

    async fn take_lease(&mut self, index: u32, interface: String, lease: Lease) {
        if self.has_working_underlay() && self.underlay_index() != Some(index) {
            // A second answer crossed the first.
            self.stop(index);
            return;
        }
        let underlay = Underlay {
            interface,
            index,
            address: lease.address,
            prefix: lease.prefix,
            gateway: lease.gateway,
            dns: lease.dns,
            lease: Some((lease.server, lease.lifetime)),
        };
        if let Err(error) = self.configure(&underlay).await {
            tracing::error!("network: {error}; asking for another lease");
            self.stop(index);
            self.ask(index).await;
            return;
        }
        self.expires = Some(Instant::now() + lease.lifetime);
        let others: Vec<u32> = self
            .ports
            .keys()
            .filter(|other| **other != index)
            .copied()
            .collect();
        for other in others {
            self.stop(other);
        }
        self.set_underlay(underlay);
    }

    async fn configure(&mut self, underlay: &Underlay) -> Result<(), KernelError> {
        let kernel = self.kernel.clone();
        let Underlay {
            index,
            address,
            prefix,
            ..
        } = *underlay;
        if let Some(old) = self.underlay_index().filter(|old| *old != index)
            && self.ports.contains_key(&old)
        {
            note(kernel.remove_addresses(old, None).await);
        }
        kernel.add_address(index, address, prefix).await?;
        note(
            kernel
                .remove_addresses(index, Some((address, prefix)))
                .await,
        );
        if let Some(gateway) = underlay.gateway {
            kernel
                .set_default_route(index, gateway, address, prefix == 32)
                .await?;
        }
        if let Err(error) = resolv::write(&self.resolv_conf, &underlay.dns) {
            tracing::warn!("cannot write {}: {error}", self.resolv_conf.display());
        }
        Ok(())
    }

    fn set_underlay(&mut self, underlay: Underlay) {
        let Underlay {
            interface,
            address,
            prefix,
            ..
        } = &underlay;
        let gateway = underlay
            .gateway
            .map_or_else(|| "none".into(), |gateway| gateway.to_string());
        let lease_s = underlay.lease.map(|(_, lifetime)| lifetime.as_secs());
        tracing::info!(
            gateway,
            dns = ?underlay.dns,
            lease_s,
            at_ms = crate::since_boot().as_millis() as u64,
            "underlay: {interface} has {address}/{prefix}"
        );
        if underlay.gateway.is_none() {
            tracing::warn!("no usable gateway was given: only this network can be reached");
        }
        self.publish
            .send_modify(|status| status.underlay = Some(underlay));
    }

    /// Takes address and route away and begins again everywhere.
    async fn lose_underlay(&mut self) {
        self.expires = None;
        if let Some(index) = self.underlay_index() {
            if self.ports.contains_key(&index) {
                note(self.kernel.remove_addresses(index, None).await);
            }
            self.publish.send_modify(|status| status.underlay = None);
        }
        self.complain = COMPLAIN;
        self.ask_everywhere(false).await;
    }

    /// Asks on every interface that is not asking, with a carrier or, if `patience` ended, without.
    async fn ask_everywhere(&mut self, without_carrier: bool) {
        if self.has_working_underlay() {
            return;
        }
        let ready: Vec<u32> = self
            .ports
            .values()
            .filter(|port| port.link.carrier || without_carrier)
            .map(|port| port.link.index)
            .collect();
        for index in ready {
            self.ask(index).await;
        }
    }

    /// Starts a client on an interface, or gives it the fixed address.
    async fn ask(&mut self, index: u32) {
        match self.plan.clone() {
            Plan::None => {}
            Plan::Static(fixed) => self.take_static(index, fixed).await,
            Plan::Dhcp => {
                let Some(port) = self.ports.get_mut(&index) else {
                    return;
                };
                if port.client.is_some() {
                    return;
                }
                self.runs += 1;
                let run = self.runs;
                let client = nic::run(port.link.clone(), port.hardware, run, self.reporter.clone());
                let since = Instant::now();
                port.client = Some(Running {
                    run,
                    since,
                    task: tokio::spawn(client),
                });
            }
        }
    }

    async fn take_static(&mut self, index: u32, fixed: StaticAddress) {
        let Some(port) = self.ports.get(&index) else {
            return;
        };
        let underlay = Underlay {
            interface: port.link.name.clone(),
            index,
            address: fixed.address,
            prefix: fixed.prefix,
            gateway: fixed.gateway,
            dns: fixed.dns,
            lease: None,
        };
        match self.configure(&underlay).await {
            Ok(()) => self.set_underlay(underlay),
            Err(error) => tracing::error!("network: {error}; correct wow.net"),
        }
    }

    fn stop(&mut self, index: u32) {
        if let Some(port) = self.ports.get_mut(&index) {
            port.client = None;
        }
    }

    fn underlay_index(&self) -> Option<u32> {
        self.publish
            .borrow()
            .underlay
            .as_ref()
            .map(|underlay| underlay.index)
    }

    fn has_working_underlay(&self) -> bool {
        self.underlay_index()
            .and_then(|index| self.ports.get(&index))
            .is_some_and(|port| port.link.carrier)
    }

    /// Whether the underlay is this interface and its client started a while ago.
    fn is_settled(&self, index: u32) -> bool {
        self.underlay_index() == Some(index)
            && self
                .ports
                .get(&index)
                .and_then(|port| port.client.as_ref())
                .is_some_and(|client| client.since.elapsed() > SETTLE)
    }

    fn publish_interfaces(&self) {
        let names = self
            .ports
            .values()
            .map(|port| port.link.name.clone())
            .collect();
        self.publish.send_modify(|status| status.interfaces = names);
    }

    fn complain_if_stuck(&mut self) {
        if self.plan == Plan::None || self.publish.borrow().underlay.is_some() {
            return;
        }
        if self.ports.is_empty() {
            tracing::warn!(
                "no Ethernet interface: give the machine a network card (QEMU: -nic user); it is used \
                 as soon as it is there"
            );
            return;
        }
        for port in self.ports.values() {
            let (interface, carrier) = (&port.link.name, port.link.carrier);
            tracing::warn!(
                interface,
                carrier,
                "no DHCP server answers yet, still asking; without one give wow.net=static:…"
            );
        }
    }
}

fn note(outcome: Result<(), KernelError>) {
    if let Err(error) = outcome {
        tracing::warn!("network: {error}");
    }
}
