//! Entrances for fuzzers to what reads a UPnP gateway's answers. Each returns the servers that it would
//! ask next.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::endpoint::Endpoint;
use super::soap::Done;
use super::{description, ssdp};

/// The answer to a search.
pub fn search(answer: &[u8], router: Ipv4Addr) -> Option<SocketAddrV4> {
    ssdp::location(answer, router).map(|found| found.server)
}

/// A description, fetched from the gateway's port 5000.
pub fn services(text: &str, router: Ipv4Addr) -> Vec<SocketAddrV4> {
    let at = Endpoint {
        server: SocketAddrV4::new(router, 5000),
        target: "/igd/root.xml".to_owned(),
    };
    let services = description::services(text, &at);
    services
        .iter()
        .map(|service| service.control.server)
        .collect()
}

/// The answer to an action.
pub fn action(text: &str) -> (Option<Ipv4Addr>, Option<u16>) {
    let done = Done(text.to_owned());
    (done.value("NewExternalIPAddress"), done.value("errorCode"))
}
