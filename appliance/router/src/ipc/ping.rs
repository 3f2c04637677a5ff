//! Echo requests to a node: ICMP from the node's virtual address, so that they travel as any
//! guest's packets do, or the overlay's own echo.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, ipproto, recv, sendto,
    socket_with,
};
use wow_overlay::id::NodeId;
use wow_underlay::Descriptor;

use super::operator::Operator;
use crate::api::{Path, PingReply, PingReport, RttSummary};
use crate::daemon::command::Command;
use crate::daemon::report::milliseconds;
use crate::random;

/// Distinguishes our own answers from others' on a raw socket, besides the identifier.
const PATTERN: &[u8; 16] = b"wow ping pattern";

/// What is asked for.
pub struct Plan {
    pub target: String,
    pub count: u32,
    pub interval: Duration,
    pub timeout: Duration,
    pub overlay: bool,
}

/// Carries a plan out.
pub async fn run(operator: &Operator, plan: &Plan) -> Result<PingReport, String> {
    let own = operator.status().await?;
    let is_control = operator
        .control
        .is_some_and(|control| plan.target == control.to_string());
    let node = if is_control {
        None
    } else {
        Some(operator.resolve(&plan.target).await?)
    };
    let id: Option<NodeId> = node.as_ref().and_then(|node| node.id.parse().ok());
    let v4 = match (&node, operator.control) {
        (Some(node), _) => node.v4,
        (None, Some(control)) => control,
        (None, None) => return Err(format!("{}: no such node", plan.target)),
    };

    let (method, replies) = if plan.overlay || operator.control.is_none() {
        let id = id.ok_or("the control address is no node; it answers ICMP only")?;
        if Some(id) == own.id.parse().ok() {
            return Err("the overlay's echo goes to other nodes only".into());
        }
        ("overlay", overlay(operator, id, plan).await?)
    } else {
        let socket = Icmp::open(own.addresses.v4)
            .map_err(|error| format!("cannot send ICMP from {}: {error}", own.addresses.v4))?;
        ("icmp", icmp(&socket, v4, plan).await?)
    };

    let path = match id {
        Some(id) => operator.ask(|asker| Command::Path(id, asker)).await?,
        None => Path {
            kind: "self".into(),
            remote: None,
            via: None,
        },
    };
    let received = replies
        .iter()
        .filter(|reply| reply.rtt_ms.is_some())
        .count();
    Ok(PingReport {
        target: plan.target.clone(),
        id: node.as_ref().map(|node| node.id.clone()),
        name: node.map(|node| node.name),
        v4,
        method: method.into(),
        sent: plan.count,
        received: u32::try_from(received).unwrap_or(u32::MAX),
        rtt_ms: RttSummary::of(&replies),
        path,
        replies,
    })
}

async fn overlay(operator: &Operator, id: NodeId, plan: &Plan) -> Result<Vec<PingReply>, String> {
    let mut replies = Vec::new();
    for seq in 1..=plan.count {
        let begun = tokio::time::Instant::now();
        let asked = operator.ask(|asker| Command::Echo(id, asker));
        let pong = match tokio::time::timeout(plan.timeout, asked).await {
            Ok(answer) => answer?,
            Err(_) => None,
        };
        replies.push(PingReply {
            seq,
            rtt_ms: pong.as_ref().map(|pong| milliseconds(pong.rtt)),
            hops: pong.map(|pong| pong.hops),
        });
        if seq < plan.count {
            tokio::time::sleep_until(begun + plan.interval).await;
        }
    }
    Ok(replies)
}

