//! Machines that run none of this, on LANs behind two nodes: real kernels and a real DHCP client, in
//! network namespaces with veth pairs. Needs root.

mod support;

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::spaces::{Spaces, check_stream, ip};
use support::{Node, Pool, Said};

/// What a guest was told by DHCP.
#[derive(Debug)]
struct Told(String);

impl Told {
    fn get(&self, name: &str) -> &str {
        let prefix = format!("{name}=");
        let found = self.0.lines().find_map(|line| line.strip_prefix(&prefix));
        found.unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn address(&self) -> Ipv4Addr {
        self.get("ip").parse().unwrap()
    }
}

struct Bed {
    pool: Pool,
    spaces: Spaces,
    ticket: String,
}

impl Bed {
    /// `None`, with a message, where it cannot be made.
    fn new(label: &str) -> Option<Self> {
        let has = |name: &str| {
            let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
            places
                .iter()
                .any(|place| Path::new(place).join(name).exists())
        };
        for (program, package) in [("udhcpc", "udhcpc"), ("ping", "iputils-ping")] {
            if !has(program) {
                eprintln!("skipped: the program {program} is missing (package {package})");
                return None;
            }
        }
        let spaces = Spaces::with_lans(label)?;
        let pool = Pool::new(&["--seed", "192.0.2.1:4001"]);
        let ticket = pool.ticket("n.ticket", &[]);
        Some(Bed {
            pool,
            spaces,
            ticket,
        })
    }

    /// Starts the node `name` in its namespace, with these guests.
    fn node(&self, name: &str, guest: &str) -> Node {
        let exec = ["ip", "netns", "exec", self.spaces.name(&name[..1])];
        let run = ["--listen", "0.0.0.0:4001", "--ticket", &self.ticket];
        Node::start(
            &self.pool,
            name,
            &exec,
            &[&run[..], &["--guest", guest]].concat(),
        )
    }

    /// Has a guest ask for an address as its system would at boot; what it is told.
    fn ask(&self, guest: &str, device: &str, more: &[&str]) -> Option<Told> {
        let (script, told) = (self.pool.path("udhcpc.sh"), self.pool.path(guest));
        let text = format!(
            "#!/bin/sh\n\
             [ \"$1\" = bound ] || exit 0\n\
             env > {told}\n\
             ip addr flush dev $interface\n\
             ip addr add $ip/$mask dev $interface\n\
             ip link set $interface mtu $mtu\n\
             ip route replace default via $router\n"
        );
        std::fs::write(&script, text).unwrap();
        let _ = std::fs::remove_file(&told);
        let client = [
            "udhcpc", "-f", "-q", "-n", "-t", "20", "-T", "1", "-O", "mtu",
        ];
        let script_argument = ["-i", device, "-s", &script];
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let said = self
            .spaces
            .try_run(guest, &[&client[..], &script_argument, more].concat());
        let told = std::fs::read_to_string(&told).ok().map(Told);
        assert_eq!(told.is_some(), said.code == 0, "{said:?}");
        told
    }

    fn ping(&self, guest: &str, to: Ipv4Addr, more: &[&str]) -> Said {
        let to = to.to_string();
        let ping = ["ping", "-c", "3", "-i", "0.2", "-w", "20"];
        self.spaces
            .try_run(guest, &[&ping[..], more, &[&to]].concat())
    }
}

const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);

fn trouble(node: &Node) -> String {
    let status = node.ask(&["status", "--json"]).ok().json();
    status["trouble"].to_string()
}

fn count(node: &Node, name: &str) -> u64 {
    let status = node.ask(&["status", "--json"]).ok().json();
    status["counters"][name].as_u64().unwrap()
}

