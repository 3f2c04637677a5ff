//! A gateway's description: an XML document that lists its services, those of devices within devices
//! included. Read for the services that map ports, and nothing else.

use roxmltree::Node;

use super::endpoint::Endpoint;
use super::xml;

/// Services that map ports, both with the same actions. Other versions are not known to exist.
const KINDS: &[&str] = &[
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
];
/// A gateway has one for each of its lines.
const SERVICES_MAX: usize = 4;

/// A service that maps ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its type, which its actions are named by.
    pub kind: &'static str,
    /// Where its actions are called.
    pub control: Endpoint,
}

/// The services that a description, fetched from `at`, offers on the gateway itself.
pub fn services(text: &str, at: &Endpoint) -> Vec<Service> {
    let Some(document) = xml::parse(text) else {
        return Vec::new();
    };
    let base = match xml::text(document.root_element(), "URLBase") {
        Some(base) if !base.trim().is_empty() => at.resolve(base),
        _ => Some(at.clone()),
    };
    let Some(base) = base else {
        return Vec::new();
    };
    let services = document
        .descendants()
        .filter(|node| node.tag_name().name() == "service");
    services
        .filter_map(|node| service(node, &base))
        .take(SERVICES_MAX)
        .collect()
}

fn service(node: Node<'_, '_>, base: &Endpoint) -> Option<Service> {
    let named = xml::text(node, "serviceType")?.trim();
    Some(Service {
        kind: KINDS.iter().find(|kind| **kind == named)?,
        control: base.resolve(xml::text(node, "controlURL")?)?,
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::fake::description;
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let router = Ipv4Addr::new(192, 168, 1, 1);
        let at = Endpoint::absolute("http://192.168.1.1:5000/igd/root.xml", router).unwrap();
        let services = services(text, &at);
        services
            .iter()
            .map(|service| service.control.to_string())
            .collect()
    }

    #[test]
    fn services_that_map_ports_are_found_within_devices_within_devices() {
        let relative = ["http://192.168.1.1:5000/igd/ctl/IPConn"];
        assert_eq!(found(&description("ctl/IPConn")), relative);
        let text = description("ctl/IPConn").replace(
            "<device><deviceType>",
            "<URLBase>http://192.168.1.1:80/x/</URLBase><device><deviceType>",
        );
        assert_eq!(found(&text), ["http://192.168.1.1:80/x/ctl/IPConn"]);
        assert_eq!(
            found(&format!("\r\n{}\0", description("/c"))),
            ["http://192.168.1.1:5000/c"]
        );
    }

    #[test]
    fn descriptions_that_lead_elsewhere_or_are_too_much_offer_nothing() {
        let ordinary = description("ctl/IPConn");
        for hostile in [
            description("http://192.168.1.2:5000/ctl"),
            description(""),
            ordinary.replace(
                "<device><deviceType>",
                "<URLBase>http://10.0.0.1/</URLBase><device><deviceType>",
            ),
            ordinary.replace("WANIPConnection:1", "WANIPConnection:1&lt;x"),
            ordinary.replace("<device>", &"<a/>".repeat(10_000)),
            "<a>".repeat(20_000),
            format!("{}{}", "<a>".repeat(4000), "</a>".repeat(4000)),
            "<!DOCTYPE a [<!ENTITY b \"bb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>".into(),
            "not XML".into(),
            String::new(),
        ] {
            assert_eq!(
                found(&hostile),
                [""; 0],
                "{}",
                &hostile[..hostile.len().min(200)]
            );
        }
        let many = description("ctl").replace(
            "<service>",
            &format!(
                "{}<service>",
                format!(
                    "<service><serviceType>{}</serviceType><controlURL>/c</controlURL></service>",
                    KINDS[0]
                )
                .repeat(9)
            ),
        );
        assert_eq!(found(&many).len(), SERVICES_MAX);
    }
}
