//! A cluster of workstations as virtual machines in NATed domains on the WAN emulator: a head, workers, a
//! router as seed, and this host's own node to reach them by. Needs no root.
//!
//! Everything goes by its [`Record`]: whoever started the machines may be gone.

pub mod access;
pub mod assembly;
pub mod machines;
pub mod migrate;
pub mod plan;
pub mod record;
pub mod shell;
pub mod status;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use wow_builder::disk::sparse;
use wow_builder::host::process::ProcessId;
use wow_builder::host::{Guarded, Tether};
use wow_builder::manifest::Format;
use wow_builder::qemu::{Choice, Emulator, ImageFiles, Vm};

use crate::kept::{Inventory, Machine};
use crate::run_dir::RunDir;
use crate::topology::{Attachment, Topology};
use crate::wan::Wan;
use crate::{Tools, interrupt, pool};
use access::Access;
use migrate::Notice;
use plan::{ACCESS, Plan};
use record::{Member, Record};

/// What the seed's ticket and that of this host's own node allow.
const SEED_ROLE: &str = "router";

/// The pool's name.
const POOL: &str = "lab";

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The programs.
    pub tools: Tools,
    /// QEMU.
    pub emulator: Emulator,
    /// How it runs guests.
    pub accelerator: Choice,
    /// The image of the seed.
    pub router: ImageFiles,
    /// The image of the workstations. From a CD-ROM they start by BIOS, and have no disks.
    pub workstation: ImageFiles,
    /// How many, and where.
    pub plan: Plan,
    /// Memory of each workstation, in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs of each.
    pub cpus: u32,
    /// The disk of each, in MiB.
    pub disk_mib: u32,
    /// Where logs and disks go.
    pub directory: PathBuf,
    /// Whether everything ends with this process.
    pub tether: Tether,
}

/// A cluster of this process: what is tied to it ends with this value.
#[derive(Debug)]
pub struct Cluster {
    /// What there is.
    pub record: Record,
    vms: Vec<Vm>,
    node: Guarded,
    wan: Wan,
    tether: Tether,
    started: Instant,
    // Last, so that sockets and disks outlive what uses them.
    disks: TempDir,
    dir: RunDir,
}

impl Cluster {
    /// Creates a pool, starts the emulator, this host's node and all machines. `begun` is told as soon as there
    /// is something that would have to be ended.
    pub fn start(setup: &Setup, mut begun: impl FnMut(&Record) -> Result<()>) -> Result<Self> {
        ensure!(
            setup.workstation.loader.is_some(),
            "this is no image of workstations: its kernel has no root on a disk"
        );
        let topology = setup.plan.topology()?;
        let dir = RunDir::new(&setup.directory, setup.tether)?;
        let wow = &setup.tools.wow;
        let pool = pool::found(wow, dir.private_dir(), POOL, &topology.seeds()?)?;
        for role in [SEED_ROLE, "head", "worker"] {
            let out = dir.private(&format!("{role}.ticket"));
            pool::ticket(wow, &pool, role, &out)?;
        }
        let key = dir.private("key");
        let public = access::make_key(&key)?;
        std::fs::write(
            dir.private(machines::TMPFILES),
            access::key_as_tmpfiles(&public),
        )?;
        let wan_control = dir.private("wan.sock");
        let mut wan = Wan::start(
            access::alone(&setup.tools.wan, setup.tether),
            &dir.private("wan.toml"),
            &topology.to_toml(&attachments(&topology, &dir)?),
            Some(wan_control.clone()),
            &dir.log("wan.log"),
        )?;
        let anchor = ProcessId::of(wan.pid()).context("the WAN emulator ended at once")?;
        let access = Access {
            anchor: anchor.clone(),
            key,
            control: dir.private("lab.sock"),
        };
        let mut record = Record {
            inventory: Inventory {
                helpers: vec![anchor],
                machines: Vec::new(),
                private_dir: dir.private_dir().to_path_buf(),
                logs: dir.logs().to_path_buf(),
            },
            members: Vec::new(),
            domains: topology
                .domains
                .iter()
                .map(|one| one.name.clone())
                .collect(),
            wan_control,
            access,
            wow: wow.clone(),
            emulator: setup.emulator.clone(),
            accelerator: setup.accelerator.accelerator,
            workstation: setup.workstation.clone(),
            seed: setup.router.clone(),
        };
        begun(&record)?;
        let place = topology.places.last().context("a topology has places")?;
        record
            .access
            .plug(&mut wan, topology.domain(place)?, place)?;
        let node = record.access.start_node(
            wow,
            &dir.private(&format!("{SEED_ROLE}.ticket")),
            &dir.private("lab.state"),
            &dir.log("lab.log"),
            setup.tether,
        )?;
        record.inventory.helpers.extend(ProcessId::of(node.pid()));
        let disks = tempfile::Builder::new()
            .prefix("disks-")
            .tempdir_in(dir.logs())
            .context("cannot make a directory for disks")?;
        let mut cluster = Self {
            record,
            vms: Vec::new(),
            node,
            wan,
            tether: setup.tether,
            started: Instant::now(),
            disks,
            dir,
        };
        cluster.start_machines(setup, &topology, &mut begun)?;
        Ok(cluster)
    }

