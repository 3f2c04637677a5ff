//! What a virtual machine consists of, and the QEMU command line that makes it.
//!
//! Pure: no file is touched and no process started. Written for QEMU 7.2 (Debian 12, the first with
//! `-netdev stream`) to 10 (Debian 13).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::firmware::Uefi;
use super::probe::Accelerator;
use crate::BuildError;
use crate::manifest::{Format, Manifest};

/// Linux's limit on the path of a Unix socket, less its final NUL.
const SOCKET_PATH_MAX_BYTES: usize = 107;

/// An emulated processor's own timer is of unknown speed, and Linux counts a fifth of a second of it to find out. The
/// board's timer is enough for one processor.
const WITHOUT_APIC_TIMER: &str = "nolapic_timer";

/// The name of the virtio-serial port that carries the appliance's control protocol.
pub const CONTROL_PORT: &str = "wow.control";

/// QEMU's board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// A PC with PCI Express: everything works, also migration.
    Q35,
    /// A board for fast boots: virtio on MMIO, no PCI, no firmware but QEMU's own loader.
    Microvm,
}

/// How the image is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// QEMU loads the kernel itself.
    Direct,
    /// SeaBIOS starts the disk's boot loader.
    Bios,
    /// OVMF starts the kernel on the disk as an EFI program.
    Uefi,
}

/// What network cards and disks are attached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hardware {
    /// Virtio.
    Virtio,
    /// VMware's own: vmxnet3 and pvscsi. [`Machine::Q35`] alone.
    Vmware,
    /// What VMware presents unless it is told what the guest is: e1000e and AHCI. [`Machine::Q35`] alone.
    Plain,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Q35 => "q35",
            Self::Microvm => "microvm",
        })
    }
}

impl FromStr for Machine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "q35" => Ok(Self::Q35),
            "microvm" => Ok(Self::Microvm),
            _ => Err(format!("{text:?} is no machine; there are q35 and microvm")),
        }
    }
}

impl fmt::Display for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Virtio => "virtio",
            Self::Vmware => "vmware",
            Self::Plain => "plain",
        })
    }
}

impl FromStr for Hardware {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "virtio" => Ok(Self::Virtio),
            "vmware" => Ok(Self::Vmware),
            "plain" => Ok(Self::Plain),
            _ => Err(format!(
                "{text:?} is no hardware; there are virtio, vmware and plain"
            )),
        }
    }
}

impl fmt::Display for Firmware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Bios => "bios",
            Self::Uefi => "uefi",
        })
    }
}

impl FromStr for Firmware {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "direct" => Ok(Self::Direct),
            "bios" => Ok(Self::Bios),
            "uefi" => Ok(Self::Uefi),
            _ => Err(format!(
                "{text:?} is no firmware; there are direct, bios and uefi"
            )),
        }
    }
}

/// The image's files; which one is used depends on the firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// What starts a kernel that has no initramfs built in.
    pub loader: Option<Loader>,
    /// The disk.
    pub disk: PathBuf,
    /// Its format.
    pub disk_format: Format,
    /// Whether the disk is this machine's own, which it writes to; an artefact is not.
    pub own_disk: bool,
}

/// What a boot loader gives to a kernel whose root is on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loader {
    /// The initramfs.
    pub initrd: PathBuf,
    /// The command line.
    pub command_line: String,
}

impl ImageFiles {
    /// The files of a built image.
    pub fn of(manifest: &Manifest) -> Result<Self, BuildError> {
        let path = |format: Format| {
            let path = manifest.path(format).filter(|path| path.is_file());
            path.ok_or_else(|| {
                let name = &manifest.image;
                BuildError::Input(format!("the build of {name} left no {format}"))
            })
        };
        let loader = match &manifest.command_line {
            Some(command_line) => Some(Loader {
                initrd: path(Format::Initrd)?,
                command_line: command_line.clone(),
            }),
            None => None,
        };
        Ok(Self {
            kernel: path(Format::Kernel)?,
            loader,
            disk: path(Format::Raw)?,
            disk_format: Format::Raw,
            own_disk: false,
        })
    }
}

/// Where a network card's cable ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// QEMU's own NAT to the host's network.
    User,
    /// A Unix socket on which QEMU listens for one WAN emulator; frames after a 4-byte length.
    Stream(PathBuf),
    /// A TAP device of this name, which QEMU makes: superpackets and missing checksums pass. Needs root.
    Tap(String),
}

/// One network card.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// Ethernet address.
    pub mac: [u8; 6],
    /// Where its cable ends.
    pub backend: Backend,
}

