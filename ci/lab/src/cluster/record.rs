//! A cluster that runs, as it is written down for whoever comes later.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use wow_builder::qemu::{Accelerator, Emulator, ImageFiles, Loader};

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
    /// QEMU, and how it runs guests.
    pub qemu: PathBuf,
    /// See [`Self::qemu`].
    pub accelerator: Accelerator,
    /// What workstations boot.
    pub boot: Boot,
    /// What the seed boots.
    pub seed_kernel: PathBuf,
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
    /// Its own disk; the seed has none.
    pub disk: Option<PathBuf>,
}

/// What a Debian image is started from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Boot {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub command_line: String,
}

impl Boot {
    /// What a built image is started from; an error for one without a root of its own.
    pub fn of(image: &ImageFiles) -> Result<Self> {
        let loader = image
            .loader
            .clone()
            .context("this is no image of workstations: its kernel has no root on a disk")?;
        Ok(Self {
            kernel: image.kernel.clone(),
            initrd: loader.initrd,
            command_line: loader.command_line,
        })
    }

    /// The same as a machine's files, with a disk of its own.
    pub fn with_disk(&self, disk: &Path) -> ImageFiles {
        ImageFiles {
            kernel: self.kernel.clone(),
            loader: Some(Loader {
                initrd: self.initrd.clone(),
                command_line: self.command_line.clone(),
            }),
            disk: disk.to_path_buf(),
            own_disk: true,
        }
    }
}

impl Record {
    /// The cluster written down in `file`, if any.
    pub fn load(file: &Path) -> Result<Option<Self>> {
        Inventory::load_as(file)
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

    /// QEMU.
    pub fn emulator(&self) -> Emulator {
        Emulator {
            program: self.qemu.clone(),
            version: String::new(),
        }
    }
}
