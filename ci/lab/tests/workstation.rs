//! The workstation image: what its root holds and must not hold, and that it boots and joins.
//!
//! `cargo xtask test` runs these: it builds the image and says where it is.

mod support;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use wow_builder::definition::Definition;
use wow_builder::host::Tether;
use wow_builder::manifest::{Format, Manifest};
use wow_builder::qemu::{
    Accelerator, Backend, Emulator, Firmware, Hardware, ImageFiles, Loader, Machine, Nic, Vm,
    VmSpec,
};
use wow_lab::client::Client;
use wow_lab::control::Control;
use wow_lab::experiment::Node;
use wow_lab::topology::Topology;
use wow_lab::vms::{Setup, VmTestbed};
use wow_lab::{experiment, interrupt};

use support::machine::{self, Place};
use support::path;

/// Two Debians under the translator, with other machines on the same cores.
const JOIN_LIMIT: Duration = Duration::from_secs(1200);
const POWER_OFF_LIMIT: Duration = Duration::from_secs(300);

fn manifest() -> Manifest {
    Manifest::load(&path("WOW_TEST_IMAGE")).unwrap()
}

/// The image as a CD-ROM.
fn disc() -> ImageFiles {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Definition::Debian(definition) = Definition::load(&root, "workstation").unwrap() else {
        panic!("the workstation is a Debian image");
    };
    let manifest = manifest();
    ImageFiles {
        loader: Some(Loader {
            initrd: manifest.path(Format::Initrd).unwrap(),
            command_line: definition.disc.unwrap().command_line,
        }),
        disk: manifest.path(Format::Iso).unwrap(),
        disk_format: Format::Iso,
        ..ImageFiles::of(&manifest).unwrap()
    }
}

/// The root file system within the disk, as e2fsprogs' programs take it.
fn root() -> String {
    let disk = manifest().path(Format::Raw).unwrap();
    let mut tables = vec![0; 4096];
    let mut file = std::fs::File::open(&disk).unwrap();
    std::io::Read::read_exact(&mut file, &mut tables).unwrap();
    // The first sector of the second partition's entry.
    let at = 1024 + 128 + 32;
    let first = u64::from_le_bytes(tables[at..at + 8].try_into().unwrap());
    format!("{}?offset={}", disk.display(), first * 512)
}

/// What debugfs says to one question about the root; it complains on the second output.
fn ask(question: &str) -> (String, String) {
    debugfs(&["-R", question, &root()])
}

