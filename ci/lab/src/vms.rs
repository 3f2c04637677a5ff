//! A testbed of virtual machines on the WAN emulator. Needs no root.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use wow_builder::host::{Tether, guarded_command};
use wow_builder::qemu::{
    Backend, Choice, Emulator, Firmware, FwCfg, Hardware, ImageFiles, Machine, Nic, Serial, Uefi,
    Vm, VmSpec,
};

use crate::Tools;
use crate::client::Client;
use crate::experiment::Node;
use crate::pool;
use crate::run_dir::RunDir;
use crate::topology::{Place, Topology};
use crate::wan::Wan;

/// What a testbed is made of.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The programs.
    pub tools: Tools,
    /// QEMU.
    pub emulator: Emulator,
    /// How it runs guests.
    pub accelerator: Choice,
    /// The image that every machine boots.
    pub image: ImageFiles,
    /// The board.
    pub machine: Machine,
    /// What is attached to it.
    pub hardware: Hardware,
    /// How the machines behind NATs start the image; the seed always starts directly.
    pub firmware: Firmware,
    /// Memory of each, in MiB.
    pub memory_mib: u32,
    /// The internet between them.
    pub topology: Topology,
    /// Where the logs go.
    pub logs: PathBuf,
    /// Whether everything ends with this process.
    pub tether: Tether,
    /// What some machines have besides.
    pub more: Vec<More>,
}

/// What one machine has besides its card on the emulated internet.
#[derive(Debug, Clone)]
pub struct More {
    /// The machine's place.
    pub place: String,
    /// The TAP device that is its second card's other end; QEMU makes it. Needs root.
    pub tap: Option<String>,
    /// Settings, `KEY` and value, as fw_cfg.
    pub settings: Vec<(&'static str, String)>,
    /// Raw disks that are its own.
    pub disks: Vec<PathBuf>,
}

/// Running machines.
#[derive(Debug)]
pub struct VmTestbed {
    vms: Vec<Vm>,
    nodes: Vec<Node>,
    consoles: Vec<PathBuf>,
    ticket: PathBuf,
    wan: Wan,
    // Last, so that sockets outlive what uses them.
    dir: RunDir,
}

impl VmTestbed {
    /// Creates a pool, starts the emulator and all machines.
    pub fn start(setup: &Setup) -> Result<Self> {
        let dir = RunDir::new(&setup.logs, setup.tether)?;
        let ticket = pool::create(
            &setup.tools.wow,
            dir.private_dir(),
            "demo",
            &setup.topology.seeds()?,
        )?;
        let attachments: Vec<_> = setup
            .topology
            .places
            .iter()
            .map(|place| dir.cable(&place.name))
            .collect::<Result<_>>()?;
        let wan = Wan::start(
            guarded_command(&setup.tools.wan, setup.tether),
            &dir.private("wan.toml"),
            &setup.topology.to_toml(&attachments),
            None,
            &dir.log("wan.log"),
        )?;
        let mut bed = Self {
            vms: Vec::new(),
            nodes: Vec::new(),
            consoles: Vec::new(),
            ticket,
            wan,
            dir,
        };
        for (index, place) in setup.topology.places.iter().enumerate() {
            let (vm, node, console) = bed.machine(setup, index, place)?;
            bed.vms.push(vm);
            bed.nodes.push(node);
            bed.consoles.push(console);
        }
        Ok(bed)
    }

    /// Pulls the plug of a machine.
    pub fn unplug(&mut self, index: usize) {
        self.vms[index].kill();
    }

    /// Pulls the plug of a machine and boots it anew, as the node that it is then. Who has a [`More::tap`] has
    /// another device of that name.
    pub fn boot_again(&mut self, setup: &Setup, index: usize) -> Result<()> {
        let place = &setup.topology.places[index];
        self.unplug(index);
        let (vm, node, console) = self.machine(setup, index, place)?;
        self.vms[index] = vm;
        self.nodes[index] = node;
        self.consoles[index] = console;
        Ok(())
    }

    fn machine(&self, setup: &Setup, index: usize, place: &Place) -> Result<(Vm, Node, PathBuf)> {
        self.start_machine(setup, index, place)
            .with_context(|| format!("cannot start machine {}", place.name))
    }

