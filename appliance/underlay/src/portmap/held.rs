//! One mapping, in whichever protocol the gateway speaks: asked for, renewed, given back.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crab_nat::{
    InternetProtocol, MappingFailure, PortMapping, PortMappingOptions, PortMappingType,
    TimeoutConfig, natpmp, pcp,
};

use super::gateway::{self, Gateway, NotOutside};
use super::igd::{Igd, IgdError};
use super::{LIFETIME_S, Transport, Wanted};

/// The first wait for an answer by PCP or NAT-PMP; it doubles with each of the retries. Gateways are
/// near.
const TIMEOUTS: TimeoutConfig = TimeoutConfig {
    initial_timeout: Duration::from_millis(250),
    max_retries: 2,
    max_retry_timeout: None,
};

/// Why a port is not mapped.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// By PCP or NAT-PMP.
    #[error("{0}")]
    Asked(#[from] MappingFailure),
    /// By UPnP.
    #[error("{0}")]
    Igd(#[from] IgdError),
    /// It would lead to where nobody can reach it.
    #[error(transparent)]
    NotOutside(#[from] NotOutside),
}

/// A way to ask a gateway.
#[derive(Clone)]
pub enum Way {
    /// PCP (RFC 6887).
    Pcp,
    /// NAT-PMP (RFC 6886).
    NatPmp,
    /// UPnP.
    Igd(Arc<Igd>),
}

/// A mapping of one port.
pub struct Held {
    /// What for.
    pub wanted: Wanted,
    /// Where others reach it.
    pub external: SocketAddrV4,
    /// How long it holds, from when it was asked for or renewed.
    pub lifetime: Duration,
    by: By,
}

enum By {
    Datagrams(PortMapping),
    Igd(Arc<Igd>),
}

/// Asks in all protocols at once for a first port. PCP's answer counts for most: it is one round trip
/// and holds several mappings apart.
pub async fn first(gateway: Gateway, wanted: Wanted) -> Result<(Way, Held), Failure> {
    let by_pcp = async {
        let held = Held::new(gateway, &Way::Pcp, wanted).await?;
        Ok((Way::Pcp, Some(held)))
    };
    // These two only find out whether they would be answered: several mappings are not asked for.
    let by_natpmp = async {
        natpmp_address(gateway).await?;
        Ok((Way::NatPmp, None))
    };
    let by_igd = async {
        let igd = Igd::find(gateway).await?;
        Ok((Way::Igd(Arc::new(igd)), None))
    };
    match prefer(by_pcp, prefer(by_natpmp, by_igd)).await? {
        (way, Some(held)) => Ok((way, held)),
        (way, None) => {
            let held = Held::new(gateway, &way, wanted).await?;
            Ok((way, held))
        }
    }
}

impl Held {
    /// Asks for a mapping.
    pub async fn new(gateway: Gateway, way: &Way, wanted: Wanted) -> Result<Self, Failure> {
        let protocol = match wanted.transport {
            Transport::Udp => InternetProtocol::Udp,
            Transport::Tcp => InternetProtocol::Tcp,
        };
        let options = PortMappingOptions {
            external_port: Some(wanted.port),
            lifetime_seconds: Some(LIFETIME_S),
            timeout_config: Some(TIMEOUTS),
        };
        let router = gateway.router.into();
        let mapping = match way {
            Way::Pcp => {
                let own = IpAddr::V4(gateway.own);
                let base = pcp::BaseMapRequest::new(router, own, protocol, wanted.port);
                let mapping = pcp::port_mapping(base, None, None, options).await;
                mapping.map_err(MappingFailure::from)?
            }
            Way::NatPmp => {
                let mapping = natpmp::port_mapping(router, protocol, wanted.port, options).await;
                mapping.map_err(MappingFailure::from)?
            }
            Way::Igd(igd) => {
                let granted = igd.map(wanted, wanted.port).await?;
                return Ok(Held {
                    wanted,
                    external: granted.external,
                    lifetime: granted.lifetime,
                    by: By::Igd(Arc::clone(igd)),
                });
            }
        };
        match outside(gateway, &mapping).await {
            Ok(external) => Ok(Held {
                wanted,
                external,
                lifetime: lifetime(&mapping),
                by: By::Datagrams(mapping),
            }),
            Err(error) => {
                // Of no use to anybody; it would run out by itself.
                let _ = mapping.try_drop().await;
                Err(error)
            }
        }
    }

    /// Asks for the same again, before the gateway forgets. What has changed is in the fields.
    pub async fn renew(&mut self, gateway: Gateway) -> Result<(), Failure> {
        match &mut self.by {
            By::Datagrams(mapping) => {
                mapping.renew().await?;
                self.lifetime = lifetime(mapping);
                self.external = outside(gateway, mapping).await?;
            }
            By::Igd(igd) => {
                let port = self.external.port().try_into().unwrap_or(self.wanted.port);
                let granted = igd.map(self.wanted, port).await?;
                (self.external, self.lifetime) = (granted.external, granted.lifetime);
            }
        }
        Ok(())
    }

    /// Gives it back. Where that fails it runs out by itself, unless the gateway knows only mappings
    /// without an end.
    pub async fn give_back(self) -> Result<(), Failure> {
        match self.by {
            By::Datagrams(mapping) => mapping.try_drop().await.map_err(|(error, _)| error)?,
            By::Igd(igd) => {
                igd.unmap(self.wanted.transport, self.external.port())
                    .await?
            }
        }
        Ok(())
    }
}

/// Runs both at once. The first one's success counts; where it fails, what the second gives.
async fn prefer<T>(
    first: impl Future<Output = Result<T, Failure>>,
    second: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let mut spare = None;
    loop {
        tokio::select! {
            biased;
            result = &mut first => match (result, spare) {
                (Ok(value), _) => return Ok(value),
                (Err(_), Some(result)) => return result,
                (Err(_), None) => return second.await,
            },
            result = &mut second, if spare.is_none() => spare = Some(result),
        }
    }
}

fn lifetime(mapping: &PortMapping) -> Duration {
    Duration::from_secs(mapping.lifetime().into())
}

/// Where others reach what was mapped.
async fn outside(gateway: Gateway, mapping: &PortMapping) -> Result<SocketAddrV4, Failure> {
    let ip = match mapping.mapping_type() {
        PortMappingType::Pcp { external_ip, .. } => match external_ip {
            IpAddr::V4(ip) => ip,
            IpAddr::V6(ip) => return Err(NotOutside(ip.into()).into()),
        },
        PortMappingType::NatPmp => natpmp_address(gateway).await?,
    };
    let port = mapping.external_port().get();
    Ok(SocketAddrV4::new(gateway::outside(ip)?, port))
}

async fn natpmp_address(gateway: Gateway) -> Result<Ipv4Addr, Failure> {
    let address = natpmp::external_address(gateway.router.into(), Some(TIMEOUTS)).await;
    Ok(address.map_err(MappingFailure::from)?)
}
