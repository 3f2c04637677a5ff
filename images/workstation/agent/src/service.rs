//! The head's service for members: the key, who is who, the users.
//!
//! Who asks is proven by its IPv6 address in the pool: it follows from the node's id, and the daemon lets
//! no other node send from it. The session with that node names its certified roles. That it is root who
//! asks, and none of the member's users, is proven by a port below 1024.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::daemon::{Daemon, Node};
use crate::exchange::{
    ANSWER_BYTES_MAX, Answer, Kind, PORT, REQUEST_BYTES_MAX, Reply, Request, Secret,
};
use crate::hosts::{self, Host};
use crate::roster::{Roster, Signed};
use crate::slurm::{self, Nodes};
use crate::stream;
use crate::users::Users;
use crate::{nfs, roster, ssh};

/// Members that are answered at once; others are turned away, and come again.
const CONNECTIONS_MAX: usize = 32;

/// How long one may take.
const CONVERSATION_MAX: Duration = Duration::from_secs(20);

/// Ports that only root may use.
const ROOT_PORTS: std::ops::Range<u16> = 1..1024;

/// Roles that have a part in the pool's work.
const SERVED: [&str; 3] = ["worker", "login", "head"];

/// What the head knows.
pub struct Shared {
    /// Its daemon.
    pub daemon: Daemon,
    /// Slurm's key.
    pub key: Secret,
    /// The authority of SSH hosts.
    pub authority: String,
    /// Whether directories are exported.
    pub nfs: bool,
    /// What changes.
    pub facts: Mutex<Facts>,
    /// Its members.
    pub roster: Mutex<Roster>,
    /// Held by who writes what [`Shared::make_known`] writes.
    pub files: Mutex<()>,
}

/// What the head has found out last.
pub struct Facts {
    /// The pool's name.
    pub pool: String,
    /// Itself.
    pub head: Host,
    /// Its users.
    pub users: Users,
    /// Its nodes.
    pub nodes: Nodes,
}

/// A lock; a thread that panicked left nothing half done in what these hold.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Makes the members known on this machine: by their names, and to the file server.
    pub fn make_known(&self) -> Result<()> {
        let _alone = lock(&self.files);
        let (pool, own) = {
            let facts = lock(&self.facts);
            (facts.pool.clone(), facts.head.clone())
        };
        let members = lock(&self.roster).hosts();
        hosts::write(&pool, &own, &members)?;
        if self.nfs {
            let addresses: Vec<_> = members.iter().map(|host| host.address).collect();
            nfs::export(own.address, &addresses)
                .context("/home and /shared are not exported to the pool")?;
        }
        Ok(())
    }
}