impl Nic {
    /// The address as `52:54:00:…`.
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// Where the serial console goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serial {
    /// This terminal, with QEMU's monitor behind Ctrl-A.
    Terminal {
        /// Also written here.
        log: Option<PathBuf>,
    },
    /// A Unix socket that one client at a time may connect to; everything is also logged.
    Socket {
        /// The socket.
        path: PathBuf,
        /// The log file.
        log: PathBuf,
    },
}

/// One value that the guest reads by fw_cfg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FwCfg {
    /// Its name, `opt/…`.
    pub name: String,
    /// The file with its value. A file, so that secrets stay out of the argument list.
    pub file: PathBuf,
}

/// A virtual machine, complete.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// Shown by `ps` and in messages.
    pub name: String,
    /// The board.
    pub machine: Machine,
    /// What is attached to it.
    pub hardware: Hardware,
    /// How the image is started.
    pub firmware: Firmware,
    /// The image.
    pub image: ImageFiles,
    /// OVMF's files; needed for [`Firmware::Uefi`] alone.
    pub uefi: Option<Uefi>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Network cards, in order.
    pub nics: Vec<Nic>,
    /// Disks besides the image's, raw, which are written to. [`Hardware::Virtio`] alone.
    pub disks: Vec<PathBuf>,
    /// The console.
    pub serial: Serial,
    /// The Unix socket that leads to the guest's control port.
    pub control: Option<PathBuf>,
    /// The Unix socket of QEMU's machine protocol.
    pub qmp: Option<PathBuf>,
    /// Values for the guest.
    pub fw_cfg: Vec<FwCfg>,
    /// Words added to the kernel's built-in command line; [`Firmware::Direct`] alone.
    pub append: Vec<String>,
    /// Whether a guest that resets starts anew (else the process ends).
    pub reboots: bool,
    /// The Unix socket on which a guest that runs elsewhere is waited for, instead of booting one.
    pub incoming: Option<PathBuf>,
    /// PCI Express ports that cards can be put into while the machine runs ([`super::qmp::Qmp::attach_card`]);
    /// [`Machine::Q35`] alone.
    pub ports: u8,
    /// What the hardware's clock says at the start, as QEMU is told it: `2026-11-29T08:30:00`. `None` is the truth.
    pub rtc: Option<String>,
}

/// Why a description makes no machine.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    /// microvm has neither BIOS nor UEFI.
    #[error("microvm boots only with firmware direct, not {0}: take --machine q35")]
    MicrovmFirmware(Firmware),
    /// microvm has no PCI.
    #[error("microvm has virtio hardware alone: take --machine q35")]
    MicrovmHardware,
    /// UEFI without OVMF's files.
    #[error("booting by UEFI needs the firmware's files (Debian package ovmf)")]
    NoUefi,
    /// A kernel command line that nothing would pass on.
    #[error("firmware {0} has no command line to append to: take --firmware direct")]
    Append(Firmware),
    /// More disks than other hardware has places for.
    #[error("more disks than the image's need virtio hardware")]
    Disks,
    /// Longer than the kernel's `sun_path`.
    #[error("socket path {} is longer than {SOCKET_PATH_MAX_BYTES} bytes: take a shorter directory", .0.display())]
    SocketPath(PathBuf),
    /// QEMU's syntax has no place for it.
    #[error("path {} is no UTF-8", .0.display())]
    Utf8(PathBuf),
}