    fn start_machine(
        &self,
        setup: &Setup,
        index: usize,
        place: &Place,
    ) -> Result<(Vm, Node, PathBuf)> {
        let file = |kind: &str| self.dir.private(&format!("{}.{kind}", place.name));
        let name_file = file("name");
        std::fs::write(&name_file, &place.name)?;
        let firmware = if index == 0 {
            Firmware::Direct
        } else {
            setup.firmware
        };
        let uefi = match firmware {
            Firmware::Uefi => Uefi::prepare(&file("vars"))?,
            Firmware::Direct | Firmware::Bios => None,
        };
        let mac_end = u8::try_from(index + 1).context("more than 255 machines")?;
        let more: Vec<&More> = setup
            .more
            .iter()
            .filter(|more| more.place == place.name)
            .collect();
        let mut nics = vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x00, mac_end],
            backend: Backend::Stream(file("net")),
        }];
        nics.extend(
            more.iter()
                .filter_map(|more| more.tap.as_ref())
                .map(|tap| Nic {
                    mac: [0x52, 0x54, 0x00, 0x77, 0x03, mac_end],
                    backend: Backend::Tap(tap.clone()),
                }),
        );
        let mut fw_cfg = vec![
            FwCfg {
                name: "opt/wow/ticket".into(),
                file: self.ticket.clone(),
            },
            FwCfg {
                name: "opt/wow/name".into(),
                file: name_file,
            },
        ];
        for (key, value) in more.iter().flat_map(|more| &more.settings) {
            let file = file(key);
            std::fs::write(&file, value)?;
            fw_cfg.push(FwCfg {
                name: format!("opt/wow/{key}"),
                file,
            });
        }
        let spec = VmSpec {
            name: place.name.clone(),
            machine: setup.machine,
            hardware: setup.hardware,
            firmware,
            image: setup.image.clone(),
            uefi,
            memory_mib: setup.memory_mib,
            cpus: 1,
            nics,
            disks: more.iter().flat_map(|more| more.disks.clone()).collect(),
            serial: Serial::Socket {
                path: file("serial"),
                log: self.dir.log(&format!("{}.console.log", place.name)),
            },
            control: Some(file("sock")),
            qmp: Some(file("qmp")),
            fw_cfg,
            append: Vec::new(),
            // What it has written to a disk of its own is there for its next start.
            reboots: setup.image.own_disk,
            incoming: None,
            ports: 0,
            rtc: None,
        };
        let messages = self.dir.log(&format!("{}.qemu.log", place.name));
        let vm = Vm::start(
            &setup.emulator,
            setup.accelerator.accelerator,
            &spec,
            &messages,
            setup.tether,
        )?;
        let node = Node {
            name: place.name.clone(),
            client: Client::new(&setup.tools.wow, &file("sock")),
            started: vm.started(),
        };
        Ok((vm, node, file("serial")))
    }

    /// The nodes, the seed first.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The directory of the logs.
    pub fn logs(&self) -> &std::path::Path {
        self.dir.logs()
    }

    /// An error when a machine or the emulator has ended.
    pub fn check_running(&mut self) -> Result<()> {
        self.wan.check_running()?;
        for vm in &mut self.vms {
            vm.check_running()?;
        }
        Ok(())
    }

    /// Presses every power button; an error names the machines that did not go by themselves.
    pub fn power_off(&mut self, limit: Duration) -> Result<()> {
        let stubborn: Vec<String> = self
            .vms
            .iter_mut()
            .filter_map(|vm| (!vm.power_off(limit)).then(|| vm.name().to_owned()))
            .collect();
        if stubborn.is_empty() {
            return Ok(());
        }
        bail!(
            "did not power off within {} s: {}",
            limit.as_secs(),
            stubborn.join(", ")
        )
    }

    /// Every process, console and control socket, by name, for `--keep`.
    pub fn inventory(&self) -> crate::kept::Inventory {
        let machines = self.vms.iter().zip(&self.nodes).zip(&self.consoles);
        let process = wow_builder::host::process::ProcessId::of;
        crate::kept::Inventory {
            helpers: process(self.wan.pid()).into_iter().collect(),
            machines: machines
                .map(|((vm, node), console)| crate::kept::Machine {
                    name: node.name.clone(),
                    process: process(vm.pid()),
                    console: console.clone(),
                    control: node.client.socket().to_path_buf(),
                })
                .collect(),
            private_dir: self.dir.private_dir().to_path_buf(),
            logs: self.dir.logs().to_path_buf(),
        }
    }

    /// Lets an untied testbed go on after this process.
    pub fn release(self) {
        for vm in self.vms {
            vm.release();
        }
        self.wan.release();
        self.dir.keep();
    }
}
