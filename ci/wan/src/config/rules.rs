//! The rules a configuration must keep: names, subnets, addresses and attachments, each refusal
//! with its place and a remedy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    time::Duration,
};

use ipnet::Ipv4Net;

use super::{
    Attachment, Domain, Fault, MAX_DNS_SERVERS, MAX_DOMAINS, MAX_LATENCY, MAX_PORTS, Place, Port,
    Uplink,
};

/// Longest subnet prefix: a gateway and at least one host must fit.
const MAX_PREFIX: u8 = 30;
/// Shortest subnet prefix; a shorter one is a slip of the pen.
const MIN_PREFIX: u8 = 8;
/// Longest interface name Linux takes (IFNAMSIZ without its NUL).
const MAX_TAP_NAME: usize = 15;
/// Longest path of a Unix socket (`sun_path` without its NUL).
const MAX_UNIX_PATH: usize = 107;

pub(super) fn check_domains(domains: &[Domain]) -> Result<(), Fault> {
    if domains.is_empty() {
        return Err(Fault {
            place: Place::Whole,
            message: "no [[domain]]; add at least one with name, subnet and nat or public = true"
                .to_owned(),
        });
    }
    if domains.len() > MAX_DOMAINS {
        return Err(Fault {
            place: Place::Whole,
            message: format!(
                "{} domains; at most {MAX_DOMAINS} are possible",
                domains.len()
            ),
        });
    }
    let mut names = BTreeSet::new();
    for (index, domain) in domains.iter().enumerate() {
        if !names.insert(domain.name.as_str()) {
            return Err(domain_fault(
                index,
                domain,
                "name",
                "is the second of this name; rename it",
            ));
        }
        check_domain(index, domain)?;
    }
    check_overlaps(domains)
}

fn check_domain(index: usize, domain: &Domain) -> Result<(), Fault> {
    let fault = |key, message: &str| Err(domain_fault(index, domain, key, message));
    if !is_name(&domain.name) {
        return fault(
            "name",
            "needs a name of 1 to 64 letters, digits, '-', '_' or '.'",
        );
    }
    let prefix = domain.subnet.prefix_len();
    if !(MIN_PREFIX..=MAX_PREFIX).contains(&prefix) {
        return fault(
            "subnet",
            &format!("has a /{prefix} subnet; take /{MIN_PREFIX} to /{MAX_PREFIX}"),
        );
    }
    if domain.subnet.addr() != domain.subnet.network() {
        return fault(
            "subnet",
            &format!(
                "has subnet {} with host bits; write {}",
                domain.subnet,
                domain.subnet.trunc()
            ),
        );
    }
    if !is_unicast(domain.subnet.network()) || !is_unicast(domain.subnet.broadcast()) {
        return fault(
            "subnet",
            "has a subnet outside unicast addresses; take e.g. 192.168.10.0/24",
        );
    }
    if domain.dns.len() > MAX_DNS_SERVERS {
        return fault(
            "dns",
            &format!("names more than {MAX_DNS_SERVERS} DNS servers"),
        );
    }
    if domain.lease < Duration::from_secs(10) || domain.lease.as_secs() > u32::MAX.into() {
        return fault("lease_s", "has a lease time below 10 s or above 2^32 s");
    }
    let link = &domain.link;
    if link
        .latency
        .checked_add(link.jitter)
        .is_none_or(|delay| delay > MAX_LATENCY)
    {
        return fault(
            "latency_ms",
            &format!("delays by more than {} s", MAX_LATENCY.as_secs()),
        );
    }
    if !(0.0..=100.0).contains(&link.loss_percent) {
        return fault("loss_percent", "has a loss outside 0 to 100 percent");
    }
    if link
        .bandwidth_mbit
        .is_some_and(|rate| !(0.001..=1e6).contains(&rate))
    {
        return fault(
            "bandwidth_mbit",
            "has a bandwidth outside 0.001 to 1000000 Mbit/s",
        );
    }
    if let Uplink::Nat(nat) = &domain.uplink {
        if !is_unicast(nat.public_ip) {
            return fault("public_ip", "has a public_ip that is no unicast address");
        }
        if nat.timeouts.all().iter().any(|timeout| timeout.is_zero()) {
            return fault("nat", "has a mapping timeout of zero; take at least 1 s");
        }
    }
    Ok(())
}

