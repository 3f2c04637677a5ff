//! A stub resolver for seeds: the hosts file, then A and AAAA questions by UDP to the name servers
//! of resolv.conf.
//!
//! A static binary must not use getaddrinfo, which loads the C library's plug-ins at run time.
//! Left out: TCP for long answers, search domains, caching; seeds need none of them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use smoltcp::wire::{
    self, DnsFlags, DnsOpcode, DnsPacket, DnsQueryType, DnsQuestion, DnsRcode, DnsRecord,
    DnsRecordData, DnsRepr,
};
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

/// RFC 1035, section 4.1.1.
const HEADER_BYTES: usize = 12;

/// RFC 1035, section 2.3.4.
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 255;

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
    let name = encode(host).ok_or_else(|| DnsError::BadName(host.to_owned()))?;
    let question = |type_| DnsQuestion { name: &name, type_ };
    let (v4, v6) = tokio::join!(
        ask(servers, host, question(DnsQueryType::A)),
        ask(servers, host, question(DnsQueryType::Aaaa)),
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

/// A host's name as questions carry it: each label behind its length, the root's empty one last.
fn encode(host: &str) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    for label in host.strip_suffix('.').unwrap_or(host).split('.') {
        let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.as_bytes().iter().all(known)
        {
            return None;
        }
        name.push(u8::try_from(label.len()).ok()?);
        name.extend(label.as_bytes());
    }
    name.push(0);
    (name.len() <= NAME_BYTES_MAX).then_some(name)
}

/// The first usable answer of any server, asked in turn; `None` if there is none.
async fn ask(servers: &[SocketAddr], host: &str, question: DnsQuestion<'_>) -> Option<Vec<IpAddr>> {
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match tokio::time::timeout(PATIENCE, ask_one(*server, &question)).await {
            Ok(Ok(Some(addresses))) => return Some(addresses),
            Ok(Ok(None)) => tracing::debug!(%server, host, "name server refuses"),
            Ok(Err(error)) => tracing::debug!(%server, host, %error, "name server not reached"),
            Err(_) => tracing::debug!(%server, host, "name server silent"),
        }
    }
    None
}

async fn ask_one(
    server: SocketAddr,
    question: &DnsQuestion<'_>,
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
    let message = DnsRepr {
        transaction_id: id,
        opcode: DnsOpcode::Query,
        flags: DnsFlags::RECURSION_DESIRED,
        question: DnsQuestion { ..*question },
    };
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut DnsPacket::new_unchecked(&mut bytes));
    socket.send(&bytes).await?;

    let mut buffer = [0; 1500];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let Ok(answer) = Answer::parse(&buffer[..length]) else {
            continue;
        };
        if answer.id != id || !answer.is_to(question) {
            continue;
        }
        return Ok(match answer.code {
            DnsRcode::NoError | DnsRcode::NXDomain => Some(answer.addresses),
            // Another server may do better.
            _ => None,
        });
    }
}

/// What a name server said.
struct Answer<'a> {
    id: u16,
    code: DnsRcode,
    question: DnsQuestion<'a>,
    /// All that it holds: those of the aliases' ends are what was asked for.
    addresses: Vec<IpAddr>,
}

impl<'a> Answer<'a> {
    fn parse(bytes: &'a [u8]) -> wire::Result<Self> {
        let packet = DnsPacket::new_checked(bytes)?;
        if !packet.flags().contains(DnsFlags::RESPONSE) || packet.question_count() != 1 {
            return Err(wire::Error);
        }
        let (mut rest, question) = DnsQuestion::parse(&bytes[HEADER_BYTES..])?;
        let mut addresses = Vec::new();
        for _ in 0..packet.answer_record_count() {
            let record;
            (rest, record) = DnsRecord::parse(rest)?;
            match record.data {
                DnsRecordData::A(address) => addresses.push(IpAddr::V4(address)),
                DnsRecordData::Aaaa(address) => addresses.push(IpAddr::V6(address)),
                DnsRecordData::Cname(_) | DnsRecordData::Other(..) => {}
            }
        }
        addresses.truncate(ADDRESSES_MAX);
        Ok(Self {
            id: packet.transaction_id(),
            code: packet.rcode(),
            question,
            addresses,
        })
    }