fn debugfs(arguments: &[&str]) -> (String, String) {
    let mut command = Command::new("/usr/sbin/debugfs");
    let output = command.env("DEBUGFS_PAGER", "cat").args(arguments).output();
    let output = output.unwrap();
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn holds(path: &str, mode: &str) {
    let (answer, _) = ask(&format!("stat {path}"));
    let expected = format!("Mode:  {mode} ");
    assert!(answer.contains(&expected), "{path}: {answer}");
    assert!(
        answer.contains("User:     0   Group:     0"),
        "{path}: {answer}"
    );
}

#[track_caller]
fn lacks(path: &str) {
    let (answer, complaint) = ask(&format!("stat {path}"));
    assert!(
        complaint.contains("File not found"),
        "{path}: {answer}{complaint}"
    );
}

#[test]
fn the_root_is_sound_and_holds_our_programs_and_units() {
    let check = Command::new("/usr/sbin/e2fsck")
        .args(["-f", "-n", &root()])
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
    holds("/usr/local/bin/wow", "0755");
    holds("/usr/local/bin/wow-pbs", "0755");
    holds("/usr/local/bin/wow-workstation", "0755");
    holds("/usr/local/bin/qsub", "0777");
    holds("/etc/systemd/system/wow.service", "0644");
    holds(
        "/etc/systemd/system/multi-user.target.wants/wow.service",
        "0777",
    );
    holds("/etc/wow.toml", "0600");
    holds("/etc/sudoers.d/wow", "0440");
}

#[test]
fn the_root_holds_no_secret_no_password_and_no_cluster_that_starts_by_itself() {
    lacks("/etc/munge/munge.key");
    for kind in ["rsa", "ecdsa", "ed25519"] {
        lacks(&format!("/etc/ssh/ssh_host_{kind}_key"));
    }
    for unit in ["slurmctld", "slurmd", "munge", "nfs-server", "rpcbind"] {
        lacks(&format!(
            "/etc/systemd/system/multi-user.target.wants/{unit}.service"
        ));
    }
    assert_eq!(ask("cat /etc/machine-id").0, "");
    let shadow = ask("cat /etc/shadow").0;
    let locked = |line: &str| {
        let field = line.split(':').nth(1).unwrap_or_default();
        field.starts_with('*') || field.starts_with('!')
    };
    assert!(shadow.lines().count() > 10);
    let open: Vec<&str> = shadow.lines().filter(|line| !locked(line)).collect();
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_root_has_openmpi_without_the_compiler_for_graphics_cards() {
    let libraries = "/usr/lib/x86_64-linux-gnu";
    holds("/usr/bin/prte", "0755");
    holds(&format!("{libraries}/libmpi.so.40"), "0777");
    for library in ["libLLVM-17.so.1", "libamd_comgr.so.2", "libamdhip64.so.5"] {
        lacks(&format!("{libraries}/{library}"));
    }
}

#[test]
fn the_cd_rom_has_the_initramfs_and_the_root_of_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("disc");
    let run = |program: &str, arguments: &[&OsStr]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program}: {errors}");
        output.stdout
    };
    let disc = disc();
    let extract = ["-osirrox", "on", "-indev"].map(OsStr::new);
    let whole = [disc.disk.as_os_str(), "-extract".as_ref(), "/".as_ref()];
    run(
        "xorriso",
        &[&extract[..], &whole, &[into.as_os_str()]].concat(),
    );
    let same = |name: &str, file: &Path| {
        std::fs::read(into.join(name)).unwrap() == std::fs::read(file).unwrap()
    };
    assert!(same("INITRD.IMG", &disc.loader.unwrap().initrd));
    assert!(same("VMLINUZ.IMG", &disc.kernel));
    // By this a disk is known that was begun with another root.
    let id = std::fs::read_to_string(into.join("ROOT.ID")).unwrap();
    assert!(id.len() == 65 && id.ends_with('\n'), "{id}");
    let root = into.join("ROOT.IMG");
    let list = run("unsquashfs", &["-lln".as_ref(), root.as_os_str()]);
    let list = String::from_utf8(list).unwrap();
    let holds = |mode: &str, owner: &str, path: &str| {
        let mut lines = list.lines();
        let place = format!(" squashfs-root{path}");
        lines.any(|line| line.starts_with(mode) && line.contains(owner) && line.ends_with(&place))
    };
    for (mode, owner, path) in [
        ("drwxr-xr-x", " 0/0 ", ""),
        ("-rwsr-xr-x", " 0/0 ", "/usr/bin/sudo"),
        ("drwxrwxrwt", " 0/0 ", "/tmp"),
        ("-rw-------", " 0/0 ", "/etc/wow.toml"),
        ("-rw-r-----", " 0/42 ", "/etc/shadow"),
        ("lrwxrwxrwx", " 0/0 ", "/usr/local/bin/qsub -> wow-pbs"),
    ] {
        assert!(holds(mode, owner, path), "{path}");
    }
    let program = [
        "-cat".as_ref(),
        root.as_os_str(),
        "usr/local/bin/wow".as_ref(),
    ];
    assert!(run("unsquashfs", &program) == std::fs::read(path("WOW_TEST_WOW")).unwrap());
}

#[test]
fn the_manifest_names_the_packages_with_their_versions() {
    let manifest = manifest();
    for name in [
        "openssh-server",
        "slurmctld",
        "slurmd",
        "libc6",
        "/usr/local/bin/wow",
    ] {
        let fact = manifest.inputs.iter().find(|fact| fact.name == name);
        assert!(fact.is_some_and(|fact| !fact.version.is_empty()), "{name}");
    }
}

#[test]
#[ignore = "two Debians under the translator take minutes: `cargo xtask test --vm` runs it"]
fn it_boots_by_each_firmware_and_joins() {
    interrupt::install().unwrap();
    let logs = path("WOW_TEST_LOGS");
    let emulator = Emulator::find().unwrap();
    let accelerator = Accelerator::probe(&emulator, &logs).unwrap();
    let disk = ImageFiles::of(&manifest()).unwrap();
    let [qcow2, vmdk] = [Format::Qcow2, Format::Vmdk].map(|format| ImageFiles {
        disk: manifest().path(format).unwrap(),
        disk_format: format,
        ..disk.clone()
    });
    for (name, image, hardware, firmware) in [
        ("direct", &disk, Hardware::Virtio, Firmware::Direct),
        // The OVA's disk on the OVA's hardware.
        ("bios", &vmdk, Hardware::Vmware, Firmware::Bios),
        // Its kernel has no driver for plain hardware's network card.
        ("uefi", &qcow2, Hardware::Virtio, Firmware::Uefi),
        // By BIOS `lab prove --disc` has it.
        ("disc", &disc(), Hardware::Vmware, Firmware::Uefi),
    ] {
        let setup = Setup {
            tools: support::tools(),
            emulator: emulator.clone(),
            accelerator: accelerator.clone(),
            image: image.clone(),
            machine: Machine::Q35,
            hardware,
            firmware,
            memory_mib: 768,
            topology: Topology::seed_and_nated(1),
            logs: logs.join(format!("workstation-{name}")),
            tether: Tether::Tied,
            more: Vec::new(),
        };
        let mut bed = VmTestbed::start(&setup).unwrap();
        let nodes = bed.nodes().to_vec();
        let joined =
            experiment::join(&nodes, JOIN_LIMIT, &|_| (), &mut || bed.check_running()).unwrap();
        let pairs = experiment::ping_all(&nodes, &joined, 3, &|_| ()).unwrap();
        let logs = bed.logs().display().to_string();
        assert!(pairs.iter().all(|pair| pair.answered()), "logs: {logs}");
        bed.power_off(POWER_OFF_LIMIT).unwrap();
    }
}

