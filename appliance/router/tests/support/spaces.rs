//! Network namespaces with links between them, and streams through the nodes in them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::process::Command;
use std::thread::{self, JoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{PATIENCE, Said, finish};

/// Many superpackets.
const STREAM_BYTES: usize = 6 << 20;

/// Two namespaces, `a` at 192.0.2.1 and `b` at 192.0.2.2. Removed when dropped.
pub struct Spaces(pub Vec<String>);

impl Spaces {
    /// With a veth pair between them, `mtu` bytes wide. `None`, with a message, where they cannot be made.
    pub fn new(label: &str, mtu: u16) -> Option<Self> {
        let spaces = Spaces::made(label, &["a", "b"])?;
        spaces.link(["a", "b"], mtu);
        spaces.address("a", "eth-b", "192.0.2.1/24");
        spaces.address("b", "eth-a", "192.0.2.2/24");
        Some(spaces)
    }

    /// With a router between them, whose link to `b` is `mtu` bytes wide. All others are 1500.
    pub fn routed(label: &str, mtu: u16) -> Option<Self> {
        let spaces = Spaces::made(label, &["a", "b", "r"])?;
        for (end, address, router) in [
            ("a", "192.0.2.1/25", "192.0.2.126/25"),
            ("b", "192.0.2.130/25", "192.0.2.254/25"),
        ] {
            spaces.link([end, "r"], 1500);
            spaces.address(end, "eth-r", address);
            spaces.address("r", &format!("eth-{end}"), router);
            let via = router.trim_end_matches("/25");
            ip(&[
                "-n",
                spaces.name(end),
                "route",
                "add",
                "default",
                "via",
                via,
            ]);
        }
        let forward = ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        spaces.run("r", &forward);
        spaces.set_mtu("r", "eth-b", mtu);
        Some(spaces)
    }

    /// Two nodes as in [`Spaces::new`], and behind each a LAN with one machine: `la` and `lb`. These come
    /// first, so streams go between them.
    pub fn with_lans(label: &str) -> Option<Self> {
        let spaces = Spaces::made(label, &["la", "lb", "a", "b"])?;
        for ends in [["a", "b"], ["a", "la"], ["b", "lb"]] {
            spaces.link(ends, 1500);
        }
        spaces.address("a", "eth-b", "192.0.2.1/24");
        spaces.address("b", "eth-a", "192.0.2.2/24");
        Some(spaces)
    }

    fn made(label: &str, ends: &[&str]) -> Option<Self> {
        let root = rustix::process::geteuid().is_root();
        if !root || !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: namespaces with TUN devices need root and /dev/net/tun");
            return None;
        }
        let name = |end: &&str| format!("wow-{end}-{label}-{}", std::process::id());
        let spaces = Spaces(ends.iter().map(name).collect());
        for space in &spaces.0 {
            ip(&["netns", "add", space]);
            ip(&["-n", space, "link", "set", "lo", "up"]);
        }
        Some(spaces)
    }

    /// The namespace's name.
    pub fn name(&self, end: &str) -> &str {
        let start = format!("wow-{end}-");
        self.0.iter().find(|name| name.starts_with(&start)).unwrap()
    }

    /// Joins two of them by a veth pair, whose ends are called by the namespace at the other.
    pub fn link(&self, [one, other]: [&str; 2], mtu: u16) {
        let (device, far) = (format!("eth-{other}"), format!("eth-{one}"));
        let link = ["-n", self.name(one), "link", "add", &device, "type", "veth"];
        let peer = ["peer", "name", &far, "netns", self.name(other)];
        ip(&[&link[..], &peer].concat());
        self.set_mtu(one, &device, mtu);
        self.set_mtu(other, &far, mtu);
    }

    /// Makes a device so wide, and brings it up.
    pub fn set_mtu(&self, end: &str, device: &str, mtu: u16) {
        let mtu = mtu.to_string();
        ip(&[
            "-n",
            self.name(end),
            "link",
            "set",
            device,
            "mtu",
            &mtu,
            "up",
        ]);
    }

    fn address(&self, end: &str, device: &str, address: &str) {
        ip(&["-n", self.name(end), "addr", "add", address, "dev", device]);
    }

    /// Runs a command in a namespace.
    pub fn run(&self, end: &str, command: &[&str]) -> Said {
        self.try_run(end, command).ok()
    }

    /// Runs a command in a namespace that may fail.
    pub fn try_run(&self, end: &str, command: &[&str]) -> Said {
        let prefix = ["netns", "exec", self.name(end)];
        finish(Command::new("ip").args([&prefix[..], command].concat()))
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in &self.0 {
            finish(Command::new("ip").args(["netns", "del", space]));
        }
    }
}

pub fn ip(arguments: &[&str]) {
    finish(Command::new("ip").args(arguments)).ok();
}

/// Runs `work` on a thread inside a namespace.
pub fn inside<T: Send + 'static>(
    space: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let space = std::fs::File::open(format!("/run/netns/{space}")).unwrap();
    thread::spawn(move || {
        move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        work()
    })
}

/// Bytes that tell where they belong.
pub fn pattern(length: usize) -> Vec<u8> {
    let words = (0..length.div_ceil(4) as u32).map(|n| n.wrapping_mul(2_654_435_761));
    let mut bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
    bytes.truncate(length);
    bytes
}

/// A stream there and back.
pub fn check_stream(spaces: &Spaces, to: IpAddr) {
    let (told, port) = std::sync::mpsc::channel();
    let server = inside(&spaces.0[1], move || {
        let listener = TcpListener::bind((to, 0)).unwrap();
        told.send(listener.local_addr().unwrap()).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut bytes = vec![0; STREAM_BYTES];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
    });
    let at: SocketAddr = port.recv_timeout(PATIENCE).unwrap();
    let client = inside(&spaces.0[0], move || {
        let mut stream = TcpStream::connect_timeout(&at, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = pattern(STREAM_BYTES);
        stream.write_all(&sent).unwrap();
        let mut came = Vec::new();
        stream.read_to_end(&mut came).unwrap();
        assert!(came == sent, "{} bytes came back changed", came.len());
    });
    server.join().unwrap();
    client.join().unwrap();
}