impl VmSpec {
    /// QEMU's arguments.
    pub fn arguments(&self, accelerator: Accelerator) -> Result<Vec<String>, SpecError> {
        self.check()?;
        let mut line = Line::default();
        line.flag("-nodefaults").flag("-no-user-config");
        line.option("-display", "none");
        line.option(
            "-name",
            &format!(
                "{},process=wow-vm-{}",
                escape(&self.name),
                escape(&self.name)
            ),
        );
        line.option(
            "-machine",
            match self.machine {
                // Boards' parts that a router never uses and Linux probes at length.
                Machine::Q35 if self.needs_ahci() => "q35,smbus=off,hpet=off",
                Machine::Q35 => "q35,sata=off,smbus=off,hpet=off",
                // With ACPI this board hangs now and then; the guest resets by triple fault.
                Machine::Microvm => "microvm,acpi=off",
            },
        );
        line.option("-accel", accelerator.name());
        line.option(
            "-cpu",
            match accelerator {
                Accelerator::Kvm => "host",
                Accelerator::Tcg => "max",
            },
        );
        line.option("-m", &format!("{}M", self.memory_mib));
        line.option("-smp", &self.cpus.to_string());
        if !self.reboots {
            line.flag("-no-reboot");
        }
        self.add_boot(&mut line, accelerator)?;
        for (index, disk) in self.disks.iter().enumerate() {
            line.option(
                "-drive",
                &format!("if=none,id=more{index},format=raw,file={}", path(disk)?),
            );
            let device = self.device("virtio-blk");
            line.option("-device", &format!("{device},drive=more{index}"));
        }
        self.add_console(&mut line)?;
        self.add_nics(&mut line)?;
        self.add_control(&mut line)?;
        for port in 0..self.ports {
            let chassis = u32::from(port) + 1;
            line.option(
                "-device",
                &format!("pcie-root-port,id=port{port},chassis={chassis}"),
            );
        }
        if let Some(base) = &self.rtc {
            line.option("-rtc", &format!("base={base}"));
        }
        line.option("-object", "rng-random,id=rng0,filename=/dev/urandom");
        line.option(
            "-device",
            &format!("{},rng=rng0", self.device("virtio-rng")),
        );
        for value in &self.fw_cfg {
            line.option(
                "-fw_cfg",
                &format!("name={},file={}", escape(&value.name), path(&value.file)?),
            );
        }
        if let Some(socket) = &self.incoming {
            line.option("-incoming", &format!("unix:{}", plain(socket)?));
        }
        if let Some(socket) = &self.qmp {
            line.option(
                "-qmp",
                &format!("unix:{},server=on,wait=off", path(socket)?),
            );
        }
        Ok(line.0)
    }

    fn check(&self) -> Result<(), SpecError> {
        if self.machine == Machine::Microvm && self.firmware != Firmware::Direct {
            return Err(SpecError::MicrovmFirmware(self.firmware));
        }
        if self.machine == Machine::Microvm && self.hardware != Hardware::Virtio {
            return Err(SpecError::MicrovmHardware);
        }
        if self.firmware != Firmware::Direct && !self.append.is_empty() {
            return Err(SpecError::Append(self.firmware));
        }
        if self.hardware != Hardware::Virtio && !self.disks.is_empty() {
            return Err(SpecError::Disks);
        }
        let mut sockets: Vec<&Path> = self
            .control
            .iter()
            .chain(&self.qmp)
            .chain(&self.incoming)
            .map(PathBuf::as_path)
            .collect();
        if let Serial::Socket { path, .. } = &self.serial {
            sockets.push(path);
        }
        for nic in &self.nics {
            if let Backend::Stream(path) = &nic.backend {
                sockets.push(path);
            }
        }
        match sockets
            .iter()
            .find(|path| path.as_os_str().len() > SOCKET_PATH_MAX_BYTES)
        {
            Some(long) => Err(SpecError::SocketPath(long.to_path_buf())),
            None => Ok(()),
        }
    }

    fn is_disc(&self) -> bool {
        self.image.disk_format == Format::Iso
    }

    /// Plain disks are attached by it, and CD-ROMs to any machine.
    fn needs_ahci(&self) -> bool {
        self.hardware == Hardware::Plain || self.is_disc()
    }

    /// A virtio device's name on this board's bus.
    fn device(&self, kind: &str) -> String {
        match self.machine {
            Machine::Q35 => format!("{kind}-pci"),
            Machine::Microvm => format!("{kind}-device"),
        }
    }

