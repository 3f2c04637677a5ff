//! Port mappings: the gateway is asked to pass a port on to this machine, by PCP, NAT-PMP or UPnP,
//! asked again before it forgets, and told when the port is no longer needed.
//!
//! IPv4 only. A machine whose own address is valid everywhere asks for nothing.

mod gateway;
mod held;
mod igd;

#[cfg(test)]
mod tests;

#[cfg(feature = "fuzzing")]
pub use igd::fuzzing;

use std::net::SocketAddrV4;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::gateway::Gateway;
use self::held::{Held, Way, first};

/// Asked for; the gateway may grant less.
const LIFETIME_S: u32 = 1200;
/// A mapping is renewed after this at the earliest, whatever the gateway grants.
const RENEW_MIN: Duration = Duration::from_secs(30);
/// A gateway that maps nothing is asked again after this.
const RETRY: Duration = Duration::from_secs(600);
/// The gateway is not asked more often than this, however often the machine's addresses change.
const PAUSE: Duration = Duration::from_secs(5);
/// The longest that one port may take, all protocols together.
const PORT_MAX: Duration = Duration::from_secs(20);
/// The longest that giving all ports back may take: the machine is on its way down.
const GIVE_BACK_MAX: Duration = Duration::from_secs(1);

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

/// A port of this machine that is to be reachable from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is for.
    pub transport: Transport,
    /// Its number.
    pub port: NonZeroU16,
}

/// A port of the gateway that leads to one of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// What it is for.
    pub transport: Transport,
    /// Where others reach it.
    pub external: SocketAddrV4,
}

/// Keeps mappings of some ports for as long as it lives.
pub struct PortMapper {
    mapped: watch::Receiver<Vec<Mapped>>,
    moved: Arc<Notify>,
    ending: Arc<Notify>,
    task: JoinHandle<()>,
}

impl PortMapper {
    /// Begins to ask for `wanted`. Must be called inside a tokio runtime with I/O and time.
    pub fn start(wanted: Vec<Wanted>) -> Self {
        let (found, mapped) = watch::channel(Vec::new());
        let moved = Arc::new(Notify::new());
        let ending = Arc::new(Notify::new());
        let keeper = Keeper {
            wanted,
            held: Vec::new(),
            gateway: None,
            found,
        };
        PortMapper {
            mapped,
            moved: Arc::clone(&moved),
            ending: Arc::clone(&ending),
            task: tokio::spawn(keeper.run(moved, ending)),
        }
    }

    /// The machine's addresses have changed: asks anew, perhaps another gateway.
    pub fn network_changed(&self) {
        self.moved.notify_one();
    }

    /// What is mapped now, and from now on.
    pub fn mapped(&self) -> watch::Receiver<Vec<Mapped>> {
        self.mapped.clone()
    }

    /// Gives all mappings back to the gateway, within about a second. A mapper that is only dropped
    /// leaves them there until they run out.
    pub async fn end(mut self) {
        self.ending.notify_one();
        if timeout(GIVE_BACK_MAX, &mut self.task).await.is_err() {
            tracing::debug!("the gateway did not take all port mappings back in time");
        }
    }
}

impl Drop for PortMapper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind [`PortMapper`].
struct Keeper {
    wanted: Vec<Wanted>,
    held: Vec<Held>,
    /// Who granted what is held.
    gateway: Option<Gateway>,
    found: watch::Sender<Vec<Mapped>>,
}

impl Keeper {
    async fn run(mut self, moved: Arc<Notify>, ending: Arc<Notify>) {
        let keep = async {
            loop {
                let rest = self.round(Gateway::find().await).await;
                sleep(PAUSE).await;
                // Being told that the network changed is remembered in between.
                let _ = timeout(rest.saturating_sub(PAUSE), moved.notified()).await;
            }
        };
        tokio::select! {
            () = keep => {}
            () = ending.notified() => {}
        }
        self.give_back().await;
    }

    async fn give_back(self) {
        for held in self.held {
            let (wanted, external) = (held.wanted, held.external);
            if let Err(error) = held.give_back().await {
                tracing::debug!(?wanted, %external, %error, "port mapping not given back");
            }
        }
    }

    /// Renews what is held and asks for the rest; when to do so again.
    async fn round(&mut self, gateway: Option<Gateway>) -> Duration {
        if gateway != self.gateway {
            // What another gateway granted is out of reach, and runs out there.
            self.held.clear();
            self.gateway = gateway;
        }
        if let Some(gateway) = gateway {
            self.renew(gateway).await;
            self.ask(gateway).await;
        }
        let mapped: Vec<_> = self.held.iter().map(Mapped::from).collect();
        self.found.send_if_modified(|known| {
            let news = *known != mapped;
            *known = mapped;
            news
        });
        let lifetimes = self.held.iter().map(|held| held.lifetime);
        lifetimes.fold(RETRY, |rest, lifetime| {
            rest.min((lifetime / 2).max(RENEW_MIN))
        })
    }

    async fn renew(&mut self, gateway: Gateway) {
        let mut index = 0;
        while let Some(held) = self.held.get_mut(index) {
            let (wanted, external) = (held.wanted, held.external);
            match timeout(PORT_MAX, held.renew(gateway)).await {
                Ok(Ok(())) => {
                    index += 1;
                    continue;
                }
                Ok(Err(error)) => {
                    tracing::debug!(?gateway, ?wanted, %external, %error, "port mapping not renewed");
                }
                Err(_) => tracing::debug!(?gateway, ?wanted, %external, "no renewal in time"),
            }
            // The gateway may be another one under the same address, or one that began anew.
            self.held.remove(index);
        }
    }

    async fn ask(&mut self, gateway: Gateway) {
        let mut way: Option<Way> = None;
        for wanted in self.wanted.clone() {
            if self.held.iter().any(|held| held.wanted == wanted) {
                continue;
            }
            let asked = async {
                match &way {
                    Some(way) => Ok((way.clone(), Held::new(gateway, way, wanted).await?)),
                    None => first(gateway, wanted).await,
                }
            };
            match timeout(PORT_MAX, asked).await {
                Ok(Ok((answered, held))) => {
                    way = Some(answered);
                    self.held.push(held);
                }
                Ok(Err(error)) => tracing::debug!(?gateway, ?wanted, %error, "no port mapping"),
                Err(_) => tracing::debug!(?gateway, ?wanted, "no port mapping in time"),
            }
        }
    }
}

impl From<&Held> for Mapped {
    fn from(held: &Held) -> Self {
        Mapped {
            transport: held.wanted.transport,
            external: held.external,
        }
    }
}
