//! The state directory: the node's identity and certificate, for one node and one process.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use wow_overlay::membership::{
    Certificate, CertificateRequest, Identity, NodeName, PoolFacts, Revocation, Roles, Ticket,
};
use wow_overlay::time::UnixTime;

use crate::keeper::{self, Files, Keeper};
use crate::random;

/// Files of the state besides the identity and its pool.
const CERTIFICATE: &str = "certificate";
const REVOCATIONS: &str = "revocations";

/// A certificate holds no longer than this, so that a leaked identity does not either. The daemon
/// renews it long before.
pub const CERTIFICATE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where identity and certificate live between runs. Held by at most one process.
pub struct State {
    files: Files,
    _lock: Option<File>,
}

impl State {
    /// Opens the directory, creating it if need be, and locks it.
    pub fn open(directory: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .with_context(|| {
                format!("cannot create the state directory {}", directory.display())
            })?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(directory.join("lock"))
            .with_context(|| {
                format!(
                    "cannot write to the state directory {}; name another with --state",
                    directory.display()
                )
            })?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => bail!(
                "the state directory {} belongs to a running node; stop that node, or give this one \
                 its own with --state",
                directory.display()
            ),
            Err(error) => {
                return Err(io::Error::from(error))
                    .with_context(|| format!("cannot lock {}", directory.display()));
            }
        }
        Ok(State {
            files: Files::In(directory.to_owned()),
            _lock: Some(lock),
        })
    }

    /// A state that ends with the process.
    pub fn in_memory() -> Self {
        State {
            files: Files::Nowhere,
            _lock: None,
        }
    }

    /// A machine's own disk for its state, which is used if it can be: one that is another pool's, full or damaged
    /// costs the node its memory, and not its work. See [`Files::trouble`]. Nobody else is on the machine to hold it.
    pub fn on_disk(keeper: Keeper, pool: &PoolFacts) -> Self {
        keeper.begin();
        let state = State {
            files: Files::OnDisk(keeper.clone()),
            _lock: None,
        };
        // Whatever may be wrong with it shows here.
        if let Err(error) = state.identity(pool) {
            keeper.refuse(format!("{error:#}"));
        }
        state
    }

    /// What is kept.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The node's identity: as kept, or new.
    pub fn identity(&self, pool: &PoolFacts) -> Result<Identity> {
        self.check_pool(pool)?;
        let kept = self.files.read(keeper::IDENTITY)?;
        if let Some(bytes) = kept {
            return Identity::from_bytes(&bytes).context("the identity that was kept is refused");
        }
        let identity = Identity::generate(&mut random::rng());
        self.files
            .write(keeper::IDENTITY, &identity.to_bytes()[..])?;
        Ok(identity)
    }

    /// An identity serves one pool: its node id would link the node's doings in two.
    fn check_pool(&self, pool: &PoolFacts) -> Result<()> {
        let expected = format!("{} {}\n", pool.pool_id(), pool.name);
        let Some(found) = self.files.read(keeper::POOL)? else {
            return self.files.write(keeper::POOL, expected.as_bytes());
        };
        if *found == expected.as_bytes() {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&found);
        let mut words = found.split_whitespace();
        let (id, name) = (words.next().unwrap_or("?"), words.next().unwrap_or("?"));
        let (held, remedy) = match &self.files {
            Files::In(directory) => {
                let directory = directory.display();
                let remedy = format!(
                    "give this node its own directory with --state, or remove {directory} to leave {name} for good"
                );
                (format!("the state directory {directory}"), remedy)
            }
            Files::Nowhere | Files::OnDisk(_) => (
                "the state partition".to_owned(),
                format!("attach this node's own or an empty one, or a ticket for {name}"),
            ),
        };
        bail!(
            "{held} holds the identity of a node of the pool {name} ({id}), and the ticket is for the pool {} ({}); \
             {remedy}",
            pool.name,
            pool.pool_id(),
        )
    }

    /// The node's certificate: as kept, if it is still what is asked for and not soon over, or a
    /// new one under the ticket.
    pub fn certificate(
        &self,
        identity: &Identity,
        ticket: &Ticket,
        name: &NodeName,
        roles: Roles,
        address: Option<Ipv4Addr>,
        now: UnixTime,
    ) -> Result<Certificate> {
        if let Some(kept) = self.kept_certificate(ticket.facts(), now) {
            let as_asked = kept.is_of(identity)
                && kept.name() == name
                && kept.fixed_address() == address
                && kept.roles() == roles
                && kept.ticket_id() == ticket.id();
            let begun = kept.not_before() <= now.max(ticket.not_before());
            if as_asked && begun && now < renewal_due(&kept) {
                return Ok(kept);
            }
        }
        let not_after = (now + CERTIFICATE_MAX).min(ticket.not_after());
        let request = CertificateRequest {
            name: name.clone(),
            roles,
            fixed_address: address,
            // A ticket may begin a little ahead of a clock that is slow.
            not_before: now.max(ticket.not_before()),
            not_after,
        };
        let certificate = ticket
            .certify(identity, &request)
            .context("cannot make this node's certificate")?;
        self.files.write(CERTIFICATE, certificate.bytes())?;
        Ok(certificate)
    }

    /// The revocations kept. One that cannot be read is told and left out.
    pub fn revocations(&self, pool: &PoolFacts) -> Vec<Revocation> {
        let kept = self.files.read(REVOCATIONS).unwrap_or_else(|error| {
            tracing::warn!(error = %format!("{error:#}"), "kept revocations are lost");
            None
        });
        let text = String::from_utf8_lossy(kept.as_deref().map_or(&[], Vec::as_slice)).into_owned();
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let read = lines.map(|line| Revocation::parse(line, pool));
        read.filter_map(|read| {
            read.inspect_err(|error| {
                tracing::warn!(%error, "a kept revocation is left out");
            })
            .ok()
        })
        .collect()
    }

    /// Keeps a revocation over restarts.
    pub fn keep_revocation(&self, revocation: &Revocation) -> Result<()> {
        let line = revocation.encode() + "\n";
        // What cannot be read is no revocation; it was told of at the start.
        let kept = self.files.read(REVOCATIONS).ok().flatten();
        let kept = kept.map_or(String::new(), |kept| {
            String::from_utf8_lossy(&kept).into_owned()
        });
        if kept.contains(&line) {
            return Ok(());
        }
        self.files.write(REVOCATIONS, (kept + &line).as_bytes())
    }

    fn kept_certificate(&self, pool: &PoolFacts, now: UnixTime) -> Option<Certificate> {
        // Nothing is lost with it: the ticket makes another.
        let kept = self.files.read(CERTIFICATE).and_then(|bytes| {
            let verified = bytes.map(|bytes| Certificate::verify(&bytes, pool, now));
            Ok(verified.transpose()?)
        });
        kept.inspect_err(
            |error| tracing::info!(error = %format!("{error:#}"), "making a new certificate"),
        )
        .ok()
        .flatten()
    }
}