    fn add_boot(&self, line: &mut Line, accelerator: Accelerator) -> Result<(), SpecError> {
        match self.firmware {
            Firmware::Direct => {
                line.option("-kernel", plain(&self.image.kernel)?);
                let mut words: Vec<&str> = self.append.iter().map(String::as_str).collect();
                if accelerator == Accelerator::Tcg && self.cpus == 1 {
                    words.push(WITHOUT_APIC_TIMER);
                }
                if let Some(loader) = &self.image.loader {
                    line.option("-initrd", plain(&loader.initrd)?);
                    words.insert(0, &loader.command_line);
                }
                if !words.is_empty() {
                    line.option("-append", &words.join(" "));
                }
                if self.image.loader.is_none() {
                    return Ok(());
                }
            }
            Firmware::Bios => {}
            Firmware::Uefi => {
                let uefi = self.uefi.as_ref().ok_or(SpecError::NoUefi)?;
                for (unit, file, readonly) in [(0, &uefi.code, "on"), (1, &uefi.variables, "off")] {
                    line.option(
                        "-drive",
                        &format!(
                            "if=pflash,format=raw,unit={unit},readonly={readonly},file={}",
                            path(file)?
                        ),
                    );
                }
            }
        }
        // QEMU's own loader of kernels is the first to boot from, where it is used.
        let first = match self.firmware {
            Firmware::Direct => "",
            Firmware::Bios | Firmware::Uefi => ",bootindex=0",
        };
        if self.is_disc() {
            line.option(
                "-drive",
                &format!(
                    "if=none,id=disk0,format=raw,media=cdrom,readonly=on,file={}",
                    path(&self.image.disk)?
                ),
            );
            line.option("-device", &format!("ide-cd,bus=ide.0,drive=disk0{first}"));
            return Ok(());
        }
        // The artefact itself is never written to.
        let snapshot = if self.image.own_disk { "off" } else { "on" };
        line.option(
            "-drive",
            &format!(
                "if=none,id=disk0,format={},snapshot={snapshot},file={}",
                self.image.disk_format,
                path(&self.image.disk)?
            ),
        );
        let disk = match self.hardware {
            Hardware::Virtio => self.device("virtio-blk"),
            Hardware::Vmware => {
                line.option("-device", "pvscsi,id=scsi0");
                "scsi-hd,bus=scsi0.0".to_owned()
            }
            Hardware::Plain => "ide-hd,bus=ide.0".to_owned(),
        };
        line.option("-device", &format!("{disk},drive=disk0{first}"));
        Ok(())
    }

    fn add_console(&self, line: &mut Line) -> Result<(), SpecError> {
        match &self.serial {
            Serial::Terminal { log } => {
                let log = match log {
                    Some(log) => format!(",logfile={}", path(log)?),
                    None => String::new(),
                };
                line.option(
                    "-chardev",
                    &format!("stdio,id=serial0,mux=on,signal=off{log}"),
                );
                line.option("-mon", "chardev=serial0,mode=readline");
            }
            Serial::Socket { path: socket, log } => {
                line.option(
                    "-chardev",
                    &format!(
                        "socket,id=serial0,path={},server=on,wait=off,logfile={}",
                        path(socket)?,
                        path(log)?
                    ),
                );
            }
        }
        line.option("-serial", "chardev:serial0");
        Ok(())
    }

    fn add_nics(&self, line: &mut Line) -> Result<(), SpecError> {
        for (index, nic) in self.nics.iter().enumerate() {
            match &nic.backend {
                Backend::User => line.option("-netdev", &format!("user,id=net{index}")),
                Backend::Stream(socket) => line.option(
                    "-netdev",
                    &format!(
                        "stream,id=net{index},server=on,addr.type=unix,addr.path={}",
                        path(socket)?
                    ),
                ),
                Backend::Tap(name) => line.option(
                    "-netdev",
                    &format!(
                        "tap,id=net{index},ifname={},script=no,downscript=no,vhost=off",
                        escape(name)
                    ),
                ),
            };
            // No option ROM: nothing boots from the network, and BIOS and UEFI lose time on it.
            let rom = match self.machine {
                Machine::Q35 => ",romfile=",
                Machine::Microvm => "",
            };
            let card = match self.hardware {
                Hardware::Virtio => self.device("virtio-net"),
                Hardware::Vmware => "vmxnet3".to_owned(),
                Hardware::Plain => "e1000e".to_owned(),
            };
            line.option(
                "-device",
                &format!("{card},netdev=net{index},mac={}{rom}", nic.mac_text()),
            );
        }
        Ok(())
    }

    fn add_control(&self, line: &mut Line) -> Result<(), SpecError> {
        let Some(socket) = &self.control else {
            return Ok(());
        };
        line.option("-device", &self.device("virtio-serial"));
        line.option(
            "-chardev",
            &format!(
                "socket,id=control0,path={},server=on,wait=off",
                path(socket)?
            ),
        );
        line.option(
            "-device",
            &format!("virtserialport,chardev=control0,name={CONTROL_PORT}"),
        );
        Ok(())
    }
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.to_owned());
        self
    }

    fn option(&mut self, option: &str, value: &str) -> &mut Self {
        self.flag(option).flag(value)
    }
}

fn plain(path: &Path) -> Result<&str, SpecError> {
    path.to_str()
        .ok_or_else(|| SpecError::Utf8(path.to_path_buf()))
}

fn path(path: &Path) -> Result<String, SpecError> {
    plain(path).map(escape)
}

/// A comma inside a value is doubled in QEMU's option syntax.
fn escape(value: &str) -> String {
    value.replace(',', ",,")
}

#[cfg(test)]
#[path = "spec/tests.rs"]
mod tests;