/// A machine that starts from the CD-ROM, with a disk for what it writes.
fn live(place: &Place, state: PathBuf) -> VmSpec {
    VmSpec {
        image: disc(),
        firmware: Firmware::Bios,
        memory_mib: 768,
        disks: vec![state],
        nics: vec![Nic {
            mac: [0x52, 0x54, 0x00, 0x77, 0x02, 0x02],
            backend: Backend::User,
        }],
        fw_cfg: vec![machine::value("ticket", place.ticket(&[]))],
        ..place.spec("live")
    }
}

/// Waits until the machine has joined; its node's id.
fn join(place: &Place, vm: &mut Vm) -> String {
    let node = Node {
        name: "live".into(),
        client: Client::new(&path("WOW_TEST_WOW"), &place.private("control")),
        started: vm.started(),
    };
    let mut alive = || vm.check_running().map_err(Into::into);
    let joined = experiment::join(&[node], JOIN_LIMIT, &|_| (), &mut alive).unwrap();
    joined[0].id.clone()
}

#[test]
#[ignore = "two boots of Debian under the translator take minutes: `cargo xtask test --vm` runs it"]
fn from_the_cd_rom_with_a_disk_for_what_it_writes_it_is_the_same_node_again() {
    let place = Place::new("workstation-state");
    let state = place.private("state");
    let file = std::fs::File::create(&state).unwrap();
    file.set_len(256 << 20).unwrap();
    let shown = state.to_str().unwrap();
    machine::run(
        "/usr/sbin/mke2fs",
        &["-q", "-t", "ext4", "-L", "WOW-STATE", shown],
    );
    let spec = live(&place, state);
    let ids = [(), ()].map(|()| {
        let mut vm = place.start(&spec);
        let id = join(&place, &mut vm);
        assert!(vm.power_off(POWER_OFF_LIMIT));
        id
    });
    assert_eq!(ids[0], ids[1]);
}

/// Waits until `wow status` tells this of the disk for what is written.
fn wait_named(place: &Place, vm: &mut Vm, words: &str) {
    machine::wait(words, vm, || {
        let mut control = Control::connect(&place.private("control")).ok()?;
        let status: Value = control.ask(json!({"op": "status"}), machine::LIMIT).ok()?;
        let told = status["trouble"].as_array()?;
        let mut told = told.iter().filter_map(Value::as_str);
        told.any(|sentence| sentence.contains("the disk /dev/") && sentence.contains(words))
            .then_some(())
    });
}

#[test]
#[ignore = "two boots of Debian under the translator take minutes: `cargo xtask test --vm` runs it"]
fn from_the_cd_rom_a_full_disk_is_named_and_left_alone_until_there_is_room() {
    let place = Place::new("workstation-full");
    let state = place.private("state");
    let shown = state.to_str().unwrap();
    let content = place.private("content");
    std::fs::create_dir(&content).unwrap();
    for (name, mib) in [("filler", 180), ("more", 44)] {
        std::fs::write(content.join(name), vec![0xff; mib << 20]).unwrap();
    }
    let directory = content.to_str().unwrap();
    let label = ["-q", "-t", "ext4", "-m", "0", "-L", "WOW-STATE"];
    let filled = [&label[..], &["-d", directory, shown, "256M"]].concat();
    machine::run("/usr/sbin/mke2fs", &filled);
    std::fs::remove_dir_all(&content).unwrap();
    let holds = |path: &str| {
        let (answer, _) = debugfs(&["-R", &format!("stat {path}"), shown]);
        answer.contains("Inode:")
    };
    let spec = live(&place, state.clone());

    let mut vm = place.start(&spec);
    join(&place, &mut vm);
    wait_named(&place, &mut vm, "is not used, since it is full");
    assert!(vm.power_off(POWER_OFF_LIMIT));
    assert!(holds("/more") && !holds("/root"));

    // There is some room, but another build's CD-ROM has been here.
    debugfs(&["-w", "-R", "rm /more", shown]);
    let other = place.private("other");
    std::fs::write(&other, "another\n").unwrap();
    let note = format!("write {} build", other.display());
    debugfs(&["-w", "-R", &note, shown]);
    let mut vm = place.start(&spec);
    join(&place, &mut vm);
    wait_named(&place, &mut vm, "another build's CD-ROM");
    wait_named(&place, &mut vm, "is nearly full");
    assert!(vm.power_off(POWER_OFF_LIMIT));
    assert!(holds("/root/var/lib/wow"));
    machine::run("/usr/sbin/e2fsck", &["-f", "-n", shown]);
}