#[test]
fn machines_on_two_lans_get_addresses_and_reach_each_other_with_offloads() {
    let Some(bed) = Bed::new("lan") else {
        return;
    };
    let a = bed.node("a", "packet:eth-la");
    let b = bed.node("b", "packet:eth-lb");
    let (at_a, _) = (a.joined(), b.joined());
    assert_eq!(at_a["guest"], "packet eth-la");
    let ann = bed
        .ask("la", "eth-a", &["-x", "hostname:Ann"])
        .expect("a lease");
    let bob = bed
        .ask("lb", "eth-b", &["-x", "hostname:bob"])
        .expect("a lease");
    assert_ne!(ann.address(), bob.address());
    for told in [&ann, &bob] {
        assert_eq!(told.get("router"), "10.128.0.1");
        assert_eq!(told.get("dns"), "10.128.0.1");
        assert_eq!(told.get("serverid"), "10.128.0.1");
        assert_eq!(told.get("subnet"), "255.128.0.0");
        assert_eq!(told.get("broadcast"), "10.255.255.255");
        assert_eq!(told.get("mtu"), "1419");
        assert_eq!(told.get("lease"), "600");
        assert_eq!(told.get("domain"), "lab.internal");
    }
    bed.ping("la", GATEWAY, &[]).ok();
    bed.ping("la", bob.address(), &[]).ok();
    bed.ping("lb", ann.address(), &["-s", "1391", "-M", "do"])
        .ok();
    // Superpackets without checksums out of one kernel and into the other, both ways.
    check_stream(&bed.spaces, bob.address().into());

    let status = a.ask(&["status", "--json"]).ok().json();
    let guest = &status["lan"][0];
    assert_eq!(guest["address"], ann.get("ip"));
    assert_eq!(
        (&guest["name"], &guest["state"]),
        (&"ann".into(), &"bound".into())
    );
    assert_eq!(status["trouble"].as_array().unwrap().len(), 0, "{status}");
    let shown = a.ask(&["status"]).ok().out;
    assert!(
        shown.contains("(bound)") && shown.contains(ann.get("ip")),
        "{shown}"
    );
    // By its name the pool knows it, too.
    let found = b.ask(&["resolve", "ann", "--json"]).ok().json();
    assert_eq!(found["v4"], ann.get("ip"));
    // Both ends' addresses in the LAN are their guests' alone; asking again changes nothing.
    let again = bed.ask("la", "eth-a", &[]).expect("a lease");
    assert_eq!(again.address(), ann.address());
}

#[test]
fn without_offloads_the_same_stream_passes() {
    let Some(bed) = Bed::new("lan-plain") else {
        return;
    };
    let exec = |name: &str| bed.spaces.name(name).to_owned();
    let (space_a, space_b) = (exec("a"), exec("b"));
    let run = [
        "--listen",
        "0.0.0.0:4001",
        "--ticket",
        &bed.ticket,
        "--no-offload",
        "--guest",
    ];
    let start = |name: &str, space: &str, guest: &str| {
        let exec = ["ip", "netns", "exec", space];
        Node::start(&bed.pool, name, &exec, &[&run[..], &[guest]].concat())
    };
    let a = start("a", &space_a, "packet:eth-la");
    let b = start("b", &space_b, "packet:eth-lb");
    a.joined();
    b.joined();
    bed.ask("la", "eth-a", &[]).expect("a lease");
    let bob = bed.ask("lb", "eth-b", &[]).expect("a lease");
    check_stream(&bed.spaces, bob.address().into());
}

#[test]
fn a_tap_device_serves_what_is_on_its_other_end() {
    let Some(bed) = Bed::new("lan-tap") else {
        return;
    };
    let a = bed.node("a", "tap:lan0");
    let b = bed.node("b", "packet:eth-lb");
    a.joined();
    b.joined();
    // The device's other end may be anywhere: a bridge, or another namespace.
    ip(&[
        "-n",
        bed.spaces.name("a"),
        "link",
        "set",
        "lan0",
        "netns",
        bed.spaces.name("la"),
    ]);
    ip(&["-n", bed.spaces.name("la"), "link", "set", "lan0", "up"]);
    let ann = bed.ask("la", "lan0", &[]).expect("a lease");
    let bob = bed.ask("lb", "eth-b", &[]).expect("a lease");
    bed.ping("lb", ann.address(), &[]).ok();
    check_stream(&bed.spaces, bob.address().into());
}

