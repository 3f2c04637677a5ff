//! A node behind a real gateway: Debian's miniupnpd over nftables, in a network namespace. Needs root.

mod support;

use std::process::{Child, Command, Stdio};

use support::{Node, Pool, Said, finish};

/// What the kernel does without miniupnpd: translation to random ports, and nothing let in.
const RULES: &str = "
table inet filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname lan accept
        jump miniupnpd
    }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        jump postrouting_miniupnpd
        oifname wan masquerade random
    }
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
";

/// A home at 192.168.77.2, its gateway, and the internet at 20.1.0.2. Removed when dropped.
struct Home {
    inside: String,
    gateway: String,
    outside: String,
    daemon: Option<Child>,
}

fn ip(arguments: &[&str]) -> Said {
    finish(Command::new("ip").args(arguments))
}

fn is_there(program: &str) -> bool {
    let there = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .output();
    there.is_ok_and(|output| output.status.success())
}

impl Home {
    /// `None`, with a message, where it cannot be made.
    fn new(label: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("miniupnpd", "miniupnpd-nftables"),
        ] {
            if !is_there(program) {
                eprintln!("skipped: the program `{program}` is missing (package {package})");
                return None;
            }
        }
        let name = |which| format!("wow-{which}-{label}-{}", std::process::id());
        let home = Home {
            inside: name("in"),
            gateway: name("gw"),
            outside: name("out"),
            daemon: None,
        };
        let (inside, gateway, outside) = (&home.inside, &home.gateway, &home.outside);
        for space in [inside, gateway, outside] {
            ip(&["netns", "add", space]).ok();
            ip(&["-n", space, "link", "set", "lo", "up"]).ok();
        }
        for (at_gateway, space) in [("lan", inside), ("wan", outside)] {
            let peer = ["peer", "name", "eth0", "netns", space];
            let link = ["-n", gateway, "link", "add", at_gateway, "type", "veth"];
            ip(&[&link[..], &peer[..]].concat()).ok();
        }
        for (space, device, address) in [
            (inside, "eth0", "192.168.77.2/24"),
            (gateway, "lan", "192.168.77.1/24"),
            // miniupnpd refuses addresses that are set aside for examples.
            (gateway, "wan", "20.1.0.1/24"),
            (outside, "eth0", "20.1.0.2/24"),
        ] {
            ip(&["-n", space, "addr", "add", address, "dev", device]).ok();
            ip(&["-n", space, "link", "set", device, "up"]).ok();
        }
        ip(&[
            "-n",
            inside,
            "route",
            "add",
            "default",
            "via",
            "192.168.77.1",
        ])
        .ok();
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        ip(&["netns", "exec", gateway, "sh", "-c", forward]).ok();
        Some(home)
    }

    /// Starts the gateway's daemon, which maps from the port `first` on.
    fn serve(&mut self, pool: &Pool, options: &str, first: u16) {
        let rules = pool.path("rules.nft");
        std::fs::write(&rules, RULES).unwrap();
        ip(&["netns", "exec", &self.gateway, "nft", "-f", &rules]).ok();
        let (configuration, leases) = (pool.path("miniupnpd.conf"), pool.path("leases"));
        let text = format!(
            "ext_ifname=wan\nlistening_ip=lan\nhttp_port=0\nsecure_mode=yes\nlease_file={leases}\n\
             uuid=00000000-0000-0000-0000-0000000000aa\n{options}\n\
             allow {first}-65535 192.168.77.0/24 1024-65535\n\
             deny 0-65535 0.0.0.0/0 0-65535\n"
        );
        std::fs::write(&configuration, text).unwrap();
        std::fs::write(&leases, "").unwrap();
        let pid = pool.path("miniupnpd.pid");
        let daemon = Command::new("ip")
            .args(["netns", "exec", &self.gateway, "miniupnpd", "-d"])
            .args(["-f", &configuration, "-P", &pid])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.daemon = Some(daemon);
    }

    /// The ports that are passed on.
    fn mapped(&self) -> String {
        let chain = ["list", "chain", "inet", "filter", "prerouting_miniupnpd"];
        let exec = ["netns", "exec", &self.gateway, "nft"];
        let listed = ip(&[&exec[..], &chain[..]].concat()).ok().out;
        let mapped = listed.lines().filter(|line| line.contains("dnat"));
        mapped.collect::<Vec<_>>().join("\n")
    }

    /// The outside port that leads to `inside`.
    fn external(&self, inside: &str) -> u16 {
        let mapped = self.mapped();
        let line = mapped.lines().find(|line| line.ends_with(inside)).unwrap();
        let (_, port) = line.split_once("dport ").unwrap();
        port.split_whitespace().next().unwrap().parse().unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            // It may have ended already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for space in [&self.inside, &self.gateway, &self.outside] {
            // One may be missing when another could not be made.
            ip(&["netns", "del", space]);
        }
    }
}

/// A node behind the gateway is reached by ports that it asked for, and leaves none behind.
fn check(label: &str, options: &str, first: u16) {
    let Some(mut home) = Home::new(label) else {
        return;
    };
    let pool = Pool::new(&["--seed", "20.1.0.2:6001"]);
    let ticket = pool.ticket("n.ticket", &[]);
    home.serve(&pool, options, first);
    let run = [
        "--guest",
        "none",
        "--listen",
        "0.0.0.0:6001",
        "--ticket",
        &ticket,
    ];
    let prefix = |space| ["ip", "netns", "exec", space];
    let outside = Node::start(&pool, "outside", &prefix(&*home.outside), &run);
    let more = ["--tcp-listen", "6443"];
    let run = [&run[..], &more[..]].concat();
    let mut inside = Node::start(&pool, "inside", &prefix(&*home.inside), &run);
    inside.until("mapped ports", |_| {
        let mapped = home.mapped();
        let all = ["192.168.77.2:6001", "192.168.77.2:6443"];
        all.iter().all(|port| mapped.contains(port))
    });
    // From the internet, unasked.
    let tcp = home.external("192.168.77.2:6443");
    assert_eq!(tcp == 6443, first <= 6443, "{tcp}");
    let connect = format!("timeout 30 bash -c 'exec 3<>/dev/tcp/20.1.0.1/{tcp}'");
    let exec = ["netns", "exec", &home.outside, "sh", "-c", &connect];
    ip(&exec).ok();
    let udp = format!("external: 20.1.0.1:{}", home.external("192.168.77.2:6001"));
    inside.until("the mapped address", |node| node.log().contains(&udp));
    assert!(outside.joined()["joined"].as_bool().unwrap());
    assert!(inside.terminate().success());
    assert_eq!(home.mapped(), "", "given back");
}

/// Settings of the gateway's daemon.
const UPNP_1: &str = "enable_upnp=yes\nenable_natpmp=no\nforce_igd_desc_v1=yes";
const UPNP_2: &str = "enable_upnp=yes\nenable_natpmp=no\nforce_igd_desc_v1=no";
const PCP: &str = "enable_upnp=no\nenable_natpmp=yes";

#[test]
fn ports_are_mapped_by_upnp_version_1() {
    check("v1", UPNP_1, 1024);
}

#[test]
fn ports_are_mapped_by_upnp_version_2() {
    check("v2", UPNP_2, 1024);
}

#[test]
fn ports_that_the_gateway_keeps_to_itself_are_mapped_from_others() {
    check("taken", UPNP_1, 10_000);
}

#[test]
fn ports_are_mapped_by_pcp() {
    check("pcp", PCP, 1024);
}
