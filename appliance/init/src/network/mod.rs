//! The underlay's network: links up, an address by DHCP or fixed, and whatever changes later. One task
//! owns it all; the router reads its [`Status`].

pub(crate) mod dhcp;
mod kernel;
mod lease;
mod manager;
mod nic;
mod plan;
mod resolv;

pub use lease::Lease;
pub use plan::{Plan, PlanError, StaticAddress};

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

/// The kernel's name for a machine's second network card. The kernel counts them in the order in which it finds
/// them, and nothing renames them here.
pub const SECOND_CARD: &str = "eth1";

/// The network as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The interface that datagrams leave by; `None` before the first lease and after its loss.
    pub underlay: Option<Underlay>,
    /// Whether the links have been set up, as far as they could be.
    pub links_ready: bool,
    /// Ethernet interfaces present.
    pub interfaces: Vec<String>,
    /// How often an interface regained its carrier or announced itself, as after a migration: on a
    /// change the machine may have moved, so probe again.
    pub announcements: u64,
}

/// The interface that datagrams leave by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// Its address.
    pub address: Ipv4Addr,
    /// The prefix length.
    pub prefix: u8,
    /// The default gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The DHCP server and the lease's time, unless the address is fixed.
    pub lease: Option<(Ipv4Addr, Duration)>,
}

/// The running network. Dropping it stops the task and leaves addresses as they are.
#[derive(Debug)]
pub struct Network {
    status: watch::Receiver<Status>,
    task: tokio::task::JoinHandle<()>,
}

impl Network {
    /// Starts to bring the network up on the running event loop. The interface called `guests` is left
    /// alone: guests are behind it.
    pub fn start(plan: Plan, guests: Option<String>) -> std::io::Result<Self> {
        Self::start_writing(plan, guests, Path::new(resolv::PATH))
    }

    /// As [`Network::start`], with name servers written to another file than /etc/resolv.conf.
    pub fn start_writing(
        plan: Plan,
        guests: Option<String>,
        resolv_conf: &Path,
    ) -> std::io::Result<Self> {
        let (publish, status) = watch::channel(Status::default());
        let manager = manager::Manager::connect(plan, guests, resolv_conf.to_owned(), publish)?;
        Ok(Self {
            status,
            task: tokio::spawn(manager.run()),
        })
    }

    /// The status, now and on each change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits for the first underlay. Safe to cancel.
    pub async fn underlay(&self) -> Option<Underlay> {
        let mut status = self.status();
        let found = status
            .wait_for(|status| status.underlay.is_some())
            .await
            .ok()?;
        found.underlay.clone()
    }

    /// Waits until the links are set up. Safe to cancel.
    pub(crate) async fn links_ready(&self) -> Option<Vec<String>> {
        let mut status = self.status();
        let found = status.wait_for(|status| status.links_ready).await.ok()?;
        Some(found.interfaces.clone())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}
