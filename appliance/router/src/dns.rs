//! A stub resolver for seeds: the hosts file, then A and AAAA questions by UDP to the name servers
//! of resolv.conf.
//!
//! A static binary must not use getaddrinfo, which loads the C library's plug-ins at run time.
//! Left out: TCP for long answers, search domains, caching; seeds need none of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::net::UdpSocket;

use crate::random;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Like the C library: later name servers are ignored.
const SERVERS_MAX: usize = 3;

/// For one answer of one server.
const PATIENCE: Duration = Duration::from_secs(2);

/// Rounds over all servers.
const ROUNDS: usize = 2;

/// Addresses taken from answers.
const ADDRESSES_MAX: usize = 8;

/// The configuration files are read up to this size.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// It cannot be asked for.
    #[error("{0:?} is no DNS name")]
    BadName(String),
    /// The servers say that there is none.
    #[error("no server knows an address of {0}")]
    NoAddress(String),
    /// No server answered.
    #[error("no name server answers ({})", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoAnswer(Vec<SocketAddr>),
    /// The machine knows no server.
    #[error("{RESOLV_CONF} names no name server; give the seed by its IP address")]
    NoServer,
}

/// The addresses of a host.
pub async fn lookup(host: &str) -> Result<Vec<IpAddr>, DnsError> {
    let listed = addresses_in_hosts(&read(Path::new(HOSTS)), host);
    if !listed.is_empty() {
        return Ok(listed);
    }
    let servers = name_servers(&read(Path::new(RESOLV_CONF)));
    if servers.is_empty() {
        return Err(DnsError::NoServer);
    }
    lookup_at(&servers, host).await
}

async fn lookup_at(servers: &[SocketAddr], host: &str) -> Result<Vec<IpAddr>, DnsError> {
    let name = absolute(host)?;
    let (v4, v6) = tokio::join!(
        ask(servers, &name, RecordType::A),
        ask(servers, &name, RecordType::AAAA),
    );
    let found: BTreeSet<IpAddr> = [&v4, &v6]
        .into_iter()
        .flatten()
        .flatten()
        .copied()
        .collect();
    if !found.is_empty() {
        return Ok(found.into_iter().take(ADDRESSES_MAX).collect());
    }
    match (v4, v6) {
        (None, None) => Err(DnsError::NoAnswer(servers.to_vec())),
        _ => Err(DnsError::NoAddress(host.to_owned())),
    }
}

fn absolute(host: &str) -> Result<Name, DnsError> {
    let mut name = Name::from_ascii(host).map_err(|_| DnsError::BadName(host.to_owned()))?;
    name.set_fqdn(true);
    Ok(name)
}

/// The first usable answer of any server, asked in turn; `None` if there is none.
async fn ask(servers: &[SocketAddr], name: &Name, kind: RecordType) -> Option<Vec<IpAddr>> {
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match tokio::time::timeout(PATIENCE, ask_one(*server, name, kind)).await {
            Ok(Ok(Some(addresses))) => return Some(addresses),
            Ok(Ok(None)) => tracing::debug!(%server, %name, "name server refuses"),
            Ok(Err(error)) => tracing::debug!(%server, %name, %error, "name server not reached"),
            Err(_) => tracing::debug!(%server, %name, "name server silent"),
        }
    }
    None
}

async fn ask_one(
    server: SocketAddr,
    name: &Name,
    kind: RecordType,
) -> std::io::Result<Option<Vec<IpAddr>>> {
    let local: SocketAddr = if server.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(local).await?;
    // The kernel then drops what comes from elsewhere; with the id and the port, 32 bits to guess.
    socket.connect(server).await?;
    let id = u16::from_le_bytes([random::seed()[0], random::seed()[0]]);
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let query = Query::query(name.clone(), kind);
    message.add_query(query.clone());
    let bytes = message.to_vec().map_err(std::io::Error::other)?;
    socket.send(&bytes).await?;

    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Ok(answer) = Message::from_vec(&buffer[..length]) else {
            continue;
        };
        let header = &answer.metadata;
        if header.id != id
            || header.message_type != MessageType::Response
            || answer.queries != [query.clone()]
        {
            continue;
        }
        return Ok(match header.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Some(addresses(&answer)),
            // Another server may do better.
            _ => None,
        });
    }
}