/// Addresses of the emulated internet must be unique; private subnets may repeat, as at homes.
fn check_overlaps(domains: &[Domain]) -> Result<(), Fault> {
    let external = |domain: &Domain| match &domain.uplink {
        Uplink::Public => domain.subnet,
        Uplink::Nat(nat) => Ipv4Net::from(nat.public_ip),
    };
    // Sorted by network, an overlap always shows between two neighbours.
    let mut sorted: Vec<(usize, Ipv4Net)> = domains.iter().map(external).enumerate().collect();
    sorted.sort_by_key(|(index, net)| (net.network(), net.prefix_len(), *index));
    for pair in sorted.windows(2) {
        let [(first, a), (second, b)] = pair else {
            continue;
        };
        if a.contains(&b.network()) {
            let (early, late) = (first.min(second), first.max(second));
            let key = match domains[*late].uplink {
                Uplink::Public => "subnet",
                Uplink::Nat(_) => "public_ip",
            };
            let message = format!(
                "and domain \"{}\" share addresses of the emulated internet ({a} and {b}); \
                 give each its own",
                domains[*early].name
            );
            return Err(domain_fault(*late, &domains[*late], key, &message));
        }
    }
    for (index, domain) in domains.iter().enumerate() {
        if let Uplink::Nat(nat) = &domain.uplink
            && domain.subnet.contains(&nat.public_ip)
        {
            let message = "has its public_ip inside its own private subnet; take another";
            return Err(domain_fault(index, domain, "public_ip", message));
        }
    }
    Ok(())
}

pub(super) fn name_ports(ports: &mut [Port]) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for port in ports {
        let count = counts.entry(port.domain.clone()).or_default();
        if port.name.is_empty() {
            port.name = format!("{}.{count}", port.domain);
        }
        *count += 1;
    }
}

pub(super) fn check_ports(domains: &[Domain], ports: &[Port]) -> Result<(), Fault> {
    if ports.len() > MAX_PORTS {
        return Err(Fault {
            place: Place::Whole,
            message: format!("{} ports; at most {MAX_PORTS} are possible", ports.len()),
        });
    }
    let (mut names, mut attached, mut macs, mut ips) = (
        BTreeSet::new(),
        BTreeSet::new(),
        BTreeSet::new(),
        BTreeSet::new(),
    );
    for (index, port) in ports.iter().enumerate() {
        let fault = |key, message: String| {
            Err(Fault {
                place: Place::Port(index, key),
                message: format!("port \"{}\" {message}", port.name),
            })
        };
        if !is_name(&port.name) {
            return fault(
                "name",
                "needs a name of 1 to 64 letters, digits, '-', '_' or '.'".into(),
            );
        }
        if !names.insert(port.name.as_str()) {
            return fault("name", "is the second of this name; rename it".into());
        }
        let Some(domain) = domains.iter().find(|domain| domain.name == port.domain) else {
            let known: Vec<_> = domains.iter().map(|domain| domain.name.as_str()).collect();
            let message = format!(
                "is on domain \"{}\", but there are only: {}",
                port.domain,
                known.join(", ")
            );
            return fault("domain", message);
        };
        check_attachment(&port.attachment).or_else(|(key, message)| fault(key, message))?;
        if !attached.insert(port.attachment.to_string()) {
            return fault(
                "domain",
                format!("repeats {}; a port needs its own", port.attachment),
            );
        }
        if let Some(mac) = port.mac {
            if mac.0[0] & 1 == 1 || mac.0 == [0; 6] {
                return fault("mac", format!("has mac {mac}, which is no unicast address"));
            }
            if !macs.insert(mac) {
                return fault("mac", format!("repeats mac {mac}; machines need their own"));
            }
        }
        if let Some(ip) = port.ip {
            let subnet = domain.subnet;
            if !subnet.contains(&ip) || ip == subnet.network() || ip == subnet.broadcast() {
                return fault("ip", format!("reserves {ip}, which is no host of {subnet}"));
            }
            if ip == domain.gateway() {
                return fault("ip", format!("reserves {ip}, which is the gateway's"));
            }
            if !ips.insert((domain.name.as_str(), ip)) {
                return fault(
                    "ip",
                    format!("reserves {ip}, which another port has reserved"),
                );
            }
        }
    }
    Ok(())
}

fn check_attachment(attachment: &Attachment) -> Result<(), (&'static str, String)> {
    match attachment {
        Attachment::Unix(path) if path.to_str().is_none() => {
            let message = format!("has a socket path that is not UTF-8: {}", path.display());
            return Err(("unix", message));
        }
        Attachment::Unix(path) => {
            let bytes = path.as_os_str().len();
            if bytes == 0 || bytes > MAX_UNIX_PATH {
                let message = format!(
                    "has a socket path of {bytes} bytes; Linux takes 1 to {MAX_UNIX_PATH}, use a \
                     shorter directory"
                );
                return Err(("unix", message));
            }
        }
        Attachment::Tap(name) => {
            let fits = (1..=MAX_TAP_NAME).contains(&name.len());
            if !fits || !is_name(name) || name == "." || name == ".." {
                let message = format!(
                    "has tap name \"{name}\"; take 1 to {MAX_TAP_NAME} letters, digits, '-', '_' \
                     or '.'"
                );
                return Err(("tap", message));
            }
        }
    }
    Ok(())
}

fn domain_fault(index: usize, domain: &Domain, key: &'static str, message: &str) -> Fault {
    Fault {
        place: Place::Domain(index, key),
        message: format!("domain \"{}\" {message}", domain.name),
    }
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_unicast(ip: Ipv4Addr) -> bool {
    !ip.is_unspecified()
        && ip.octets()[0] != 0
        && !ip.is_loopback()
        && !ip.is_multicast()
        && ip.octets()[0] < 240
}