/// Listens on the head's address for ever.
pub fn start(shared: Arc<Shared>, address: Ipv6Addr) -> Result<()> {
    let listener = TcpListener::bind((address, PORT))
        .with_context(|| format!("cannot listen for members at [{address}]:{PORT}"))?;
    let busy = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new()
        .name("service".into())
        .spawn(move || {
            loop {
                match listener.accept() {
                    Ok((stream, SocketAddr::V6(from))) => converse(&shared, &busy, stream, from),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a member");
                        // Out of descriptors or memory: others' ends make room.
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

fn converse(shared: &Arc<Shared>, busy: &Arc<AtomicUsize>, stream: TcpStream, from: SocketAddrV6) {
    if !ROOT_PORTS.contains(&from.port()) {
        tracing::warn!(%from, "turned away who is not root");
        return;
    }
    if busy.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
        busy.fetch_sub(1, Ordering::Relaxed);
        tracing::warn!(%from, "too many members at once");
        return;
    }
    let (shared, done) = (Arc::clone(shared), Arc::clone(busy));
    let started = std::thread::Builder::new().spawn(move || {
        if let Err(error) = serve(&shared, stream, from) {
            tracing::debug!(%from, "{error:#}");
        }
        done.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(shared: &Shared, mut stream: TcpStream, from: SocketAddrV6) -> Result<()> {
    let deadline = Instant::now() + CONVERSATION_MAX;
    let node = shared.daemon.whois(*from.ip())?;
    let line = stream::read_line(&mut stream, REQUEST_BYTES_MAX, deadline)?;
    let reply: Reply = if SERVED.iter().any(|role| node.roles.has(role)) {
        let request: Request = serde_json::from_slice(&line).context("a malformed request")?;
        answer(shared, &node, &request)
    } else {
        tracing::warn!(name = node.name, id = node.id, "turned away without a role");
        Err("this machine is certified for no role of a workstation".into())
    };
    let line = serde_json::to_vec(&reply)?;
    stream::write_line(&mut stream, &line, deadline)?;
    Ok(())
}

fn answer(shared: &Shared, node: &Node, request: &Request) -> Reply {
    if request.kind == Kind::Leaving {
        return Err(leave(shared, node, &request.host));
    }
    // The pool is asked before anything is locked.
    let address = shared.daemon.resolve(&node.v4.to_string()).ok();
    let address = address
        .filter(|holder| holder.id == node.id)
        .map(|_| node.v4);
    let (pool, head) = {
        let facts = lock(&shared.facts);
        (facts.pool.clone(), facts.head.clone())
    };
    let host = &request.host;
    let (wanted, started_again, news) = {
        let mut roster = lock(&shared.roster);
        let member = roster.admit(node, host, &head.name, Instant::now())?;
        // One that is not certain any more was given to somebody else, or the pool does not answer.
        let known = member.address;
        member.address = address.or(known.filter(|known| *known == node.v4));
        let news = member.address != known;
        let good = |signed: &Signed| {
            Some(&signed.key) == request.host_key.as_ref()
                && signed.address == member.address
                && signed.made.elapsed() < ssh::RENEW
        };
        let kept = member.certificate.clone().filter(good);
        let before = std::mem::replace(&mut member.boot, request.boot.clone());
        let again = !before.is_empty() && before != request.boot;
        ((kept, member.address), again, news)
    };
    // Before the answer, upon which it mounts what is exported to it.
    if news && let Err(error) = shared.make_known() {
        tracing::warn!("{error:#}");
    }
    if started_again {
        // Slurm itself would notice minutes later. Its slurmd brings the node back.
        tracing::info!(host, "has started again: its jobs are over");
        if let Err(error) = slurm::take_down(host, "it started again") {
            tracing::debug!("{error:#}");
        }
    }
    let certificate = match (wanted, &request.host_key) {
        ((Some(kept), _), _) => Some(kept.text),
        ((None, address), Some(key)) => {
            let text = ssh::certify(key, &[host], &pool, address)
                .map_err(|error| format!("the head cannot certify the SSH key: {error:#}"))?;
            let signed = Signed {
                key: key.clone(),
                address,
                made: Instant::now(),
                text: text.clone(),
            };
            if let Ok(member) = lock(&shared.roster).admit(node, host, &head.name, Instant::now()) {
                member.certificate = Some(signed);
            }
            tracing::info!(host, "certified an SSH host key");
            Some(text)
        }
        ((None, _), None) => None,
    };
    let mut hosts = lock(&shared.roster).hosts();
    hosts.push(head.clone());
    let facts = lock(&shared.facts);
    Ok(Answer {
        head,
        hosts,
        slurm_key: shared.key.clone(),
        is_node: facts.nodes.known.contains(host) && !facts.nodes.silent.contains(host),
        users: facts.users.clone(),
        ssh_authority: shared.authority.clone(),
        ssh_certificate: certificate,
        nfs: shared.nfs,
    })
}

/// What whoever leaves is told.
fn leave(shared: &Shared, node: &Node, host: &str) -> String {
    if !lock(&shared.roster).leave(host, &node.id) {
        return format!("the name {host} is not this machine's");
    }
    tracing::info!(host, "leaves");
    match slurm::take_down(host, "it left the pool") {
        Ok(()) => "goodbye".into(),
        Err(error) => format!("{error:#}"),
    }
}

/// Asks the head, which is `head` by what the pool's table says. The answer counts only if the session
/// with that address names a head too.
pub fn ask(daemon: &Daemon, head: &Node, request: &Request) -> Result<Reply> {
    let deadline = Instant::now() + CONVERSATION_MAX;
    let mut stream = connect(SocketAddrV6::new(head.v6, PORT, 0, 0), CONVERSATION_MAX)
        .with_context(|| format!("the head {} does not answer", head.name))?;
    let met = daemon.whois(head.v6)?;
    if met.id != head.id || !met.roles.has(hosts::HEAD) {
        bail!("{} at {} is certified for no head", met.name, head.v6);
    }
    let line = serde_json::to_vec(request)?;
    let talked = stream::write_line(&mut stream, &line, deadline)
        .and_then(|()| stream::read_line(&mut stream, ANSWER_BYTES_MAX, deadline));
    let line = talked.with_context(|| format!("the head {} did not answer", head.name))?;
    serde_json::from_slice(&line).context("the head's answer is malformed")
}

/// From a port of root's.
fn connect(to: SocketAddrV6, limit: Duration) -> Result<TcpStream> {
    let mut last = None;
    // Others may have some; from above, where fewer services are.
    for port in ROOT_PORTS.rev().take(400) {
        let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
        // The one of the last question may still be closing.
        socket.set_reuse_address(true)?;
        let from = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0);
        let connected = socket
            .bind(&SockAddr::from(from))
            .and_then(|()| socket.connect_timeout(&SockAddr::from(to), limit));
        match connected {
            Ok(()) => return Ok(socket.into()),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::AddrInUse | std::io::ErrorKind::AddrNotAvailable
                ) =>
            {
                last = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.map_or_else(|| anyhow::anyhow!("no port is free"), Into::into))
}

/// What this machine calls itself: its name, unless the pool's table gives that to another node.
pub fn own_name(daemon: &Daemon, name: &str, id: &str) -> String {
    let [plain, longer] = roster::names(name, id);
    match daemon.look_up(name) {
        Ok(record) if record.owner != id => longer,
        _ => plain,
    }
}
