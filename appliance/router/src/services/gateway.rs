//! How programs of a machine without a guest reach the pool, and are reached: a SOCKS5 server, and TCP
//! ports that lead into the pool or out of it. Each connection has two ends, the host's and the stack's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;
use wow_control::{Listener, STREAMS_MAX, Stream, Streams};
use wow_overlay::membership::PoolFacts;

use super::socks::{self, Refusal};
use crate::config::GuestArg;
use crate::ipc::Operator;

/// Ports that lead somewhere.
const FORWARDS_MAX: usize = 16;

/// For the other end to answer.
const CONNECT_MAX: Duration = Duration::from_secs(30);

/// What a connection's bytes wait in, each way.
const COPY_BYTES: usize = 32 * 1024;

/// The stack's own ports.
const SERVED: [u16; 2] = [53, 80];

/// A port that leads somewhere: `LISTEN=TARGET`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Forward {
    /// Of the host, into the pool: `127.0.0.1:8080=head:80`.
    In {
        /// Where the host's programs connect to.
        listen: SocketAddr,
        /// A node's name or virtual address.
        node: String,
        /// The node's port.
        port: u16,
    },
    /// Of the node's own address, to a server that the host reaches: `pool:8080=127.0.0.1:80`.
    Out {
        /// The node's port.
        port: u16,
        /// The server.
        target: SocketAddr,
    },
}

/// Text that leads nowhere.
#[derive(Debug, thiserror::Error)]
#[error(
    "a forward is LISTEN=TARGET: 127.0.0.1:PORT=NODE:PORT leads into the pool, pool:PORT=ADDRESS:PORT \
     out of it, and the node itself serves ports 53 and 80"
)]
pub struct NoForward;

impl FromStr for Forward {
    type Err = NoForward;

    fn from_str(text: &str) -> Result<Self, NoForward> {
        let (listen, target) = text.split_once('=').ok_or(NoForward)?;
        if let Some(port) = listen.strip_prefix("pool:") {
            let port = port.parse().map_err(|_| NoForward)?;
            if port == 0 || SERVED.contains(&port) {
                return Err(NoForward);
            }
            let target = target.parse().map_err(|_| NoForward)?;
            return Ok(Forward::Out { port, target });
        }
        let (node, port) = target.rsplit_once(':').ok_or(NoForward)?;
        let node = node.trim_start_matches('[').trim_end_matches(']');
        match port.parse() {
            Ok(port) if port != 0 && !node.is_empty() => Ok(Forward::In {
                listen: listen.parse().map_err(|_| NoForward)?,
                node: node.to_owned(),
                port,
            }),
            _ => Err(NoForward),
        }
    }
}

impl TryFrom<String> for Forward {
    type Error = NoForward;

    fn try_from(text: String) -> Result<Self, NoForward> {
        text.parse()
    }
}

/// What a gateway is to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayPlan {
    /// Where the SOCKS server listens.
    pub socks: Option<SocketAddr>,
    /// Ports that lead somewhere.
    pub forwards: Vec<Forward>,
    /// Whether ports of the host may be other machines' to connect to.
    pub for_all: bool,
}

impl GatewayPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.socks.is_none() && self.forwards.is_empty()
    }

    /// # Errors
    /// It is too much, would let in strangers without being told to, or stands beside a guest.
    pub fn check(&self, guest: &GuestArg) -> Result<()> {
        if *guest != GuestArg::None && !self.is_empty() {
            bail!(
                "socks and forward are for guest none: with a device of the pool's, programs reach it by \
                 themselves"
            );
        }
        if self.forwards.len() > FORWARDS_MAX {
            bail!("a node has {FORWARDS_MAX} forwards at most");
        }
        let forwards = self.forwards.iter().filter_map(|forward| match forward {
            Forward::In { listen, .. } => Some(*listen),
            Forward::Out { .. } => None,
        });
        for listen in self.socks.into_iter().chain(forwards) {
            if !self.for_all && !listen.ip().is_loopback() {
                bail!(
                    "{listen} is no loopback address: whoever reaches it would reach the pool; listen \
                     on 127.0.0.1, or allow it by gateway-for-all"
                );
            }
        }
        Ok(())
    }
}

/// What all connections share.
struct Shared {
    streams: Streams,
    operator: Operator,
    range: Ipv4Net,
    prefix: Ipv6Net,
    suffix: String,
    room: Semaphore,
}

