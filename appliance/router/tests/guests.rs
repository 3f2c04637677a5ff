//! Machines that run none of this, on LANs behind two nodes: real kernels and a real DHCP client, in
//! network namespaces with veth pairs. Needs root.

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use support::spaces::{Spaces, check_stream, ip};
use support::{Node, PATIENCE, Pool, Said};

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
        for (program, package) in [
            ("udhcpc", "udhcpc"),
            ("dhclient", "isc-dhcp-client"),
            ("ping", "iputils-ping"),
        ] {
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
        self.node_with(name, guest, &[])
    }

    fn node_with(&self, name: &str, guest: &str, more: &[&str]) -> Node {
        let exec = ["ip", "netns", "exec", self.spaces.name(&name[..1])];
        let run = ["--listen", "0.0.0.0:4001", "--ticket", &self.ticket];
        let arguments = [&run[..], &["--guest", guest], more].concat();
        Node::start(&self.pool, name, &exec, &arguments)
    }

    /// Starts `a` with this guest, and `b` with packet sockets, and waits until both have joined.
    fn two(&self, guest: &str, more: &[&str]) -> [Node; 2] {
        let a = self.node_with("a", guest, more);
        let b = self.node_with("b", "packet:eth-lb", more);
        a.joined();
        b.joined();
        [a, b]
    }

    /// Has a guest ask for an address as its system would at boot; what it is told.
    fn ask(&self, guest: &str, device: &str, more: &[&str]) -> Option<Told> {
        let (script, told) = (self.pool.path("udhcpc.sh"), self.pool.path(guest));
        let text = format!(
            "#!/bin/sh\n\
             [ \"$1\" = bound ] || exit 0\n\
             env > {told}\n\
             ip -4 addr flush dev $interface\n\
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

    fn ping(&self, guest: &str, to: impl Into<IpAddr>, more: &[&str]) -> Said {
        let to = to.into().to_string();
        let ping = ["ping", "-c", "3", "-i", "0.2", "-w", "20"];
        self.spaces
            .try_run(guest, &[&ping[..], more, &[&to]].concat())
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "no {what} in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Has a guest ask for an IPv6 address as its system would when a router's advertisement says so, and take it.
fn ask_v6(bed: &Bed, guest: &str, device: &str) -> Ipv6Addr {
    let file = |kind: &str| bed.pool.path(&format!("{guest}.dhclient.{kind}"));
    let script = file("script");
    // What Debian's own does, without the name server, which is the whole machine's.
    let text = "#!/bin/sh\n\
                case $reason in\n\
                PREINIT6) ip link set $interface up ;;\n\
                BOUND6) ip -6 addr add $new_ip6_address/$new_ip6_prefixlen dev $interface ;;\n\
                esac\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (leases, pid) = (file("leases"), file("pid"));
    let files = ["-sf", &script, "-lf", &leases, "-pf", &pid];
    let client = ["dhclient", "-6", "-1", "-d"];
    // It speaks from the address that the link itself gives, once the kernel is sure of it.
    until("a link-local address", || {
        let shown = ["ip", "-6", "addr", "show", "dev", device, "scope", "link"];
        let shown = bed.spaces.run(guest, &shown).out;
        shown.contains("fe80::") && !shown.contains("tentative")
    });
    // It stays to renew the address, until it is told to go; then the address stays.
    let words = [&client[..], &files, &["-cf", "/dev/null", device]].concat();
    let mut command = std::process::Command::new("ip");
    let exec = ["netns", "exec", bed.spaces.name(guest)];
    let mut running = command
        .args(exec)
        .args(words)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut held = None;
    until("an address by DHCPv6 that nobody else has", || {
        let shown = [
            "ip", "-6", "-j", "addr", "show", "dev", device, "scope", "global",
        ];
        let shown = bed.spaces.run(guest, &shown).json();
        let found = shown.as_array().unwrap().iter().find_map(|device| {
            let info = device["addr_info"].as_array()?.first()?;
            // Others may not answer for it while the kernel asks.
            assert_ne!(info["dadfailed"], true, "{info}");
            let is_settled = info["tentative"] != true;
            is_settled.then(|| info["local"].as_str().unwrap().parse().unwrap())
        });
        held = found;
        held.is_some()
    });
    let _ = running.kill();
    let _ = running.wait();
    held.unwrap()
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
    let [a, b] = bed.two("packet:eth-la", &[]);
    assert_eq!(a.joined()["guest"], "packet eth-la");
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
fn by_ipv6_machines_get_addresses_and_reach_each_other_and_the_nodes_with_offloads() {
    let Some(bed) = Bed::new("lan-v6") else {
        return;
    };
    let [mut a, b] = bed.two("packet:eth-la", &[]);
    let pool = a.joined()["addresses"]["v6"].as_str().unwrap().to_owned();
    let pool: Ipv6Addr = pool.parse().unwrap();
    let prefix = Ipv6Addr::from_bits(pool.to_bits() >> 80 << 80);
    for (guest, device) in [("la", "eth-a"), ("lb", "eth-b")] {
        until("the router's advertisement", || {
            let routes = bed
                .spaces
                .run(guest, &["ip", "-6", "route", "show", "dev", device]);
            assert!(!routes.out.contains("default"), "{routes:?}");
            routes.out.contains(&format!("{prefix}/48 proto kernel"))
        });
    }
    // One that has IPv6 alone, and one that has both by one lease.
    let ann = ask_v6(&bed, "la", "eth-a");
    let bobs = bed
        .ask("lb", "eth-b", &["-x", "hostname:bob"])
        .expect("a lease");
    let bob = ask_v6(&bed, "lb", "eth-b");
    let twin = |v4: Ipv4Addr| Ipv6Addr::from_bits(prefix.to_bits() | u128::from(v4.to_bits()));
    assert_eq!(bob, twin(bobs.address()));
    let status = b.ask(&["status", "--json"]).ok().json();
    assert_eq!(status["lan"][0]["v6"], bob.to_string());

    let gateway = Ipv6Addr::from_bits(prefix.to_bits() | 1);
    bed.ping("la", gateway, &[]).ok();
    bed.ping("la", bob, &[]).ok();
    bed.ping("lb", ann, &["-s", "1371", "-M", "do"]).ok();
    check_stream(&bed.spaces, bob.into());
    // The routers' own addresses live on their stacks: for their guests, and for everybody else's.
    for node in [&a, &b] {
        let own = node.joined()["addresses"].clone();
        let address = |kind: &str| -> IpAddr { own[kind].as_str().unwrap().parse().unwrap() };
        bed.ping("la", address("v6"), &[]).ok();
    }
    let found = a.ask(&["resolve", "bob", "--json"]).ok().json();
    assert_eq!(found["v6"], bob.to_string());

    // From an address that is another's nothing passes, and who tries is named.
    let lie = twin(Ipv4Addr::from(u32::from(bobs.address()) ^ 1));
    let space = bed.spaces.name("la");
    let add = [
        "-n",
        space,
        "addr",
        "add",
        &format!("{lie}/128"),
        "dev",
        "eth-a",
        "nodad",
    ];
    ip(&add);
    let said = bed.ping("la", gateway, &["-I", &lie.to_string(), "-w", "3"]);
    assert_ne!(said.code, 0, "{said:?}");
    a.until("the guest to be named", |a| {
        trouble(a).contains(&lie.to_string())
    });
    assert!(count(&a, "drop_lan_spoofed") > 0);
    bed.ping("la", gateway, &["-I", &ann.to_string()]).ok();
}

#[test]
fn a_routers_own_address_answers_its_guests_and_the_pool() {
    let Some(bed) = Bed::new("lan-own") else {
        return;
    };
    let nodes = bed.two("packet:eth-la", &[]);
    bed.ask("la", "eth-a", &[]).expect("a lease");
    for node in &nodes {
        let own = node.joined()["addresses"]["v4"]
            .as_str()
            .unwrap()
            .to_owned();
        bed.ping("la", own.parse::<Ipv4Addr>().unwrap(), &[]).ok();
        let url = format!("http://{own}/api/v1/status");
        let said = bed
            .spaces
            .run("la", &["busybox", "wget", "-q", "-O", "-", &url]);
        assert_eq!(said.json()["addresses"]["v4"], own);
    }
    // The host has no IPv6 of its own on the card meanwhile, and has it again afterwards.
    let switch = || {
        let file = "/proc/sys/net/ipv6/conf/eth-la/disable_ipv6";
        bed.spaces.run("a", &["cat", file]).out
    };
    assert_eq!(switch(), "1\n");
    let [a, _b] = nodes;
    assert!(a.terminate().success());
    assert_eq!(switch(), "0\n");
}

#[test]
fn without_offloads_the_same_stream_passes() {
    let Some(bed) = Bed::new("lan-plain") else {
        return;
    };
    let _nodes = bed.two("packet:eth-la", &["--no-offload"]);
    bed.ask("la", "eth-a", &[]).expect("a lease");
    let bob = bed.ask("lb", "eth-b", &[]).expect("a lease");
    check_stream(&bed.spaces, bob.address().into());
}

#[test]
fn a_tap_device_serves_what_is_on_its_other_end() {
    let Some(bed) = Bed::new("lan-tap") else {
        return;
    };
    let _nodes = bed.two("tap:lan0", &[]);
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
    let [_a, b] = bed.two("packet:eth-la", &[]);
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
    let [mut a, _b] = bed.two("packet:eth-la", &[]);
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
fn frames_that_come_faster_than_they_are_read_are_counted() {
    let Some(bed) = Bed::new("lan-late") else {
        return;
    };
    let mut a = bed.node("a", "packet:eth-la");
    a.joined();
    bed.ask("la", "eth-a", &[]).expect("a lease");
    bed.ping("la", GATEWAY, &[]).ok();
    assert_eq!(count(&a, "drop_lan_lost"), 0);
    // More than the socket's buffer holds, while nobody reads.
    a.signal(rustix::process::Signal::STOP);
    let flood = ["-l", "8000", "-c", "8000", "-s", "1400", "-w", "2"];
    bed.ping("la", GATEWAY, &flood);
    a.signal(rustix::process::Signal::CONT);
    a.until("what was lost to be counted", |a| {
        count(a, "drop_lan_lost") > 0
    });
    bed.ping("la", GATEWAY, &[]).ok();
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
