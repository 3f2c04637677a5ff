//! The command line.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use ipnet::Ipv4Net;
use wow_overlay::membership::{NodeName, PoolName, Roles, SeedAddr, TicketLabel};

use crate::config::{GuestArg, GuestMtu, WorkstationRole};
use crate::services::Forward;

/// Wide-area overlay for clusters of virtual machines.
#[derive(Debug, Parser)]
#[command(
    name = "wow",
    version,
    about,
    after_help = "A first pool:\n  \
                  wow pool new lab --seed seed.example.org:4001\n  \
                  wow pool ticket lab.pool --out lab.ticket\n  \
                  wow run --ticket lab.ticket        (as root, on each machine)\n  \
                  wow peers; wow ping NAME\n\n\
                  Exit codes: 0 done, 1 failed, 2 wrong usage, 3 ticket or certificate refused."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,

    /// What to log on stderr: a level, or TARGET=LEVEL pairs separated by commas
    #[arg(long, global = true, env = "WOW_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// The node's control socket, or the Unix socket of a virtual machine's control port
    /// [default: /run/wow/control.sock, or one below $XDG_RUNTIME_DIR]
    #[arg(long, global = true, env = "WOW_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Join a pool and stay in it until told to stop
    Run(Box<RunArgs>),
    /// Boot the appliance as process 1, then join the configured pool
    Init,
    /// Make a pool and issue tickets for it
    #[command(subcommand)]
    Pool(PoolVerb),
    /// Look at a ticket
    #[command(subcommand)]
    Ticket(TicketVerb),
    /// Show how the running node is
    Status(ClientArgs),
    /// Show the nodes that the running node has sessions with
    Peers(ClientArgs),
    /// Send echo requests to a node over the overlay
    Ping(PingArgs),
    /// Wait until the running node has joined its pool
    Wait(WaitArgs),
    /// Show who holds a virtual IPv6 address, by the certificate of the session with it
    Whois(WhoisArgs),
    /// Offer a service to the pool, or cease to
    #[command(subcommand)]
    Service(ServiceVerb),
    /// Tell the running node of trouble on this machine, for `wow status`
    #[command(subcommand)]
    Trouble(TroubleVerb),
    /// Look at the machine's configuration
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Find the node behind a name, an address or an id
    Resolve(ResolveArgs),
    /// Show the virtual addresses that the running node leases
    Leases(ClientArgs),
    /// Look into the pool's distributed table
    #[command(subcommand)]
    Dht(DhtVerb),
    /// Spread a revocation that `wow pool revoke --out` has written
    Revoke(RevokeArgs),
    /// Follow the way that frames take to a node over the overlay
    Trace(TraceArgs),
    /// Ask every node for its links, and draw the ring
    Map(MapArgs),
    /// Replace the version of a running appliance; it goes back by itself if the new one does not join
    ///
    /// The image is written to that slot of the machine's disk which does not run, and booted once. If the node
    /// joins its pool in time it stays; if not, or if it stops, the earlier version runs again.
    Update(UpdateArgs),
    /// Print a shell's completions for this program
    #[cfg(feature = "completions")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `wow pool`.