    fn start_machines(
        &mut self,
        setup: &Setup,
        topology: &Topology,
        begun: &mut impl FnMut(&Record) -> Result<()>,
    ) -> Result<()> {
        let workstations = setup.plan.workstations();
        for (number, place) in (1..).zip(&topology.places) {
            if place.name == ACCESS {
                continue;
            }
            interrupt::check()?;
            let workstation = workstations.iter().find(|one| one.name == place.name);
            std::fs::write(
                self.dir.private(&format!("{}.name", place.name)),
                &place.name,
            )?;
            let disk = match workstation {
                Some(_) if setup.workstation.disk_format != Format::Iso => {
                    Some(self.make_disk(setup, &place.name)?)
                }
                _ => None,
            };
            self.record.inventory.machines.push(Machine {
                name: place.name.clone(),
                process: None,
                console: PathBuf::new(),
                control: PathBuf::new(),
            });
            self.record.members.push(Member {
                name: place.name.clone(),
                role: workstation.map(|one| one.role.to_owned()),
                domain: place.domain.clone(),
                number,
                generation: 0,
                memory_mib: workstation.map_or(SEED_MEMORY_MIB, |_| setup.memory_mib),
                cpus: workstation.map_or(1, |_| setup.cpus),
                qmp: PathBuf::new(),
                disk,
            });
            let index = self.record.members.len() - 1;
            let vm = machines::boot(&mut self.record, index, self.tether)?;
            self.vms.push(vm);
            begun(&self.record)?;
        }
        Ok(())
    }

    fn make_disk(&self, setup: &Setup, name: &str) -> Result<PathBuf> {
        let disk = self.disks.path().join(name);
        sparse::copy_file(
            &setup.workstation.disk,
            &disk,
            u64::from(setup.disk_mib) << 20,
        )
        .with_context(|| format!("cannot make the disk {}", disk.display()))?;
        Ok(disk)
    }

    /// When the machines began to start.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// An error when a machine, this host's node or the emulator has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.wan.check_running()?;
        if let Some(status) = self.node.try_wait()? {
            let log = self.dir.log("lab.log");
            anyhow::bail!(
                "this host's node ended with {status}: see {}",
                log.display()
            );
        }
        for vm in &mut self.vms {
            vm.check_running()?;
        }
        Ok(())
    }

    /// Pulls a machine's plug.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let index = self.record.index(name)?;
        machines::kill(&self.record, index)
    }

    /// Starts a machine that was killed.
    pub fn boot(&mut self, name: &str) -> Result<()> {
        let index = self.record.index(name)?;
        self.vms[index] = machines::boot(&mut self.record, index, self.tether)?;
        Ok(())
    }

    /// Moves a running machine to another domain; how long it stood still.
    pub fn migrate(&mut self, name: &str, domain: &str, notice: Notice) -> Result<Duration> {
        let index = self.record.index(name)?;
        let moved = migrate::migrate(&mut self.record, index, domain, notice, self.tether)?;
        self.vms[index] = moved.vm;
        Ok(moved.stopped)
    }

    /// Lets an untied cluster go on after this process.
    pub fn release(self) {
        for vm in self.vms {
            vm.release();
        }
        self.node.release();
        self.wan.release();
        let _ = self.disks.keep();
        self.dir.keep();
    }
}

/// Memory of the seed, in MiB.
const SEED_MEMORY_MIB: u32 = 64;

fn attachments(topology: &Topology, dir: &RunDir) -> Result<Vec<Attachment>> {
    let names = topology.places.iter().map(|place| &*place.name);
    names
        .map(|name| match name {
            ACCESS => Ok(Attachment::Tap(access::CARD.into())),
            name => dir.cable(name),
        })
        .collect()
}

/// Ends a cluster that runs, and removes its disks. The number of processes ended.
pub fn end(record: &Record, file: &Path) -> Result<usize> {
    let ended = record.inventory.end(file)?;
    for disk in record
        .members
        .iter()
        .filter_map(|member| member.disk.as_ref())
    {
        // One that is gone already is no harm; the directory goes with the last.
        let _ = std::fs::remove_file(disk);
        let _ = disk.parent().map(std::fs::remove_dir);
    }
    Ok(ended)
}
