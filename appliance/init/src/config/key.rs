//! The keys of the appliance's configuration.

/// A key that sources may hold.
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    /// As it is written, without the prefix of its source.
    pub name: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// What it is, in a few words.
    pub help: &'static str,
}

const fn key(name: &'static str, help: &'static str) -> Key {
    Key {
        name,
        secret: false,
        help,
    }
}

/// All keys.
pub const KEYS: &[Key] = &[
    Key {
        name: "ticket",
        secret: true,
        help: "the pool's ticket, as `wow pool ticket` prints it",
    },
    key("name", "this node's name"),
    key(
        "role",
        "what the workstation is: head, worker or login, among those that the ticket allows",
    ),
    key(
        "listen",
        "the underlay's UDP address and port, such as 0.0.0.0:4001",
    ),
    key(
        "tcp-listen",
        "TCP ports to listen on too, separated by commas",
    ),
    key(
        "seeds",
        "more seeds, HOST:PORT or tcp:HOST:PORT, separated by commas",
    ),
    key("address", "a fixed virtual IPv4 address"),
    key(
        "guest",
        "who takes part: tun, packet or packet:IFACE (machines behind the second or another network \
         card), virtio or virtio:CARD (the same, driven from here), tap:NAME, or none",
    ),
    key(
        "dns",
        "DNS servers asked about names outside the pool, ADDRESS or ADDRESS:PORT, separated by commas",
    ),
    key(
        "socks",
        "with guest none, a SOCKS5 server that leads into the pool, ADDRESS:PORT",
    ),
    key(
        "forward",
        "with guest none, TCP ports that lead into the pool (ADDRESS:PORT=NODE:PORT) or out of it \
         (pool:PORT=ADDRESS:PORT), separated by commas",
    ),
    key(
        "gateway-for-all",
        "on or off: let other machines connect to socks and forward",
    ),
    key("port-mapping", "on or off: ask the gateway to map ports"),
    key("lan", "on or off: look for members on the local networks"),
    key(
        "offload",
        "on or off: let kernel and cards take many packets as one",
    ),
    key("mtu", "the guest's MTU: 1280 to 8939 bytes"),
    key("net", "dhcp, none, or static:ADDRESS/PREFIX,GATEWAY[,DNS…]"),
    key(
        "time",
        "time servers, HOST or HOST:PORT, separated by commas",
    ),
    key("syslog", "a syslog server, HOST or HOST:PORT (UDP 514)"),
    key("log", "a filter for log messages, such as info or debug"),
    key(
        "hostname",
        "the machine's host name, if it is not to be `name`",
    ),
];
