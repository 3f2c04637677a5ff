//! Whether a request means this server. A browser that somebody else's page has sent here, by a name
//! of theirs that leads to our address (DNS rebinding), says that name in the Host header.

use std::net::{IpAddr, Ipv6Addr};

use hyper::Request;
use hyper::header::HOST;

/// Whether the request names an address, a name of the pool, or nobody as HTTP/1.0 may.
pub fn is_ours<B>(request: &Request<B>, suffix: &str) -> bool {
    if let Some(authority) = request.uri().authority() {
        return names_us(authority.as_str(), suffix);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version() == hyper::Version::HTTP_10,
        (Some(host), None) => host.to_str().is_ok_and(|host| names_us(host, suffix)),
        (Some(_), Some(_)) => false,
    }
}

fn names_us(authority: &str, suffix: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let bracketed = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if let Some(v6) = bracketed {
        return v6.parse::<Ipv6Addr>().is_ok();
    }
    // Who types an address has asked nobody where it leads; and `localhost` is the end of a tunnel.
    if host.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match host.strip_suffix(suffix) {
        Some(before) => before.is_empty() || before.ends_with('.'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_the_pool_are_ours_alone() {
        let ours = [
            "10.128.0.1",
            "10.128.0.1:80",
            "[fd00::1]",
            "[fd00::1]:8080",
            "localhost:8080",
            "lab.internal",
            "LAB.internal.",
            "n1.lab.internal:80",
        ];
        for host in ours {
            assert!(names_us(host, "lab.internal"), "{host}");
        }
        let others = [
            "",
            ":80",
            "evil.example",
            "notlab.internal",
            "lab.internal.evil.example",
            "10.128.0.1.evil.example",
            "[evil.example]",
            "internal",
            "a b",
        ];
        for host in others {
            assert!(!names_us(host, "lab.internal"), "{host}");
        }
    }

    #[test]
    fn one_host_is_named_or_none_before_http_1_1() {
        let request = |version, hosts: &[&str]| {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            is_ours(&request.body(()).unwrap(), "lab.internal")
        };
        use hyper::Version;
        assert!(request(Version::HTTP_10, &[]));
        assert!(!request(Version::HTTP_11, &[]));
        assert!(request(Version::HTTP_11, &["10.0.0.1"]));
        assert!(!request(Version::HTTP_11, &["10.0.0.1", "10.0.0.1"]));
        assert!(!request(Version::HTTP_10, &["evil.example"]));
    }
}