/// All addresses in an answer: those of the aliases' ends are what was asked for.
fn addresses(answer: &Message) -> Vec<IpAddr> {
    answer
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .take(ADDRESSES_MAX)
        .collect()
}

fn addresses_in_hosts(hosts: &str, host: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().filter_map(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words
            .any(|name| name.eq_ignore_ascii_case(host))
            .then_some(address)
    });
    lines.take(ADDRESSES_MAX).collect()
}

fn name_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let lines = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_server = words.next() == Some("nameserver");
        let address: IpAddr = words.next().filter(|_| is_server)?.parse().ok()?;
        Some(SocketAddr::new(address, 53))
    });
    lines.take(SERVERS_MAX).collect()
}

/// A missing or unreadable file counts as empty.
fn read(path: &Path) -> String {
    use std::io::Read;
    let mut text = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before an error still counts.
        let _ = file.take(FILE_BYTES_MAX).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! Entrances for fuzzers.

    use super::*;

    /// Reads a name server's answer.
    pub fn answer(bytes: &[u8]) {
        if let Ok(answer) = Message::from_vec(bytes) {
            assert!(addresses(&answer).len() <= ADDRESSES_MAX);
        }
    }

    /// Reads a hosts file and a resolv.conf.
    pub fn configuration(text: &str) {
        assert!(name_servers(text).len() <= SERVERS_MAX);
        assert!(addresses_in_hosts(text, "seed").len() <= ADDRESSES_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::{Record, rdata};

    #[test]
    fn configuration_files_are_read_as_others_read_them() {
        let servers = name_servers(
            "# comment\nsearch x\nnameserver 192.0.2.1\nnameserver bad\n nameserver 2001:db8::1\n",
        );
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53"];
        assert_eq!(servers, expected.map(|text| text.parse().unwrap()));

        let hosts = "127.0.0.1 localhost\n192.0.2.9 a.example Seed # seed2\n";
        let found = addresses_in_hosts(hosts, "seed");
        assert_eq!(found, ["192.0.2.9".parse::<IpAddr>().unwrap()]);
        assert!(addresses_in_hosts(hosts, "seed2").is_empty());
    }

    /// A server that answers `seed.example` and nothing else, after a forgery.
    async fn serve(socket: UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..length]).unwrap();
            let mut answer = Message::response(query.metadata.id, OpCode::Query);
            let question = query.queries[0].clone();
            let name = question.name.clone();
            answer.add_query(question.clone());
            if name != Name::from_ascii("seed.example.").unwrap() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            } else if question.query_type() == RecordType::A {
                let data = RData::A(rdata::A(Ipv4Addr::new(192, 0, 2, 5)));
                answer.answers.push(Record::from_rdata(name, 60, data));
                let mut forged = answer.clone();
                forged.metadata.id = forged.metadata.id.wrapping_add(1);
                socket.send_to(b"garbage", from).await.unwrap();
                let forged = forged.to_vec().unwrap();
                socket.send_to(&forged, from).await.unwrap();
            }
            let answer = answer.to_vec().unwrap();
            socket.send_to(&answer, from).await.unwrap();
        }
    }

    #[tokio::test]
    async fn names_are_found_and_missing_ones_said() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = [socket.local_addr().unwrap()];
        let server = tokio::spawn(serve(socket));
        let found = lookup_at(&servers, "seed.example").await.unwrap();
        assert_eq!(found, ["192.0.2.5".parse::<IpAddr>().unwrap()]);
        let missing = lookup_at(&servers, "nobody.example").await.unwrap_err();
        assert!(matches!(missing, DnsError::NoAddress(_)), "{missing}");
        server.abort();
    }
}
