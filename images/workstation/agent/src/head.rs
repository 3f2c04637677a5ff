//! The head: Slurm's controller, the file server, and the service for members.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::child::Kept;
use crate::daemon::{Daemon, HEAD_SERVICE, Status};
use crate::disk::{self, Room};
use crate::exchange::PORT;
use crate::hosts::Host;
use crate::options::Options;
use crate::roster::{Roster, Signed};
use crate::service::{self, Facts, Shared, lock};
use crate::slurm::{self, Nodes};
use crate::trouble::Trouble;
use crate::users::Users;
use crate::{clock, hosts, machine, mpi, ssh};

/// How often nodes that are away are looked at.
const CLEAN: Duration = Duration::from_secs(10);

/// Marks that the queue was closed for want of room, over restarts of this program.
const CLOSED: &str = "/var/lib/wow-workstation/queue-closed";

/// See the module.
pub struct Head {
    daemon: Daemon,
    options: Options,
    shared: Arc<Shared>,
    controller: Kept,
    listening: bool,
    since: Instant,
    cleaned: Option<Instant>,
    certificate: Option<Signed>,
    ssh_server: ssh::Server,
    clock: clock::Watch,
}

impl Head {
    /// A head that [`Self::tend`] brings up.
    pub fn new(daemon: Daemon, options: Options, status: &Status) -> Result<Self> {
        let shared = Shared {
            daemon: daemon.clone(),
            key: slurm::own_key()?,
            authority: ssh::own_authority()?,
            nfs: options.nfs,
            facts: Mutex::new(Facts {
                pool: status.pool.clone(),
                head: own(&daemon, status),
                users: Users::default(),
                nodes: Nodes::default(),
            }),
            roster: Mutex::new(Roster::load()),
            files: Mutex::new(()),
        };
        Ok(Self {
            daemon,
            options,
            shared: Arc::new(shared),
            controller: Kept::new(slurm::controller()),
            listening: false,
            since: Instant::now(),
            cleaned: None,
            certificate: None,
            ssh_server: ssh::Server::default(),
            clock: clock::Watch::new(),
        })
    }

    /// Puts right what is not.
    pub fn tend(&mut self, status: &Status, trouble: &mut Trouble) {
        let own = own(&self.daemon, status);
        self.tend_clock(trouble);
        trouble.check(clock::serve(status.range));
        trouble.check(machine::set_host_name(&own.name));
        trouble.check(mpi::apply(status.interface()));
        lock(&self.shared.facts).head = own.clone();
        match Users::read() {
            Ok(users) => lock(&self.shared.facts).users = users,
            Err(error) => trouble.add(format!("{error:#}")),
        }
        let members = lock(&self.shared.roster).hosts();
        trouble.check(self.shared.make_known());
        trouble.check(lock(&self.shared.roster).save());
        let ready = trouble.check(self.tend_controller(&own));
        if let Some(words) = self.controller.tend() {
            trouble.add(words);
        }
        trouble.check(self.tend_service(status, ready));
        trouble.check(self.tend_ssh(status, &own, &members));
        trouble.check(self.tend_queue());
        self.tend_nodes();
    }

    /// A controller that finds itself hours later believes that every node was silent for so long; one that
    /// starts anew asks them first.
    fn tend_clock(&mut self, trouble: &mut Trouble) {
        let Some(change) = self.clock.look() else {
            return;
        };
        tracing::info!(?change, "another time: starting the controller again");
        self.controller.stop();
        if let clock::Change::Paused(_) = change {
            trouble.check(self.clock.put_right());
        }
    }

    /// Members look for another head.
    pub fn retire(&self) {
        if let Err(error) = self.daemon.withdraw(HEAD_SERVICE) {
            tracing::warn!("{error:#}");
        }
    }

    fn tend_controller(&mut self, own: &Host) -> Result<()> {
        if slurm::configure(own)? {
            self.controller.stop();
        }
        Ok(())
    }