/// A gateway whose ports are open.
pub struct Gateway {
    shared: Rc<Shared>,
    socks: Option<TcpListener>,
    inward: Vec<(TcpListener, String, u16)>,
    outward: Vec<(Listener, SocketAddr)>,
}

impl Gateway {
    /// Opens the ports.
    ///
    /// # Errors
    /// One of them is taken.
    pub async fn open(
        plan: &GatewayPlan,
        streams: Streams,
        operator: Operator,
        facts: &PoolFacts,
    ) -> Result<Self> {
        let listen = async |at: SocketAddr| {
            let listener = TcpListener::bind(at).await;
            listener.with_context(|| format!("cannot listen on {at}"))
        };
        let socks = match plan.socks {
            Some(at) => Some(listen(at).await?),
            None => None,
        };
        if let Some(at) = socks.as_ref().and_then(|socks| socks.local_addr().ok()) {
            tracing::info!(%at, "SOCKS5 into the pool");
        }
        let (mut inward, mut outward) = (Vec::new(), Vec::new());
        for forward in &plan.forwards {
            match forward {
                Forward::In {
                    listen: at,
                    node,
                    port,
                } => inward.push((listen(*at).await?, node.clone(), *port)),
                Forward::Out { port, target } => {
                    let listener = streams.listen(*port);
                    let listener = listener
                        .with_context(|| format!("cannot listen on the pool's port {port}"))?;
                    outward.push((listener, *target));
                }
            }
        }
        Ok(Gateway {
            shared: Rc::new(Shared {
                streams,
                operator,
                range: facts.range,
                prefix: facts.summary().v6_prefix,
                suffix: facts.dns_suffix(),
                room: Semaphore::new(STREAMS_MAX),
            }),
            socks,
            inward,
            outward,
        })
    }

    /// Serves for ever.
    pub async fn run(self) {
        let local = LocalSet::new();
        let Gateway {
            shared,
            socks,
            inward,
            outward,
        } = self;
        if let Some(listener) = socks {
            let shared = Rc::clone(&shared);
            local.spawn_local(accept(listener, move |client| {
                let shared = Rc::clone(&shared);
                async move {
                    let served = shared.serve_socks(client).await;
                    served.unwrap_or_else(|error| tracing::debug!(%error, "SOCKS client"));
                }
            }));
        }
        for (listener, node, port) in inward {
            let (shared, node) = (Rc::clone(&shared), Rc::<str>::from(node));
            local.spawn_local(accept(listener, move |mut client| {
                let (shared, node) = (Rc::clone(&shared), Rc::clone(&node));
                async move {
                    match shared.reach(&node, port).await {
                        Ok(stream) => carry(&mut client, stream).await,
                        Err(error) => tracing::debug!(%error, %node, port, "forward not opened"),
                    }
                }
            }));
        }
        for (listener, target) in outward {
            let shared = Rc::clone(&shared);
            local.spawn_local(lead_out(listener, target, shared));
        }
        local.await;
        std::future::pending().await
    }
}

/// Serves each of a port's clients in a task of its own.
async fn accept<F: Future<Output = ()> + 'static>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                drop(tokio::task::spawn_local(serve(client)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for the pool");
                // Out of descriptors or memory: others' ends make room.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Connects each client from the pool to a server of the host's.
async fn lead_out(mut listener: Listener, target: SocketAddr, shared: Rc<Shared>) {
    loop {
        let stream = listener.accept().await;
        let shared = Rc::clone(&shared);
        tokio::task::spawn_local(async move {
            let Ok(_room) = shared.room.try_acquire() else {
                return;
            };
            let connecting = TcpStream::connect(target);
            match tokio::time::timeout(CONNECT_MAX, connecting).await {
                Ok(Ok(mut server)) => carry(&mut server, stream).await,
                Ok(Err(error)) => tracing::debug!(%error, %target, "forward not opened"),
                Err(_) => tracing::debug!(%target, "forward not opened in time"),
            }
        });
    }
}

/// Carries both ways until both ends have said that they are done.
async fn carry(host: &mut TcpStream, mut stream: Stream) {
    let _ = host.set_nodelay(true);
    let copied =
        tokio::io::copy_bidirectional_with_sizes(host, &mut stream, COPY_BYTES, COPY_BYTES).await;
    if let Err(error) = copied {
        tracing::debug!(%error, "connection between host and pool");
    }
}