async fn icmp(socket: &Icmp, to: Ipv4Addr, plan: &Plan) -> Result<Vec<PingReply>, String> {
    let mut replies = Vec::new();
    for seq in 1..=plan.count {
        let begun = tokio::time::Instant::now();
        let number = u16::try_from(seq).map_err(|_| "too many requests".to_owned())?;
        let rtt = tokio::time::timeout(plan.timeout, socket.echo(to, number)).await;
        let rtt = match rtt {
            Ok(Ok(rtt)) => Some(rtt),
            Ok(Err(error)) => return Err(format!("cannot ping {to}: {error}")),
            Err(_) => None,
        };
        replies.push(PingReply {
            seq,
            rtt_ms: rtt.map(milliseconds),
            hops: None,
        });
        if seq < plan.count {
            tokio::time::sleep_until(begun + plan.interval).await;
        }
    }
    Ok(replies)
}

/// An ICMP socket on one of the machine's own addresses.
struct Icmp {
    socket: Descriptor,
    identifier: u16,
}

impl Icmp {
    fn open(own: Ipv4Addr) -> io::Result<Self> {
        let open = |kind| {
            socket_with(
                AddressFamily::INET,
                kind,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                Some(ipproto::ICMP),
            )
        };
        // Raw sockets take a privilege that who made the TUN device usually has; datagram ICMP
        // sockets are for the groups in net.ipv4.ping_group_range.
        let socket = match open(SocketType::RAW) {
            Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => open(SocketType::DGRAM)?,
            other => other?,
        };
        bind(&socket, &SocketAddr::from((own, 0)))?;
        Ok(Icmp {
            socket: Descriptor::new(socket)?,
            identifier: random::number().to_le_bytes()[0].into(),
        })
    }

    /// The time until the answer. Waits without limit.
    async fn echo(&self, to: Ipv4Addr, number: u16) -> io::Result<Duration> {
        let request = echo_request(self.identifier, number);
        let to = SocketAddr::from((to, 0));
        let begun = Instant::now();
        self.socket
            .write_with(|socket| Ok(sendto(socket, &request, SendFlags::empty(), &to)?))
            .await?;
        loop {
            let mut buffer = [0; 1500];
            let length = self
                .socket
                .read_with(|socket| Ok(recv(socket, &mut buffer[..], RecvFlags::empty())?.0))
                .await?;
            if is_answer(&buffer[..length], &request) {
                return Ok(begun.elapsed());
            }
        }
    }
}

/// RFC 792, echo: type 8, code 0, checksum, identifier, sequence number, data.
fn echo_request(identifier: u16, number: u16) -> Vec<u8> {
    let mut request = vec![8, 0, 0, 0];
    request.extend(identifier.to_be_bytes());
    request.extend(number.to_be_bytes());
    request.extend(PATTERN);
    let sum = checksum(&request);
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    request
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether a received message answers `request`. A raw socket gives the IP header too; a datagram
/// socket does not, and the kernel has replaced the identifier and filtered by it.
fn is_answer(message: &[u8], request: &[u8]) -> bool {
    let raw = message.first().is_some_and(|byte| byte >> 4 == 4);
    let icmp = if raw {
        let header = usize::from(message[0] & 0xf) * 4;
        message.get(header..).unwrap_or_default()
    } else {
        message
    };
    icmp.len() == request.len()
        && icmp[..2] == [0, 0]
        && (!raw || icmp[4..6] == request[4..6])
        && icmp[6..] == request[6..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_everything_else() {
        let request = echo_request(7, 3);
        assert_eq!(checksum(&request), 0);
        let mut answer = request.clone();
        answer[0] = 0;
        assert!(is_answer(&answer, &request), "datagram socket");
        let mut raw = vec![0x45; 20];
        raw.extend(&answer);
        assert!(is_answer(&raw, &request), "raw socket");
        assert!(!is_answer(&request, &request), "the request itself");
        let mut other = echo_request(8, 3);
        other[0] = 0;
        let mut foreign = vec![0x45; 20];
        foreign.extend(other);
        assert!(!is_answer(&foreign, &request), "another's identifier");
        let mut late = echo_request(7, 2);
        late[0] = 0;
        assert!(!is_answer(&late, &request), "an earlier request's answer");
        assert!(!is_answer(&[], &request));
        assert!(!is_answer(&[0x4f], &request));
    }
}
