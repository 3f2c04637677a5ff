//! An address of the gateway's web server, as its answers name them. Any other machine's is refused.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

use hyper::Uri;
use hyper::http::uri::Scheme;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The web server, at the gateway.
    pub server: SocketAddrV4,
    /// Path and query.
    pub target: String,
}

impl Endpoint {
    /// A whole URL.
    pub fn absolute(url: &str, router: Ipv4Addr) -> Option<Endpoint> {
        let uri: Uri = url.trim().parse().ok()?;
        let authority = uri.authority()?;
        let ours = uri.scheme() == Some(&Scheme::HTTP)
            && authority.host().parse() == Ok(router)
            && !authority.as_str().contains('@');
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().contains(':') => return None,
            None => 80,
        };
        (ours && port != 0).then(|| Endpoint {
            server: SocketAddrV4::new(router, port),
            target: uri
                .path_and_query()
                .map_or("/", |target| target.as_str())
                .to_owned(),
        })
    }

    /// What a description at this endpoint means by `reference`: a whole URL, a path, or a path from
    /// here.
    pub fn resolve(&self, reference: &str) -> Option<Endpoint> {
        let reference = reference.trim();
        if reference.contains("://") {
            return Endpoint::absolute(reference, *self.server.ip());
        }
        let target = match reference.strip_prefix('/') {
            Some(_) => reference.to_owned(),
            None => {
                let path = self.target.split('?').next()?;
                let directory = path.rsplit_once('/')?.0;
                format!("{directory}/{reference}")
            }
        };
        let other_host = target.starts_with("//");
        let target: Uri = target
            .parse()
            .ok()
            .filter(|_| !reference.is_empty() && !other_host)?;
        Some(Endpoint {
            server: self.server,
            target: target.path_and_query()?.as_str().to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.server, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_on_the_gateway() {
        let router = Ipv4Addr::new(192, 168, 1, 1);
        let base = Endpoint::absolute("http://192.168.1.1:5000/a/root.xml?x=/y", router).unwrap();
        for (reference, expected) in [
            ("/ctl/IPConn", Some("http://192.168.1.1:5000/ctl/IPConn")),
            ("ctl?a=b", Some("http://192.168.1.1:5000/a/ctl?a=b")),
            (" http://192.168.1.1:80/c ", Some("http://192.168.1.1:80/c")),
            ("http://192.168.1.9:80/c", None),
            ("//203.0.113.1/c", None),
            ("http://", None),
            ("with space", None),
            ("a\r\nHost: b", None),
            ("", None),
        ] {
            let found = base.resolve(reference).map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{reference:?}");
        }
    }
}
