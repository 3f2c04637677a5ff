//! Finding a gateway's description by SSDP (UPnP Device Architecture 1.1, clause 1.3).
//!
//! The gateway is asked by multicast and at its own address, since some answer only one of the two.
//! What others answer is ignored: who may answer for the gateway would be where the whole network's
//! descriptions are fetched from.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, Interval, interval, sleep_until};

use super::endpoint::Endpoint;
use crate::portmap::gateway::Gateway;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 250);
const PORT: u16 = 1900;
/// Asked for by turns in one go: some answer only for the device, some only for the service.
const TARGETS: &[&str] = &[
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// A device may wait up to a second with its answer.
const SEARCH: Duration = Duration::from_secs(3);
/// Questions and answers may be lost.
const RESEND: Duration = Duration::from_secs(1);
/// A longer answer is cut, and then its last header does not count.
const ANSWER_BYTES_MAX: usize = 1500;
const HEADERS_MAX: usize = 32;
/// A gateway may have several descriptions: one a version, or a media server's beside its own.
const LOCATIONS_MAX: usize = 4;

/// A search that goes on.
pub struct Search {
    socket: UdpSocket,
    gateway: Gateway,
    ends: Instant,
    resend: Interval,
    seen: Vec<Endpoint>,
}

impl Search {
    pub async fn new(gateway: Gateway) -> io::Result<Self> {
        Ok(Search {
            // Our address also chooses the network that the multicast goes to.
            socket: UdpSocket::bind((gateway.own, 0)).await?,
            gateway,
            ends: Instant::now() + SEARCH,
            resend: interval(RESEND),
            seen: Vec::new(),
        })
    }

    /// The next description of the gateway's that was not yet returned.
    pub async fn next(&mut self) -> Option<Endpoint> {
        let mut room = [0; ANSWER_BYTES_MAX];
        while self.seen.len() < LOCATIONS_MAX {
            let received = tokio::select! {
                () = sleep_until(self.ends) => return None,
                _ = self.resend.tick() => {
                    self.ask().await;
                    continue;
                }
                received = self.socket.recv_from(&mut room) => received,
            };
            // An error is about an earlier question.
            let Ok((length, from)) = received else {
                continue;
            };
            if from.ip() != IpAddr::V4(self.gateway.router) {
                continue;
            }
            match location(&room[..length], self.gateway.router) {
                Some(found) if !self.seen.contains(&found) => {
                    self.seen.push(found.clone());
                    return Some(found);
                }
                _ => {}
            }
        }
        None
    }

    async fn ask(&self) {
        for target in TARGETS {
            let question = format!(
                "M-SEARCH * HTTP/1.1\r\nHOST: {GROUP}:{PORT}\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n\
                 ST: {target}\r\n\r\n"
            );
            for to in [GROUP, self.gateway.router] {
                // One of the two may not go; without an answer the search ends.
                let _ = self.socket.send_to(question.as_bytes(), (to, PORT)).await;
            }
        }
    }
}

/// Where an answer says that the description is: only the gateway's own address counts.
pub(super) fn location(answer: &[u8], router: Ipv4Addr) -> Option<Endpoint> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(answer).ok()?.is_complete().then_some(())?;
    if response.code != Some(200) {
        return None;
    }
    let mut headers = response.headers.iter();
    let location = headers.find(|header| header.name.eq_ignore_ascii_case("location"))?;
    Endpoint::absolute(std::str::from_utf8(location.value).ok()?, router)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gateways_own_descriptions_count() {
        let router = Ipv4Addr::new(192, 168, 1, 1);
        let check = |answer: &str, expected: Option<&str>| {
            let found = location(answer.as_bytes(), router).map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{answer:?}");
        };
        let ok =
            |location: &str| format!("HTTP/1.1 200 OK\r\nEXT:\r\nLoCation: {location}\r\n\r\n");
        let here = "http://192.168.1.1:5000/igd.xml?a=b";
        check(&ok(here), Some(here));
        check(&ok("http://192.168.1.1"), Some("http://192.168.1.1:80/"));
        for elsewhere in [
            "http://192.168.1.2:5000/igd.xml",
            "http://203.0.113.1/",
            "http://router.example/",
            "http://192.168.1.1:0/",
            "http://192.168.1.1:70000/",
            "http://192.168.1.1@203.0.113.1/",
            "https://192.168.1.1/",
            "file:///etc/passwd",
            "/igd.xml",
            "",
        ] {
            check(&ok(elsewhere), None);
        }
        check(
            "HTTP/1.1 404 No\r\nLocation: http://192.168.1.1/\r\n\r\n",
            None,
        );
        check(
            "NOTIFY * HTTP/1.1\r\nLocation: http://192.168.1.1/\r\n\r\n",
            None,
        );
        check("HTTP/1.1 200 OK\r\nLocation: http://192.168.1.1/\r\n", None);
        check("", None);
    }
}