/// When to replace a certificate: after two thirds of its time.
pub fn renewal_due(certificate: &Certificate) -> UnixTime {
    let (from, until) = (certificate.not_before(), certificate.not_after());
    UnixTime(until.0 - (until.0.saturating_sub(from.0)) / 3)
}

/// A node name made of the host's name; `fallback` where that gives none.
pub fn name_from_host(host: &str, fallback: &str) -> NodeName {
    let first = host.split('.').next().unwrap_or_default();
    let plain: String = first
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let plain = plain.trim_matches('-');
    let usable = !plain.is_empty() && plain != "localhost" && plain != "none";
    NodeName::new(if usable { plain } else { fallback })
        .or_else(|_| NodeName::new(fallback))
        .expect("the fallback is a label")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{self, Existing};
    use std::os::unix::fs::PermissionsExt;
    use wow_overlay::membership::{PoolAuthority, PoolName};

    const NOW: UnixTime = UnixTime(1_800_000_000);
    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn ticket(name: &str) -> Ticket {
        let range = wow_overlay::membership::pool::DEFAULT_RANGE;
        let name = PoolName::new(name).unwrap();
        let pool = PoolAuthority::create(name, range, vec![], &mut random::rng()).unwrap();
        pool.issue_ticket(Roles::ROUTER, NOW, NOW + DAY * 90, None, &mut random::rng())
            .unwrap()
    }

    fn node_name() -> NodeName {
        NodeName::new("n1").unwrap()
    }

    #[test]
    fn identity_and_certificate_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let ticket = ticket("lab");
        let run = |now| {
            let state = State::open(dir.path()).unwrap();
            let identity = state.identity(ticket.facts()).unwrap();
            let certificate = state
                .certificate(&identity, &ticket, &node_name(), Roles::ROUTER, None, now)
                .unwrap();
            (identity.node_id(), certificate)
        };
        let (id, first) = run(NOW);
        assert_eq!(first.not_after(), NOW + CERTIFICATE_MAX);
        let (same, second) = run(NOW + DAY);
        assert_eq!((id, first.bytes()), (same, second.bytes()));
        let (same, third) = run(NOW + DAY * 25);
        assert_eq!(id, same);
        assert!(third.not_after() > first.not_after(), "renewed in time");
        // By a clock that was set back since, it would begin too late for others.
        let (_, again) = run(NOW + DAY * 24);
        assert_eq!(again.not_before(), NOW + DAY * 24);
        for file in ["identity", "certificate", "pool", "lock"] {
            let mode = std::fs::metadata(dir.path().join(file))
                .unwrap()
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn a_certificate_ends_with_its_ticket() {
        let state = State::in_memory();
        let ticket = ticket("lab");
        let identity = state.identity(ticket.facts()).unwrap();
        let late = NOW + DAY * 80;
        let certificate = state
            .certificate(&identity, &ticket, &node_name(), Roles::ROUTER, None, late)
            .unwrap();
        assert_eq!(certificate.not_after(), ticket.not_after());
    }

    #[test]
    fn the_identity_of_another_pool_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        state.identity(ticket("lab").facts()).unwrap();
        let error = state
            .identity(ticket("office").facts())
            .unwrap_err()
            .to_string();
        assert!(error.contains("pool lab"), "{error}");
        assert!(error.contains("--state"), "{error}");
    }

    #[test]
    fn a_machine_goes_on_without_a_state_that_it_cannot_use() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, office) = (ticket("lab"), ticket("office"));
        let keep = |ticket: &Ticket| {
            // A machine that has just started, with its disk in place.
            let keeper = Keeper::default();
            keeper.attach(dir.path()).unwrap();
            let state = State::on_disk(keeper, ticket.facts());
            let identity = state.identity(ticket.facts()).unwrap();
            let roles = Roles::ROUTER;
            let certificate = state.certificate(&identity, ticket, &node_name(), roles, None, NOW);
            certificate.unwrap();
            (identity.node_id(), state.files().trouble())
        };
        let (id, trouble) = keep(&lab);
        assert_eq!(trouble, None);
        let (other, trouble) = keep(&office);
        assert_ne!(other, id);
        assert!(trouble.unwrap().contains("of the pool lab"));
        // Nothing of the other pool's was changed; and what cannot be written is told.
        let path = dir.path().join(CERTIFICATE);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let (same, trouble) = keep(&lab);
        assert_eq!(same, id);
        assert!(trouble.unwrap().contains("cannot write"));
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(keep(&lab), (id, None));
    }

    #[test]
    fn two_processes_do_not_share_a_state() {
        let dir = tempfile::tempdir().unwrap();
        let first = State::open(dir.path()).unwrap();
        let error = State::open(dir.path()).err().expect("locked").to_string();
        assert!(error.contains("running node"), "{error}");
        drop(first);
        State::open(dir.path()).unwrap();
    }

    #[test]
    fn a_damaged_certificate_is_replaced_and_a_damaged_identity_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let ticket = ticket("lab");
        let identity = state.identity(ticket.facts()).unwrap();
        let make = || state.certificate(&identity, &ticket, &node_name(), Roles::ROUTER, None, NOW);
        make().unwrap();
        let path = dir.path().join("certificate");
        files::write_private(&path, b"rubbish", Existing::Replace).unwrap();
        assert!(make().unwrap().is_of(&identity));

        let path = dir.path().join("identity");
        files::write_private(&path, b"rubbish", Existing::Replace).unwrap();
        assert!(state.identity(ticket.facts()).is_err());
    }

    #[test]
    fn host_names_become_labels() {
        let check = |host: &str, name: &str| {
            assert_eq!(name_from_host(host, "n-0123").as_str(), name, "{host:?}");
        };
        check("Web01.example.org", "web01");
        check("my_host", "my-host");
        check("localhost", "n-0123");
        check("(none)", "n-0123");
        check("", "n-0123");
        check("-_-", "n-0123");
        check(&"x".repeat(64), "n-0123");
    }
}