impl Shared {
    /// Opens a connection to a node's port.
    async fn reach(&self, node: &str, port: u16) -> Result<Stream, Refusal> {
        let address = self.address(node).await?;
        let connecting = self.streams.connect(SocketAddr::new(address, port));
        match tokio::time::timeout(CONNECT_MAX, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                Err(Refusal::Refused)
            }
            Ok(Err(_)) => Err(Refusal::Failure),
            Err(_) => Err(Refusal::Unreachable),
        }
    }

    /// The virtual address that somebody calls `node`; nothing outside the pool.
    async fn address(&self, node: &str) -> Result<IpAddr, Refusal> {
        let ours = |address: &IpAddr| match address {
            IpAddr::V4(v4) => self.range.contains(v4),
            IpAddr::V6(v6) => self.prefix.contains(v6),
        };
        if let Ok(address) = node.parse() {
            return Some(address).filter(ours).ok_or(Refusal::NotAllowed);
        }
        let node = node.strip_suffix('.').unwrap_or(node).to_ascii_lowercase();
        let name = node.strip_suffix(&self.suffix);
        let name = name
            .and_then(|name| name.strip_suffix('.'))
            .unwrap_or(&node);
        if name.contains('.') {
            return Err(Refusal::NotAllowed);
        }
        let found = self.operator.resolve(name).await;
        found
            .map(|found| found.v4.into())
            .map_err(|_| Refusal::Unreachable)
    }

    async fn serve_socks(&self, mut client: TcpStream) -> io::Result<()> {
        let Ok(_room) = self.room.try_acquire() else {
            return Err(io::ErrorKind::QuotaExceeded.into());
        };
        let wanted = match socks::listen_to(&mut client).await? {
            Ok(wanted) => wanted,
            Err(refusal) => return socks::refuse(&mut client, refusal).await,
        };
        match self.reach(&wanted.host, wanted.port).await {
            Ok(stream) => {
                socks::accept(&mut client).await?;
                carry(&mut client, stream).await;
                Ok(())
            }
            Err(refusal) => socks::refuse(&mut client, refusal).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_told_apart_by_where_they_listen() {
        let parse = |text: &str| text.parse::<Forward>();
        assert_eq!(
            parse("127.0.0.1:8080=head:80").unwrap(),
            Forward::In {
                listen: "127.0.0.1:8080".parse().unwrap(),
                node: "head".into(),
                port: 80,
            }
        );
        let v6 = parse("[::1]:8080=[fd00::9]:80").unwrap();
        assert!(matches!(v6, Forward::In { node, .. } if node == "fd00::9"));
        assert_eq!(
            parse("pool:8080=127.0.0.1:80").unwrap(),
            Forward::Out {
                port: 8080,
                target: "127.0.0.1:80".parse().unwrap(),
            }
        );
        for wrong in [
            "",
            "127.0.0.1:8080",
            "8080=head:80",
            "127.0.0.1:8080=head",
            "127.0.0.1:8080=:80",
            "127.0.0.1:8080=head:0",
            "pool:80=127.0.0.1:80",
            "pool:8080=head:80",
            "pool:0=127.0.0.1:80",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_loopback_is_open_unless_it_is_said() {
        let mut plan = GatewayPlan {
            socks: Some("0.0.0.0:1080".parse().unwrap()),
            ..GatewayPlan::default()
        };
        let check = |plan: &GatewayPlan| plan.check(&GuestArg::None);
        let error = check(&plan).unwrap_err().to_string();
        assert!(error.contains("allow it by gateway-for-all"), "{error}");
        plan.for_all = true;
        check(&plan).unwrap();
        plan.for_all = false;
        plan.socks = Some("[::1]:1080".parse().unwrap());
        plan.forwards = vec!["192.0.2.1:80=head:80".parse().unwrap()];
        assert!(check(&plan).is_err());
        plan.forwards = vec!["pool:8080=192.0.2.1:80".parse().unwrap()];
        check(&plan).unwrap();
        assert!(plan.check(&GuestArg::Tun).is_err());
        plan.forwards = vec![plan.forwards[0].clone(); FORWARDS_MAX + 1];
        assert!(check(&plan).is_err());
    }
}
