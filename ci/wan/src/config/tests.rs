//! What a configuration accepts, and how it words what it refuses.

use super::*;

const GOOD: &str = r#"
seed = 7

[[domain]]
name = "a"
nat = "port-restricted"
subnet = "192.168.10.0/24"
public_ip = "198.51.100.10"
latency_ms = 10
hairpin = true
[domain.timeouts]
udp_s = 30

[[domain]]
name = "net"
public = true
subnet = "203.0.113.0/24"
latency_ms = 2.5
jitter_ms = 1
loss_percent = 0.5
bandwidth_mbit = 100

[[port]]
domain = "a"
unix = "/run/a.sock"
mac = "52:54:00:12:34:56"
ip = "192.168.10.20"

[[port]]
domain = "net"
tap = "wan0"
"#;

#[test]
fn a_good_file_is_understood_and_survives_printing() {
    let config = Config::parse(GOOD, "wan.toml").unwrap();
    assert_eq!(config.seed(), 7);
    let [a, net] = config.domains() else {
        panic!("two domains")
    };
    let Uplink::Nat(nat) = &a.uplink else {
        panic!("a NAT")
    };
    assert_eq!(nat.behaviour, Behaviour::PORT_RESTRICTED);
    assert_eq!(nat.timeouts.udp, Duration::from_secs(30));
    assert_eq!(nat.timeouts.icmp, Timeouts::default().icmp);
    assert_eq!(a.gateway(), Ipv4Addr::new(192, 168, 10, 1));
    assert_eq!(net.uplink, Uplink::Public);
    assert_eq!(net.link.latency, Duration::from_micros(2500));
    assert_eq!(config.ports()[0].name, "a.0");
    assert_eq!(config.ports()[1].attachment, Attachment::Tap("wan0".into()));
    let again = Config::parse(&config.to_toml(), "printed").unwrap();
    assert_eq!(again, config);
}

#[test]
fn a_built_configuration_survives_printing() {
    let behaviour = Behaviour {
        mapping: crate::nat::Dependence::AddressDependent,
        filtering: crate::nat::Dependence::EndpointIndependent,
    };
    let config = Config::new(
        3,
        vec![
            Domain::nat(
                "odd",
                "10.0.0.0/8".parse().unwrap(),
                Ipv4Addr::new(192, 0, 2, 1),
                behaviour,
            )
            .with_latency(Duration::from_micros(12_345)),
            Domain::public("p", "198.18.0.0/16".parse().unwrap()),
        ],
        vec![
            Port::tap("p", "t0")
                .with_ip(Ipv4Addr::new(198, 18, 0, 9))
                .named("nine"),
        ],
    )
    .unwrap();
    assert_eq!(Config::parse(&config.to_toml(), "printed").unwrap(), config);
}