#[derive(Debug, Subcommand)]
pub enum PoolVerb {
    /// Create a pool: its authority's key, address range and seeds, in NAME.pool (mode 0600)
    ///
    /// The file can make members of anybody. Keep it off the nodes; they get tickets.
    New {
        /// The pool's name: lower-case letters, digits and '-'
        name: PoolName,
        /// The virtual IPv4 range; must not overlap networks that the nodes live in
        #[arg(long, default_value_t = wow_overlay::membership::pool::DEFAULT_RANGE)]
        range: Ipv4Net,
        /// A node to join by, HOST:PORT or tcp:HOST:PORT; may be repeated
        #[arg(long = "seed", value_name = "HOST:PORT")]
        seeds: Vec<SeedAddr>,
        /// Where to write NAME.pool
        #[arg(long, default_value = ".", value_name = "DIR")]
        dir: PathBuf,
    },
    /// Issue a ticket, with which machines become members (written with mode 0600)
    Ticket {
        /// The pool's file
        pool: PathBuf,
        /// The roles that nodes may take, separated by commas: router, worker, head, login
        #[arg(long, default_value = "router,worker")]
        roles: Roles,
        /// How long the ticket holds, for example 30d or 12h
        #[arg(long, default_value = "30d", value_parser = duration, value_name = "SPAN")]
        expires: Duration,
        /// A note in the ticket, to tell tickets apart: lower-case letters, digits and '-'
        #[arg(long)]
        label: Option<TicketLabel>,
        /// Where to write the ticket; '-' is standard output [default: POOL.ticket beside the pool's file]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// End the membership of a node, or of every node of a ticket, for ever
    ///
    /// A node can come back with a new identity as long as it has a ticket that holds: revoke that too.
    Revoke {
        /// The pool's file
        pool: PathBuf,
        /// A node's name, virtual address or id; or a ticket's file or id
        #[arg(value_name = "NODE|TICKET")]
        target: String,
        /// Write the revocation here instead of telling the running node; '-' is standard output
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show a pool's public facts
    Show {
        /// The pool's file
        pool: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `wow ticket`.
#[derive(Debug, Subcommand)]
pub enum TicketVerb {
    /// Show what a ticket says, without its secrets
    Show {
        /// The ticket's file; '-' is standard input
        ticket: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// `wow run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The ticket's file; '-' is standard input
    #[arg(long, value_name = "FILE")]
    pub ticket: Option<PathBuf>,
    /// Where the node keeps its identity [default: /var/lib/wow, or ~/.local/state/wow]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// The node's name in the pool [default: the host's name]
    #[arg(long)]
    pub name: Option<NodeName>,
    /// What a workstation is: head, worker or login, among those that the ticket allows
    #[arg(long)]
    pub role: Option<WorkstationRole>,
    /// The address and UDP port to listen on; '[::]' stands for IPv4 and IPv6, port 0 for any
    /// [default: [::]:0]
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// A TCP port to listen on too, for nodes that cannot use UDP; may be repeated. 443 passes most
    /// firewalls, 0 takes any; others join by `tcp:HOST:443`
    #[arg(long, value_name = "PORT")]
    pub tcp_listen: Vec<u16>,
    /// A node to join by besides those of the ticket, `tcp:HOST:PORT` over TCP; may be repeated
    #[arg(long = "seed", value_name = "HOST:PORT")]
    pub seeds: Vec<SeedAddr>,
    /// Who takes part: this machine by a TUN device (tun), the machines behind one of its network cards
    /// (packet:IFACE; or virtio:PCI-ADDRESS or virtio:IFACE, where the card is driven from here) or behind a
    /// TAP device (tap:NAME), or no device (none), which needs no root: then the node itself answers at its
    /// address, and --socks and --forward lead into the pool [default: tun]
    #[arg(long, value_name = "KIND")]
    pub guest: Option<GuestArg>,
    /// The TUN device's name [default: wow0]
    #[arg(long, value_name = "NAME")]
    pub tun: Option<String>,
    /// A fixed virtual IPv4 address, instead of one derived from the node's id
    #[arg(long, value_name = "IPV4")]
    pub address: Option<Ipv4Addr>,
    /// The guest's MTU: up to 8939 bytes, for an underlay of 9000
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<GuestMtu>,
    /// Do not look for members on the local networks
    #[arg(long)]
    pub no_lan: bool,
    /// Do not ask the gateway to map ports (PCP, NAT-PMP)
    #[arg(long)]
    pub no_port_mapping: bool,
    /// Move every packet by itself: for kernels and cards that damage those taken together
    #[arg(long)]
    pub no_offload: bool,
    /// A DNS server, ADDRESS or ADDRESS:PORT, that the control address forwards queries about names
    /// outside the pool to; may be repeated. Without one they are refused
    #[arg(long, value_name = "ADDRESS", value_parser = crate::config::dns_server)]
    pub dns: Vec<SocketAddr>,

    /// Whether members get this host's time: as its kernel says whether the clock is kept, always because you
    /// vouch for it, or never (default host).
    #[arg(long, value_name = "WHEN")]
    pub give_time: Option<crate::timekeeping::GiveTime>,
    /// With --guest none: a SOCKS5 server here, by which programs of this host reach the pool
    #[arg(long, value_name = "ADDR:PORT")]
    pub socks: Option<SocketAddr>,
    /// With --guest none: a TCP port that leads into the pool (127.0.0.1:8080=NODE:80), or one of this
    /// node in the pool that leads out of it (pool:8080=127.0.0.1:80); may be repeated
    #[arg(long = "forward", value_name = "LISTEN=TARGET")]
    pub forwards: Vec<Forward>,
    /// Let other machines connect to --socks and --forward: whoever reaches them reaches the pool
    #[arg(long)]
    pub gateway_for_all: bool,
    /// Go on although the pool's range overlaps a route of this host
    #[arg(long)]
    pub allow_overlap: bool,
    /// A TOML file with the same settings; options given here win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Take all of it from where appliances do: `wow.KEY=` on the kernel's command line, QEMU's
    /// fw_cfg `opt/wow/KEY`, VMware's guestinfo, a disk labelled WOW or cidata, /var/lib/wow/wow.toml,
    /// /etc/wow.toml; wait until there is a ticket
    #[arg(long, conflicts_with_all = [
        "ticket", "name", "listen", "tcp_listen", "seeds", "guest", "tun", "address", "no_lan",
        "no_port_mapping", "allow_overlap", "config", "dns", "give_time", "socks", "forwards", "gateway_for_all",
    ])]
    pub from_machine: bool,
}

/// What every verb toward a running node takes.
#[derive(Debug, Clone, Copy, Args)]
pub struct ClientArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `wow ping`.
#[derive(Debug, Args)]
pub struct PingArgs {
    /// A node's name, virtual address or id
    pub node: String,
    /// How many requests to send
    #[arg(long, short, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// The pause between two requests
    #[arg(long, short, default_value = "1s", value_parser = duration, value_name = "SPAN")]
    pub interval: Duration,
    /// How long to wait for each answer
    #[arg(long, default_value = "5s", value_parser = duration, value_name = "SPAN")]
    pub timeout: Duration,
    /// Ask the node's router by the overlay's own echo, instead of its guest by ICMP
    #[arg(long)]
    pub overlay: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow wait`.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// How long to wait
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "SPAN")]
    pub timeout: Duration,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow dht`.
#[derive(Debug, Subcommand)]
pub enum DhtVerb {
    /// Show the record of a key
    Get {
        /// A name, a virtual IPv4 address, or service:NAME
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// `wow revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// The revocation's file; '-' is standard input
    pub revocation: PathBuf,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow whois`.
#[derive(Debug, Args)]
pub struct WhoisArgs {
    /// The address; IPv4 addresses are leased and prove nothing: see `wow resolve`
    pub address: Ipv6Addr,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow service`.
#[derive(Debug, Subcommand)]
pub enum ServiceVerb {
    /// Offer a service until the node stops or withdraws it; found by `wow dht get service:NAME`
    Offer {
        /// Its name; one that is called like a role is for nodes with that role
        name: String,
        /// What others read, of at most 128 bytes
        value: String,
    },
    /// Cease to offer a service
    Withdraw {
        /// Its name
        name: String,
    },
}

/// `wow trouble`.
#[derive(Debug, Subcommand)]
pub enum TroubleVerb {
    /// Replace what a program has told before
    Set {
        /// The program
        from: String,
        /// What is wrong and what to do about it, a sentence each
        #[arg(required = true)]
        sentences: Vec<String>,
    },
    /// What a program has told is over
    Clear {
        /// The program
        from: String,
    },
}

/// `wow config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Show which value came from where, and what it won against; secrets are not shown
    Show(ConfigShowArgs),
}

/// `wow config show`.
#[derive(Debug, Args)]
pub struct ConfigShowArgs {
    /// Read this machine's own sources now, instead of asking the running node what it took
    #[arg(long)]
    pub machine: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow resolve`.
#[derive(Debug, Args)]
pub struct ResolveArgs {
    /// A node's name, virtual address or id
    pub node: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A node's name, virtual address or id
    pub node: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow map`.
#[derive(Debug, Args)]
pub struct MapArgs {
    /// Draw the ring into this file
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Ask no more nodes than this
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max: u32,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// `wow update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The kernel that `cargo xtask image router` makes: target/images/router/bzImage
    #[arg(required_unless_present = "status", conflicts_with = "status")]
    pub image: Option<PathBuf>,
    /// How long after its start the new version may take to join the pool
    #[arg(long, default_value = "2m", value_parser = duration, value_name = "SPAN")]
    pub within: Duration,
    /// Refuse the image unless this is its SHA-256
    #[arg(long, value_name = "HEX")]
    pub sha256: Option<String>,
    /// Do not wait for what becomes of it
    #[arg(long)]
    pub no_wait: bool,
    /// Show the slots, their versions, and what became of the last update
    #[arg(long)]
    pub status: bool,
    #[command(flatten)]
    pub client: ClientArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write for example 500ms, 30s, 12h or 30d"))?;
    if span.is_zero() {
        return Err("must be longer than nothing".into());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn malformed_values_are_refused_with_a_remedy() {
        let check = |arguments: &[&str], hint: &str| {
            let error = Cli::try_parse_from(arguments)
                .expect_err("refused")
                .to_string();
            assert!(error.contains(hint), "{error}");
        };
        check(&["wow", "pool", "new", "Bad Name"], "a-z");
        check(
            &["wow", "pool", "new", "lab", "--seed", "nowhere"],
            "HOST:PORT",
        );
        check(
            &["wow", "pool", "ticket", "x.pool", "--expires", "soon"],
            "30d",
        );
        check(
            &["wow", "pool", "ticket", "x.pool", "--roles", "king"],
            "router",
        );
        check(&["wow", "ping", "n", "--count", "0"], "1..=1000");
        check(&["wow", "run", "--listen", "4001"], "socket address");
    }
}
