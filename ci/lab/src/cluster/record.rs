//! A cluster that runs, as it is written down for whoever comes later.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use wow_builder::qemu::{Accelerator, Emulator, ImageFiles};

use super::access::Access;
use crate::client::Client;
use crate::kept::Inventory;

/// See the module.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Processes, consoles, directories.
    #[serde(flatten)]
    pub inventory: Inventory,
    /// What is known of each machine besides, in the inventory's order.
    pub members: Vec<Member>,
    /// The domains, that of public addresses first.
    pub domains: Vec<String>,
    /// The emulator's socket for orders.
    pub wan_control: PathBuf,
    /// The way in.
    pub access: Access,
    /// The program `wow`.
    pub wow: PathBuf,
    /// QEMU.
    pub emulator: Emulator,
    /// How it runs guests.
    pub accelerator: Accelerator,
    /// What workstations boot; each has a copy of the disk, or the CD-ROM.
    pub workstation: ImageFiles,
    /// What the seed boots.
    pub seed: ImageFiles,
}

/// One machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// A workstation's role; the seed has none.
    pub role: Option<String>,
    /// Where it stands now.
    pub domain: String,
    /// Its number, which its network card's address ends with.
    pub number: u8,
    /// How often it was started or moved: each QEMU has sockets of its own.
    pub generation: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// The socket of QEMU's machine protocol.
    pub qmp: PathBuf,
    /// Its own disk; the seed has none, nor has who boots from a CD-ROM.
    pub disk: Option<PathBuf>,
}

impl Record {
    /// The cluster written down in `file`, if any.
    pub fn load(file: &Path) -> Result<Option<Self>> {
        Inventory::load_as(file)
    }

    /// Waits until nobody else changes the cluster of `file`, and keeps others waiting as long as the result
    /// lives. Whoever changes it reads it after this.
    pub fn lock(file: &Path) -> Result<File> {
        let path = file.with_extension("lock");
        let what = || format!("cannot lock {}", path.display());
        let lock = File::create(&path).with_context(what)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).with_context(what)?;
        Ok(lock)
    }

    /// Writes it down.
    pub fn save(&self, file: &Path) -> Result<()> {
        Inventory::save_as(self, file)
    }

    /// The number of a machine in the lists.
    pub fn index(&self, name: &str) -> Result<usize> {
        let found = self.members.iter().position(|member| member.name == name);
        let Some(found) = found else {
            let names: Vec<_> = self.members.iter().map(|member| &*member.name).collect();
            bail!(
                "there is no machine {name:?}; there are {}",
                names.join(", ")
            );
        };
        Ok(found)
    }

    /// How to ask a machine's node.
    pub fn client(&self, index: usize) -> Client {
        Client::new(&self.wow, &self.inventory.machines[index].control)
    }

    /// How to ask this host's node.
    pub fn own_client(&self) -> Client {
        Client::new(&self.wow, &self.access.control)
    }

    /// Whether a machine's QEMU runs.
    pub fn is_running(&self, index: usize) -> bool {
        let process = self.inventory.machines[index].process.as_ref();
        process.is_some_and(|process| process.is_alive())
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn one_changes_a_cluster_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("lab-cluster.json");
        let first = Record::lock(&file).unwrap();
        let second = File::open(file.with_extension("lock")).unwrap();
        let ask = || rustix::fs::flock(&second, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(ask(), Err(Errno::WOULDBLOCK));
        drop(first);
        assert_eq!(ask(), Ok(()));
    }
}