    /// Members find the head when it can answer them.
    fn tend_service(&mut self, status: &Status, ready: bool) -> Result<()> {
        if !self.listening {
            service::start(Arc::clone(&self.shared), status.addresses.v6)?;
            self.listening = true;
        }
        if ready {
            self.daemon.offer(HEAD_SERVICE, &PORT.to_string())?;
        }
        Ok(())
    }

    fn tend_ssh(&mut self, status: &Status, own: &Host, members: &[Host]) -> Result<()> {
        let key = ssh::own_host_key()?;
        let address = Some(own.address);
        let good = |signed: &Signed| {
            signed.key == key && signed.address == address && signed.made.elapsed() < ssh::RENEW
        };
        let certificate = match self.certificate.take().filter(good) {
            Some(kept) => kept,
            None => Signed {
                text: ssh::certify(&key, &[&own.name, hosts::HEAD], &status.pool, address)?,
                key,
                address,
                made: Instant::now(),
            },
        };
        let text = certificate.text.clone();
        self.certificate = Some(certificate);
        let known = [members, std::slice::from_ref(own)].concat();
        ssh::apply(
            &status.pool,
            status.range,
            &known,
            &self.shared.authority,
            Some(&text),
            &mut self.ssh_server,
        )
    }

    /// Without room for its state Slurm would lose jobs: it takes none until there is some.
    fn tend_queue(&mut self) -> Result<()> {
        let state = disk::room(Path::new(slurm::STATE));
        let home = disk::room(Path::new("/home"));
        let closed = Path::new(CLOSED);
        let full = [state, home].contains(&Some(Room::Full));
        if !full {
            if closed.exists() && state == Some(Room::Enough) && home == Some(Room::Enough) {
                slurm::open_queue(true)?;
                std::fs::remove_file(closed).context("cannot note that the queue is open")?;
                tracing::info!("there is room again: the queue takes jobs");
            }
            return Ok(());
        }
        // Said again each time: a controller that starts anew has it open.
        slurm::open_queue(false)?;
        // A full disk may not take even this; then it is tried again.
        if let Err(error) = std::fs::write(closed, "") {
            tracing::warn!(%error, "cannot note that the queue is closed");
        }
        anyhow::bail!(
            "the disk of the head is full: no jobs are taken or started until there is room; remove \
             files from /home or /var"
        )
    }

    /// Learns who is there, and forgets those who are away for long.
    fn tend_nodes(&mut self) {
        if self.cleaned.is_some_and(|at| at.elapsed() < CLEAN) {
            return;
        }
        self.cleaned = Some(Instant::now());
        let nodes = match slurm::nodes() {
            Ok(nodes) => nodes,
            // It is starting, or its end was told already.
            Err(error) => return tracing::debug!("{error:#}"),
        };
        for node in nodes.known.difference(&nodes.down) {
            // An answer that was still under way has made Slurm believe that it is there again.
            let left = lock(&self.shared.roster)
                .get(node)
                .is_some_and(|member| member.left);
            if left && let Err(error) = slurm::take_down(node, "it left the pool") {
                tracing::debug!("{error:#}");
            }
        }
        let forget = self.options.forget;
        for node in nodes.down.union(&nodes.silent) {
            let unseen = {
                let roster = lock(&self.shared.roster);
                let seen = roster.get(node).map(|member| member.seen);
                seen.unwrap_or(self.since).elapsed()
            };
            if unseen < forget {
                continue;
            }
            let forgotten =
                slurm::take_down(node, "it is away for long").and_then(|()| slurm::forget(node));
            match forgotten {
                Ok(()) => tracing::info!(node, "forgotten: it was away for long"),
                Err(error) => tracing::debug!("{error:#}"),
            }
        }
        lock(&self.shared.roster).forget(Instant::now(), forget);
        lock(&self.shared.facts).nodes = nodes;
    }
}

fn own(daemon: &Daemon, status: &Status) -> Host {
    Host {
        name: service::own_name(daemon, &status.name, &status.id),
        address: status.addresses.v4,
    }
}
