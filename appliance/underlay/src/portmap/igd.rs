//! Port mappings by UPnP: the Internet Gateway Device that most home routers are, versions 1 and 2.
//!
//! Whatever the gateway says is bounded in time and size, and names no machine but the gateway. There
//! is no subscription to its events: mappings are renewed instead.

mod description;
mod endpoint;
mod http;
mod soap;
mod ssdp;
mod xml;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;

#[cfg(test)]
pub(super) mod fake;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZeroU16;
use std::time::Duration;

use self::description::Service;
use self::soap::call;
use self::ssdp::Search;
use super::gateway::{self, Gateway, NotOutside};
use super::{LIFETIME_S, Transport, Wanted};

/// External ports that are tried for one mapping, and once more where only permanent ones are given.
const TRIES_MAX: usize = 6;
/// External ports that are drawn when the wanted one is taken.
const DRAWN: std::ops::Range<u16> = 20_000..60_000;
/// A mapping that never ends is renewed all the same: the gateway may have been switched off.
const PERMANENT: Duration = Duration::from_secs(LIFETIME_S as u64);

/// Why a gateway maps nothing.
#[derive(Debug, thiserror::Error)]
pub enum IgdError {
    /// Nothing answered as a gateway.
    #[error("no UPnP gateway answers")]
    NotFound,
    /// It has no address that others could reach.
    #[error(transparent)]
    NotOutside(#[from] NotOutside),
    /// It said no: the standard's code for why.
    #[error("the gateway refuses by UPnP error {0}")]
    Refused(u16),
    /// It did not do what it was asked to.
    #[error("the gateway answers by HTTP status {0}")]
    Status(u16),
    /// It said what cannot be read, or too much.
    #[error("the gateway's answer is not understood")]
    Malformed,
    /// It did not finish.
    #[error("the gateway does not answer in time")]
    TimedOut,
    /// It cannot be reached.
    #[error("the gateway is not reached")]
    Io(#[from] io::Error),
    /// It does not speak HTTP.
    #[error("the gateway does not speak HTTP")]
    Http(#[from] hyper::Error),
    /// It named an address that no request can be sent to.
    #[error("the gateway names an impossible address")]
    Request(#[from] hyper::http::Error),
}

/// A gateway that was found.
#[derive(Clone, Debug)]
pub struct Igd {
    service: Service,
    own: Ipv4Addr,
}

/// A mapping as it was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    pub external: SocketAddrV4,
    pub lifetime: Duration,
}

impl Igd {
    /// Looks for the gateway's service that maps ports. Where there are several, the first that has an
    /// outside address: a line that is not in use has none.
    pub async fn find(gateway: Gateway) -> Result<Igd, IgdError> {
        let mut search = Search::new(gateway).await?;
        let mut why = IgdError::NotFound;
        while let Some(at) = search.next().await {
            let text = match http::get(&at).await {
                Ok(answer) => answer.text,
                Err(error) => {
                    why = error;
                    continue;
                }
            };
            for service in description::services(&text, &at) {
                let igd = Igd {
                    service,
                    own: gateway.own,
                };
                match igd.outside().await {
                    Ok(_) => return Ok(igd),
                    Err(error) => why = error,
                }
            }
        }
        Err(why)
    }

    /// Maps a port, from `external` if that is free, and otherwise from another.
    pub async fn map(&self, wanted: Wanted, external: NonZeroU16) -> Result<Granted, IgdError> {
        let ip = self.outside().await?;
        let mut port = external.get();
        let mut lifetime_s = LIFETIME_S;
        let mut last = IgdError::Malformed;
        for _ in 0..TRIES_MAX {
            let refusal = match self.add(wanted, port, lifetime_s).await {
                Ok(()) => {
                    return Ok(Granted {
                        external: SocketAddrV4::new(ip, port),
                        lifetime: match lifetime_s {
                            0 => PERMANENT,
                            seconds => Duration::from_secs(seconds.into()),
                        },
                    });
                }
                Err(refusal) => refusal,
            };
            match refusal {
                // Only permanent leases; some say "invalid arguments" and mean the same.
                IgdError::Refused(725 | 402) if lifetime_s > 0 => lifetime_s = 0,
                // The port is another's, or one that nobody may have.
                IgdError::Refused(718 | 729 | 606) => port = draw(),
                // External and internal port must be the same.
                IgdError::Refused(724) if port != wanted.port.get() => port = wanted.port.get(),
                other => return Err(other),
            }
            last = refusal;
        }
        Err(last)
    }

    /// Ends a mapping.
    pub async fn unmap(&self, transport: Transport, external: u16) -> Result<(), IgdError> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", protocol(transport).to_owned()),
        ];
        call(&self.service, "DeletePortMapping", &arguments)
            .await
            .map(drop)
    }

    async fn add(&self, wanted: Wanted, external: u16, lifetime_s: u32) -> Result<(), IgdError> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", protocol(wanted.transport).to_owned()),
            ("NewInternalPort", wanted.port.to_string()),
            ("NewInternalClient", self.own.to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", "wow".to_owned()),
            ("NewLeaseDuration", lifetime_s.to_string()),
        ];
        call(&self.service, "AddPortMapping", &arguments)
            .await
            .map(drop)
    }

    /// The gateway's address, if others may reach it.
    async fn outside(&self) -> Result<Ipv4Addr, IgdError> {
        let answer = call(&self.service, "GetExternalIPAddress", &[]).await?;
        // A line that is not in use may also say nothing.
        let ip = answer
            .value("NewExternalIPAddress")
            .unwrap_or(Ipv4Addr::UNSPECIFIED);
        Ok(gateway::outside(ip)?)
    }
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    }
}

/// Another external port. Nothing depends on its being secret, only on its being a different one.
fn draw() -> u16 {
    let mut bytes = [0; 2];
    // Without randomness the next try takes the same port, and is refused again.
    let _ = rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::NONBLOCK);
    DRAWN.start + u16::from_ne_bytes(bytes) % (DRAWN.end - DRAWN.start)
}