/// Replaces `from` by `to` in the good file and expects an error with all of `parts`.
fn check_refused(from: &str, to: &str, parts: &[&str]) {
    assert!(GOOD.contains(from), "{from:?} is not in the file");
    let error = Config::parse(&GOOD.replacen(from, to, 1), "wan.toml")
        .unwrap_err()
        .to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn mistakes_are_named_with_line_and_remedy() {
    check_refused(
        "seed = 7",
        "sede = 7",
        &["wan.toml", "line 2", "sede", "seed"],
    );
    check_refused("hairpin = true", "hairpin = 3", &["line 10", "hairpin"]);
    check_refused(
        "latency_ms = 10",
        "latency_ms = -1",
        &["wan.toml:9:", "\"a\"", "latency_ms"],
    );
    check_refused(
        "latency_ms = 10",
        "latency_ms = nan",
        &["wan.toml:9:", "latency_ms"],
    );
    check_refused(
        "latency_ms = 10",
        "latency_ms = 20000",
        &["wan.toml:9:", "10 s"],
    );
    check_refused(
        "port-restricted",
        "conical",
        &["wan.toml:6:", "conical", "full-cone"],
    );
    check_refused(
        "192.168.10.0/24",
        "192.168.10.1/24",
        &["wan.toml:7:", "192.168.10.0/24"],
    );
    check_refused(
        "192.168.10.0/24",
        "192.168.10.0/31",
        &["wan.toml:7:", "/31"],
    );
    check_refused(
        "192.168.10.0/24",
        "224.0.0.0/24",
        &["wan.toml:7:", "unicast"],
    );
    check_refused(
        "198.51.100.10",
        "203.0.113.9",
        &["wan.toml:", "share addresses"],
    );
    check_refused(
        "198.51.100.10",
        "192.168.10.9",
        &["wan.toml:8:", "inside its own"],
    );
    check_refused(
        "public_ip = \"198.51.100.10\"",
        "",
        &["wan.toml:5:", "no public_ip"],
    );
    check_refused("public = true\n", "", &["wan.toml:15:", "neither public"]);
    check_refused(
        "public = true",
        "public = true\nnat = \"symmetric\"",
        &["wan.toml:16:", "remove"],
    );
    check_refused(
        "public = true",
        "public = true\nhairpin = true",
        &["wan.toml:17:", "hairpin"],
    );
    check_refused(
        "loss_percent = 0.5",
        "loss_percent = 101",
        &["wan.toml:20:", "percent"],
    );
    check_refused("udp_s = 30", "udp_s = 0", &["\"a\"", "timeout of zero"]);
    check_refused(
        "name = \"net\"",
        "name = \"a\"",
        &["wan.toml:15:", "second"],
    );
    check_refused(
        "domain = \"net\"",
        "domain = \"nte\"",
        &["wan.toml:30:", "\"nte\"", "a, net"],
    );
    check_refused("tap = \"wan0\"", "", &["wan.toml:30:", "tap ="]);
    check_refused("wan0", "much-too-long-a-name", &["wan.toml:31:", "15"]);
    check_refused(
        "52:54:00:12:34:56",
        "52:54:00",
        &["wan.toml:26:", "52:54:00"],
    );
    check_refused(
        "52:54:00:12:34:56",
        "01:54:00:12:34:56",
        &["wan.toml:26:", "unicast"],
    );
    check_refused(
        "192.168.10.20",
        "192.168.10.1",
        &["wan.toml:27:", "gateway"],
    );
    check_refused(
        "192.168.10.20",
        "192.168.11.1",
        &["wan.toml:27:", "no host"],
    );
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/wan.toml"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("/nonexistent/wan.toml"), "{error}");
}

#[test]
fn a_public_range_that_contains_another_is_refused_wherever_it_sorts() {
    let public = |name: &str, net: &str| Domain::public(name, net.parse().unwrap());
    let fault = Config::new(
        1,
        vec![
            public("x", "10.1.0.0/16"),
            public("y", "10.9.0.0/16"),
            public("z", "10.0.0.0/8"),
        ],
        vec![],
    )
    .unwrap_err();
    assert_eq!(fault.place, Place::Domain(2, "subnet"));
}

#[test]
fn what_toml_cannot_express_is_refused_when_built() {
    use std::os::unix::ffi::OsStrExt;
    let domains = vec![Domain::public("p", "198.18.0.0/16".parse().unwrap())];
    let fault = Config::new(u64::MAX, domains.clone(), vec![]).unwrap_err();
    assert!(fault.message.contains("2^63"), "{fault}");
    let path = std::ffi::OsStr::from_bytes(b"/run/\xff");
    let fault = Config::new(1, domains, vec![Port::unix("p", path)]).unwrap_err();
    assert_eq!(fault.place, Place::Port(0, "unix"));
}

#[test]
fn a_map_and_pairs_are_understood_and_survive_printing() {
    let text = format!(
        "{GOOD}\n[matrix]\nseed = 4\nround_trip_ms = [20, 200]\n\n[[pair]]\nbetween = [\"net\", \
         \"a\"]\nlatency_ms = 7.5\ncut = true\n"
    );
    let config = Config::parse(&text, "wan.toml").unwrap();
    let matrix = config.matrix().unwrap();
    assert_eq!(matrix.seed, 4);
    assert_eq!(matrix.round_trip[1], Duration::from_millis(200));
    let [pair] = config.pairs() else {
        panic!("one pair")
    };
    assert_eq!(
        (pair.latency, pair.cut),
        (Some(Duration::from_micros(7500)), true)
    );
    assert_eq!(Config::parse(&config.to_toml(), "printed").unwrap(), config);
    for (from, to, parts) in [
        ("[20, 200]", "[200, 20]", ["wan.toml:35:", "shorter"]),
        ("[20, 200]", "[20, -1]", ["wan.toml:35:", "-1"]),
        ("7.5", "-7", ["wan.toml:39:", "latency_ms"]),
        ("\"a\"]\n", "\"x\"]\n", ["wan.toml:38:", "\"x\""]),
    ] {
        assert!(text.contains(from));
        let error = Config::parse(&text.replacen(from, to, 1), "wan.toml");
        let error = error.unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
