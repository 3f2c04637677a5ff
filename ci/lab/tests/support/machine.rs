//! One machine by itself, and what is attached to it.

use std::ffi::OsStr;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use wow_builder::host::{Guarded, Tether};
use wow_builder::qemu::qmp::Qmp;
use wow_builder::qemu::{
    Accelerator, Emulator, Firmware, FwCfg, Hardware, Machine, Serial, Vm, VmSpec,
};
use wow_lab::interrupt;

use super::path;

/// Under the translator, with other machines on the same cores.
pub const LIMIT: Duration = Duration::from_secs(240);
pub const POWER_OFF_LIMIT: Duration = Duration::from_secs(60);

/// Where a test's machine has its sockets and secrets, and where its logs stay.
pub struct Place {
    pub directory: tempfile::TempDir,
    pub logs: PathBuf,
}

impl Place {
    pub fn new(name: &str) -> Place {
        interrupt::install().unwrap();
        let logs = path("WOW_TEST_LOGS").join(name);
        std::fs::create_dir_all(&logs).unwrap();
        // What an earlier run wrote is not to be waited for.
        let _ = std::fs::remove_file(logs.join("console.log"));
        let directory = tempfile::tempdir().unwrap();
        Place { directory, logs }
    }

    pub fn private(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn console(&self) -> PathBuf {
        self.logs.join("console.log")
    }

    /// A new pool's ticket.
    pub fn ticket(&self, seeds: &[String]) -> PathBuf {
        let wow = path("WOW_TEST_WOW");
        wow_lab::pool::create(&wow, self.directory.path(), "lab", seeds).unwrap()
    }

    /// The image started directly on a small machine without a network.
    pub fn spec(&self, name: &str) -> VmSpec {
        VmSpec {
            name: name.into(),
            machine: Machine::Q35,
            hardware: Hardware::Virtio,
            firmware: Firmware::Direct,
            image: super::built(),
            uefi: None,
            memory_mib: 64,
            cpus: 1,
            nics: Vec::new(),
            disks: Vec::new(),
            serial: Serial::Socket {
                path: self.private("serial"),
                log: self.console(),
            },
            control: Some(self.private("control")),
            qmp: Some(self.private("qmp")),
            fw_cfg: Vec::new(),
            append: Vec::new(),
            reboots: false,
            incoming: None,
            ports: 0,
            rtc: None,
        }
    }

    /// A value of the machine's configuration.
    pub fn value(&self, key: &str, text: &str) -> FwCfg {
        std::fs::write(self.private(key), text).unwrap();
        value(key, self.private(key))
    }

    /// QEMU's machine protocol, which QEMU speaks with one at a time.
    pub fn qmp(&self, vm: &mut Vm) -> Qmp {
        wait("QEMU's machine protocol", vm, || {
            Qmp::connect(&self.private("qmp")).ok()
        })
    }

    pub fn start(&self, spec: &VmSpec) -> Vm {
        let emulator = Emulator::find().unwrap();
        let probed = Accelerator::probe(&emulator, &self.logs).unwrap();
        let messages = self.logs.join("qemu.log");
        Vm::start(&emulator, probed.accelerator, spec, &messages, Tether::Tied).unwrap()
    }
}

/// A file as a value of a machine's configuration.
pub fn value(key: &str, file: PathBuf) -> FwCfg {
    FwCfg {
        name: format!("opt/wow/{key}"),
        file,
    }
}

/// Waits until `look` gives something.
pub fn wait<T>(what: &str, vm: &mut Vm, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        vm.check_running().unwrap();
        interrupt::check().unwrap();
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Runs a program to its good end; what it says.
pub fn run(program: impl AsRef<OsStr>, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A floppy's worth of FAT with these files.
pub fn fat(directory: &Path, name: &str, label: &str, files: &[(&str, &[u8])]) -> PathBuf {
    let image = directory.join(format!("{name}.img"));
    let shown = image.to_str().unwrap();
    run(
        "mkfs.vfat",
        &["--invariant", "-n", label, "-C", shown, "1440"],
    );
    for (file, content) in files {
        let source = directory.join(file);
        std::fs::write(&source, content).unwrap();
        run("mcopy", &["-i", shown, source.to_str().unwrap(), "::"]);
    }
    image
}

/// A pool's first node on this host's loopback, which QEMU's own network leads to by the address 10.0.2.2; its files
/// are in this directory, beside the pool's.
pub fn seed(wow: &Path, directory: &Path, port: u16, more: &[&str]) -> Guarded {
    let mut command = Command::new(wow);
    command.args([
        "run",
        "--guest",
        "none",
        "--name",
        "seed",
        "--no-lan",
        "--no-port-mapping",
    ]);
    command.args(["--listen", &format!("127.0.0.1:{port}")]);
    command.args(more);
    for (option, file) in [
        ("--ticket", "lab.ticket"),
        ("--state", "seed"),
        ("--socket", "seed.sock"),
    ] {
        command.arg(option).arg(directory.join(file));
    }
    let log = std::fs::File::create(directory.join("seed.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Guarded::spawn(command).unwrap()
}

/// A UDP port of the loopback that was free just now.
pub fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// The same for TCP.
pub fn free_tcp_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