#[test]
fn addresses_outlive_their_router_with_and_without_its_memory() {
    let Some(bed) = Bed::new("lan-again") else {
        return;
    };
    let a = bed.node("a", "packet:eth-la");
    let b = bed.node("b", "packet:eth-lb");
    a.joined();
    b.joined();
    let ann = bed.ask("la", "eth-a", &[]).expect("a lease");
    let bob = bed.ask("lb", "eth-b", &[]).expect("a lease");
    bed.ping("la", bob.address(), &[]).ok();

    // With its state the router knows its guest, which notices nothing.
    assert!(b.terminate().success());
    let mut b = bed.node("b", "packet:eth-lb");
    b.joined();
    b.until("the guest to be served without asking", |_| {
        bed.ping("lb", ann.address(), &["-c", "1"]).code == 0
    });
    let again = bed.ask("lb", "eth-b", &[]).expect("a lease");
    assert_eq!(again.address(), bob.address());

    // Another router, which has never heard of it: the guest says what it had.
    assert!(b.terminate().success());
    let b = bed.node("b2", "packet:eth-lb");
    b.joined();
    let again = bed
        .ask("lb", "eth-b", &["-r", bob.get("ip")])
        .expect("a lease");
    assert_eq!(again.address(), bob.address());
    bed.ping("la", bob.address(), &[]).ok();
}

#[test]
fn a_guest_that_spoofs_is_dropped_counted_and_named() {
    let Some(bed) = Bed::new("lan-spoof") else {
        return;
    };
    let mut a = bed.node("a", "packet:eth-la");
    let b = bed.node("b", "packet:eth-lb");
    a.joined();
    b.joined();
    let ann = bed.ask("la", "eth-a", &[]).expect("a lease");
    let bob = bed.ask("lb", "eth-b", &[]).expect("a lease");
    bed.ping("la", bob.address(), &[]).ok();
    bed.ping("la", GATEWAY, &[]).ok();

    let space = bed.spaces.name("la");
    let lie = Ipv4Addr::from(u32::from(ann.address()) ^ 1);
    ip(&[
        "-n",
        space,
        "addr",
        "add",
        &format!("{lie}/32"),
        "dev",
        "eth-a",
    ]);
    // As itself it knows the gateway's hardware address already.
    let said = bed.ping("la", GATEWAY, &["-I", &lie.to_string()]);
    assert_ne!(said.code, 0, "{said:?}");
    a.until("the guest to be named", |a| {
        let trouble = trouble(a);
        trouble.contains(&lie.to_string()) && trouble.contains("not leased to it")
    });
    assert!(count(&a, "drop_lan_spoofed") > 0);
    // Only that is lost.
    bed.ping("la", GATEWAY, &["-I", &ann.address().to_string()])
        .ok();
}

#[test]
fn a_network_card_that_goes_away_is_named_and_used_again_when_it_is_back() {
    let Some(bed) = Bed::new("lan-gone") else {
        return;
    };
    let mut a = bed.node("a", "packet:eth-la");
    a.joined();
    let ann = bed.ask("la", "eth-a", &[]).expect("a lease");
    bed.ping("la", GATEWAY, &[]).ok();

    ip(&["-n", bed.spaces.name("a"), "link", "set", "eth-la", "down"]);
    a.until("the card that is down to be named", |a| {
        trouble(a).contains("eth-la is down")
    });
    ip(&["-n", bed.spaces.name("a"), "link", "set", "eth-la", "up"]);
    a.until("the card to be used again", |a| {
        !trouble(a).contains("eth-la")
    });
    bed.ping("la", GATEWAY, &[]).ok();

    ip(&["-n", bed.spaces.name("a"), "link", "del", "eth-la"]);
    a.until("the card that is gone to be named", |a| {
        trouble(a).contains("no interface eth-la")
    });
    bed.spaces.link(["a", "la"], 1500);
    a.until("the card to be used again", |a| {
        !trouble(a).contains("eth-la")
    });
    let again = bed.ask("la", "eth-a", &[]).expect("a lease");
    assert_eq!(again.get("router"), ann.get("router"));
    bed.ping("la", GATEWAY, &[]).ok();
}
