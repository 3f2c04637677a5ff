//! Workers and login hosts: they find the head, wherever it is, and do what it tells.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::child::Kept;
use crate::daemon::{Daemon, HEAD_SERVICE, Node, Status};
use crate::exchange::{Answer, Kind, Request};
use crate::options::Options;
use crate::role::Role;
use crate::trouble::Trouble;
use crate::{clock, hosts, machine, mpi, nfs, service, slurm, ssh};

/// A slurmd of which the controller does not know or hear after so long is started again: then it
/// tells of itself at once, while its jobs go on.
const UNKNOWN_MAX: Duration = Duration::from_secs(20);

/// See the module.
pub struct Member {
    daemon: Daemon,
    options: Options,
    takes_jobs: bool,
    clock: clock::Watch,
    ssh_server: ssh::Server,
    node: Option<Kept>,
    /// The host name and address that slurmd was started with.
    identity: Option<hosts::Host>,
    /// Since when the controller has not known a slurmd that runs.
    unknown: Option<Instant>,
}

impl Member {
    /// A member that [`Self::tend`] brings into the pool.
    pub fn new(daemon: Daemon, options: Options, role: Role) -> Self {
        Self {
            daemon,
            options,
            takes_jobs: role == Role::Worker,
            clock: clock::Watch::new(),
            ssh_server: ssh::Server::default(),
            node: None,
            identity: None,
            unknown: None,
        }
    }

    /// Puts right what is not. What runs goes on while the head is away.
    pub fn tend(&mut self, status: &Status, trouble: &mut Trouble) {
        let name = service::own_name(&self.daemon, &status.name, &status.id);
        trouble.check(machine::set_host_name(&name));
        trouble.check(mpi::apply(status.interface()));
        let own = hosts::Host {
            name,
            address: status.addresses.v4,
        };
        self.tend_clock(trouble);
        match self.ask_head(&own, Kind::Member) {
            Ok(Ok(answer)) => self.follow(status, own, answer, trouble),
            Ok(Err(refusal)) => trouble.add(format!("the head refuses this machine: {refusal}")),
            Err(error) => trouble.add(format!("{error:#}")),
        }
        if let Some(words) = self.node.as_mut().and_then(Kept::tend) {
            trouble.add(words);
        }
    }

    fn tend_clock(&mut self, trouble: &mut Trouble) {
        let Some(change) = self.clock.look() else {
            return;
        };
        tracing::info!(?change, "another time: starting slurmd again");
        self.stop_node();
        if let clock::Change::Paused(_) = change {
            trouble.check(self.clock.put_right());
        }
    }

    /// Tells the head that this machine ends.
    pub fn leave(&mut self) {
        let Some(own) = self.identity.clone() else {
            return;
        };
        // One that still answers Slurm is taken for a node that has returned.
        self.stop_node();
        match self.ask_head(&own, Kind::Leaving) {
            Ok(_) => tracing::info!("told the head that this machine leaves"),
            Err(error) => tracing::info!("left without a word: {error:#}"),
        }
    }

    fn ask_head(&self, own: &hosts::Host, kind: Kind) -> Result<crate::exchange::Reply> {
        let head = self.find_head()?;
        let request = Request {
            host: own.name.clone(),
            kind,
            boot: machine::boot()?,
            host_key: Some(ssh::own_host_key()?),
        };
        service::ask(&self.daemon, &head, &request)
    }

    fn find_head(&self) -> Result<Node> {
        let key = format!("service:{HEAD_SERVICE}");
        let record = self.daemon.look_up(&key).map_err(|error| {
            anyhow!(
                "the pool has no head now ({error:#}): boot a machine with the role head, or wait"
            )
        })?;
        self.daemon
            .resolve(&record.owner)
            .context("the head is not found in the pool")
    }

    fn follow(&mut self, status: &Status, own: hosts::Host, answer: Answer, trouble: &mut Trouble) {
        let range = status.range;
        let answer = match answer.checked(|address| range.contains(&address)) {
            Ok(answer) => answer,
            Err(error) => return trouble.add(format!("the head's answer is refused: {error:#}")),
        };
        let known = known(&answer, &own);
        trouble.check(hosts::write(&status.pool, &answer.head, &known));
        trouble.check(clock::follow(answer.head.address));
        match answer.users.apply() {
            Ok(conflict) => conflict.into_iter().for_each(|words| trouble.add(words)),
            Err(error) => trouble.add(format!("{error:#}")),
        }
        trouble.check(ssh::apply(
            &status.pool,
            range,
            &known,
            &answer.ssh_authority,
            answer.ssh_certificate.as_deref(),
            &mut self.ssh_server,
        ));
        let mut shared = true;
        if self.options.nfs && answer.nfs {
            shared =
                trouble.check(nfs::mount(answer.head.address)) && trouble.check(nfs::answers());
        }
        trouble.check(self.tend_node(own, &answer, shared));
    }

    /// Without the users' files a job would fail at once, so the first slurmd waits for them.
    fn tend_node(&mut self, own: hosts::Host, answer: &Answer, shared: bool) -> Result<()> {
        let changed = slurm::keep_key(&answer.slurm_key)?;
        let words = slurm::node(&answer.head, self.takes_jobs);
        let same = self.node.as_ref().is_some_and(|node| node.words() == words);
        if changed || !same || self.identity.as_ref() != Some(&own) {
            self.stop_node();
            self.node = None;
        }
        let running = self
            .node
            .as_ref()
            .is_some_and(|node| node.running_for().is_some());
        if !running || answer.is_node {
            self.unknown = None;
        } else if self.unknown.get_or_insert_with(Instant::now).elapsed() > UNKNOWN_MAX {
            tracing::info!("Slurm does not hear of this machine: starting slurmd again");
            self.stop_node();
        }
        if self.node.is_none() && shared {
            slurm::prepare_node()?;
            self.identity = Some(own);
            self.node = Some(Kept::new(words));
        }
        Ok(())
    }

    fn stop_node(&mut self) {
        self.unknown = None;
        if let Some(node) = &mut self.node {
            node.stop();
        }
    }
}

/// The head's hosts, and this one, of which the head may not know the address yet.
fn known(answer: &Answer, own: &hosts::Host) -> Vec<hosts::Host> {
    let others = answer.hosts.iter().filter(|host| host.name != own.name);
    let mut all: Vec<_> = others.cloned().collect();
    all.push(own.clone());
    all
}