    fn is_to(&self, question: &DnsQuestion<'_>) -> bool {
        // Lengths of labels are below the letters.
        self.question.type_ == question.type_
            && self.question.name.eq_ignore_ascii_case(question.name)
    }
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
        if let Ok(answer) = Answer::parse(bytes) {
            assert!(answer.addresses.len() <= ADDRESSES_MAX);
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

    #[test]
    fn names_are_encoded_within_their_bounds() {
        let encoded = encode("Seed-1.example.").unwrap();
        assert_eq!(encoded, b"\x06Seed-1\x07example\x00");
        assert_eq!(encode("seed.example"), encode("seed.example."));
        let label = "a".repeat(LABEL_BYTES_MAX);
        let longest = [&*label, &label, &label, &label[..61]].join(".");
        assert_eq!(encode(&longest).unwrap().len(), NAME_BYTES_MAX);
        let too_long = [longest + "a", label + "a"];
        for wrong in ["", ".", "a..b", ".a", "a b", "\u{e9}.example"] {
            assert_eq!(encode(wrong), None, "{wrong:?}");
        }
        for wrong in too_long {
            assert_eq!(encode(&wrong), None, "{wrong:?}");
        }
    }

    /// The answer to a question, with these records' bytes.
    fn answer(question: &[u8], code: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut answer = question.to_vec();
        answer[2] |= 0x80;
        answer[3] |= code;
        answer[7] = u8::try_from(records.len()).unwrap();
        answer.extend(records.concat());
        answer
    }

    /// A record whose name points at the question's.
    fn record(kind: u8, data: &[u8]) -> Vec<u8> {
        let length = u8::try_from(data.len()).unwrap();
        let head = [0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, length];
        [&head, data].concat()
    }

    #[test]
    fn an_answer_is_taken_whole_or_not_at_all() {
        let name = encode("seed.example").unwrap();
        let asked = |type_| DnsQuestion { name: &name, type_ };
        let message = DnsRepr {
            transaction_id: 7,
            opcode: DnsOpcode::Query,
            flags: DnsFlags::RECURSION_DESIRED,
            question: asked(DnsQueryType::A),
        };
        let mut question = vec![0; message.buffer_len()];
        message.emit(&mut DnsPacket::new_unchecked(&mut question));
        assert!(Answer::parse(&question).is_err(), "it is no answer");

        let alias = record(5, b"\x01x\xc0\x0c");
        let address = record(1, &[192, 0, 2, 5]);
        let bytes = answer(&question, 0, &[&alias, &address]);
        let parsed = Answer::parse(&bytes).unwrap();
        assert_eq!(parsed.id, 7);
        assert_eq!(parsed.addresses, [IpAddr::from([192, 0, 2, 5])]);
        assert!(parsed.is_to(&asked(DnsQueryType::A)));
        assert!(!parsed.is_to(&asked(DnsQueryType::Aaaa)));
        for length in 0..bytes.len() {
            assert!(Answer::parse(&bytes[..length]).is_err(), "{length} bytes");
        }

        let capitals: Vec<u8> = bytes.iter().map(u8::to_ascii_uppercase).collect();
        let parsed = Answer::parse(&capitals).unwrap();
        assert!(parsed.is_to(&asked(DnsQueryType::A)));

        let many = vec![&*address; 3 * ADDRESSES_MAX];
        let bytes = answer(&question, 0, &many);
        let parsed = Answer::parse(&bytes).unwrap();
        assert_eq!(parsed.addresses.len(), ADDRESSES_MAX);
    }

    /// A server that answers `seed.example` and nothing else, after a forgery.
    async fn serve(socket: UdpSocket) {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let query = &buffer[..length];
            let (_, question) = DnsQuestion::parse(&query[HEADER_BYTES..]).unwrap();
            let answer = if question.name != encode("seed.example").unwrap() {
                answer(query, 3, &[])
            } else if question.type_ == DnsQueryType::A {
                let answer = answer(query, 0, &[&record(1, &[192, 0, 2, 5])]);
                let mut forged = answer.clone();
                forged[0] = forged[0].wrapping_add(1);
                socket.send_to(b"garbage", from).await.unwrap();
                socket.send_to(&forged, from).await.unwrap();
                answer
            } else {
                answer(query, 0, &[])
            };
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
