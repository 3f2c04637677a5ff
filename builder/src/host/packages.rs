//! Which Debian packages each purpose needs, each with the file that proves its presence.
//!
//! A package counts as present when its proof exists, whoever put it there: a QEMU built from source
//! or another distribution's compiler serves as well.

use std::path::{Path, PathBuf};

/// What the packages are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Building an image: compiler and kernel prerequisites, disk tools.
    Image,
    /// Building a Debian image: Debian itself, programs of ours, disk tools.
    Debian,
    /// Building a Debian image as an ordinary user.
    DebianUser,
    /// Building the bundle: programs of ours.
    Bundle,
    /// Putting it on other hosts.
    Deploy,
    /// Running an image: the emulator and its firmware.
    Boot,
    /// Running a testbed of network namespaces.
    Lab,
    /// Reaching the machines of a testbed by SSH.
    Cluster,
    /// Measuring other overlays beside ours, out of another Debian.
    Bench,
    /// The tests: the system's own readers of what we write, a gateway.
    Test,
    /// Building the fuzzer.
    Fuzz,
    /// Running another Debian's Slurm in namespaces.
    Slurm,
}

/// One Debian package and how to tell that what we want of it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// What it is needed for, in a few words for the person who is asked to install it.
    pub why: &'static str,
    proof: Proof,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// A program in one of the usual directories.
    Program(&'static str),
    /// Any one of these files.
    Files(&'static [&'static str]),
}

/// Where programs are looked for besides `PATH`: an ordinary user's lacks the sbin directories.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

const fn program(name: &'static str, proof: &'static str, why: &'static str) -> Package {
    Package {
        name,
        why,
        proof: Proof::Program(proof),
    }
}

#[cfg(test)]
impl Package {
    /// A package that nothing proves.
    pub fn named(name: &'static str) -> Self {
        files(name, &[], "a test")
    }
}

const fn files(name: &'static str, proof: &'static [&'static str], why: &'static str) -> Package {
    Package {
        name,
        why,
        proof: Proof::Files(proof),
    }
}

const fn keyring(why: &'static str) -> Package {
    files(
        "debian-archive-keyring",
        &[
            "/usr/share/keyrings/debian-archive-keyring.gpg",
            "/usr/share/keyrings/debian-archive-keyring.pgp",
        ],
        why,
    )
}

// What every disk is made with.
const DOSFSTOOLS: Package = program("dosfstools", "mkfs.fat", "makes the disk's FAT file system");
const MTOOLS: Package = program("mtools", "mcopy", "writes files into the disk without root");
const SYSLINUX: Package = program("syslinux", "syslinux", "boots the disk by BIOS");

// What a CD-ROM boots with by BIOS.
const ISOLINUX: Package = files(
    "isolinux",
    &["/usr/lib/ISOLINUX/isolinux.bin"],
    "boots the CD-ROM by BIOS",
);
const SYSLINUX_COMMON: Package = files(
    "syslinux-common",
    &["/usr/lib/syslinux/modules/bios/ldlinux.c32"],
    "boots the CD-ROM by BIOS",
);

const IMAGE: &[Package] = &[
    program("bc", "bc", "computes the kernel's time constants"),
    program("bison", "bison", "generates kconfig's parser"),
    program("flex", "flex", "generates kconfig's scanner"),
    program("gcc", "gcc", "compiles the kernel"),
    program("make", "make", "runs the kernel's build"),
    program("xz-utils", "xz", "unpacks the kernel source"),
    program("zstd", "zstd", "compresses the kernel"),
    files(
        "libc6-dev",
        &["/usr/include/stdlib.h"],
        "headers of the kernel's host tools",
    ),
    files(
        "libelf-dev",
        &["/usr/include/libelf.h"],
        "reads ELF in the kernel's build",
    ),
    files(
        "libssl-dev",
        &["/usr/include/openssl/ssl.h"],
        "hashes in the kernel's build",
    ),
    DOSFSTOOLS,
    MTOOLS,
    SYSLINUX,
    ISOLINUX,
    SYSLINUX_COMMON,
    keyring("checks the signatures of the kernel source"),
];

const DEBIAN: &[Package] = &[
    program("mmdebstrap", "mmdebstrap", "unpacks Debian's packages"),
    keyring("checks the signatures of Debian's packages"),
    program("e2fsprogs", "mke2fs", "makes the root file system"),
    DOSFSTOOLS,
    MTOOLS,
    SYSLINUX,
    ISOLINUX,
    SYSLINUX_COMMON,
    program(
        "squashfs-tools",
        "mksquashfs",
        "compresses the CD-ROM's root file system",
    ),
    program("gcc", "gcc", "links our programs"),
    program(
        "util-linux",
        "setpriv",
        "ends a program with the build that runs it",
    ),
];

const DEBIAN_USER: &[Package] = &[program(
    "uidmap",
    "newuidmap",
    "gives a user the ids of /etc/subuid, for Debian's files",
)];

const BUNDLE: &[Package] = &[
    program("gcc", "gcc", "links our programs"),
    program(
        "util-linux",
        "setpriv",
        "ends a program with the build that runs it",
    ),
];

const DEPLOY: &[Package] = &[
    program("openssh-client", "ssh", "logs in to the hosts"),
    program("util-linux", "setpriv", "ends a process with its parent"),
];

const BOOT: &[Package] = &[
    program("qemu-system-x86", "qemu-system-x86_64", "runs the image"),
    files(
        "ovmf",
        &[
            "/usr/share/OVMF/OVMF_CODE_4M.fd",
            "/usr/share/OVMF/OVMF_CODE.fd",
        ],
        "firmware for booting by UEFI",
    ),
    program(
        "util-linux",
        "setpriv",
        "ends a virtual machine with its parent",
    ),
];

const LAB: &[Package] = &[
    program("iproute2", "ip", "makes network namespaces"),
    program("util-linux", "setpriv", "ends a process with its parent"),
];

const CLUSTER: &[Package] = &[
    program("openssh-client", "ssh", "reaches the machines"),
    program("iproute2", "ip", "gives this host's node its address"),
    program("util-linux", "nsenter", "enters the machines' network"),
];

const BENCH: &[Package] = &[
    program(
        "mmdebstrap",
        "mmdebstrap",
        "unpacks Debian with other overlays",
    ),
    keyring("checks the signatures of Debian's packages"),
    program("iproute2", "ip", "makes network namespaces"),
    program("util-linux", "setpriv", "ends a process with its parent"),
];

const TEST: &[Package] = &[
    program("chromium", "chromium", "shows the status page in a test"),
    program("cpio", "cpio", "reads the initramfs in a test"),
    program("fdisk", "sfdisk", "reads the disk's partitions in a test"),
    program(
        "miniupnpd-nftables",
        "miniupnpd",
        "is the gateway that maps ports in tests",
    ),
    program("nftables", "nft", "translates addresses in tests"),
    program(
        "qemu-utils",
        "qemu-img",
        "reads disks in other formats in tests",
    ),
    program("xorriso", "xorriso", "reads the CD-ROM in a test"),
    program("iputils-ping", "ping", "asks nodes and guests in tests"),
    program("udhcpc", "udhcpc", "is a guest's DHCP client in tests"),
    program(
        "isc-dhcp-client",
        "dhclient",
        "is a guest's DHCP client for IPv6 in tests",
    ),
];

const FUZZ: &[Package] = &[program("g++", "g++", "compiles libFuzzer")];

const SLURM: &[Package] = &[
    program("mmdebstrap", "mmdebstrap", "unpacks Debian with Slurm"),
    keyring("checks the signatures of Debian's packages"),
    program("util-linux", "nsenter", "makes namespaces and enters them"),
    program("iproute2", "ip", "connects network namespaces"),
];

impl Purpose {
    /// The packages of this purpose, in the order they are named to people.
    pub fn packages(self) -> &'static [Package] {
        match self {
            Self::Image => IMAGE,
            Self::Debian => DEBIAN,
            Self::DebianUser => DEBIAN_USER,
            Self::Bundle => BUNDLE,
            Self::Deploy => DEPLOY,
            Self::Boot => BOOT,
            Self::Lab => LAB,
            Self::Cluster => CLUSTER,
            Self::Bench => BENCH,
            Self::Test => TEST,
            Self::Fuzz => FUZZ,
            Self::Slurm => SLURM,
        }
    }
}

impl Package {
    /// Whether what we need of this package exists below `root` (`/` outside tests).
    pub fn is_present(&self, root: &Path) -> bool {
        match self.proof {
            Proof::Program(name) => find_program_below(root, name).is_some(),
            Proof::Files(files) => files
                .iter()
                .any(|file| root.join(file.trim_start_matches('/')).exists()),
        }
    }
}

/// Packages of `purposes` that are not there, each once, in order.
pub fn missing(purposes: &[Purpose]) -> Vec<Package> {
    missing_below(Path::new("/"), purposes)
}

fn missing_below(root: &Path, purposes: &[Purpose]) -> Vec<Package> {
    let mut found: Vec<Package> = Vec::new();
    for package in purposes.iter().flat_map(|purpose| purpose.packages()) {
        if !package.is_present(root) && !found.iter().any(|known| known.name == package.name) {
            found.push(*package);
        }
    }
    found
}

/// The full path of a program in `PATH` or the sbin directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    find_program_below(Path::new("/"), name)
}

fn find_program_below(root: &Path, name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .chain(SBIN.iter().map(PathBuf::from))
        .filter_map(|dir| Some(root.join(dir.strip_prefix("/").ok()?).join(name)))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_machine_misses_everything_once() {
        let root = tempfile::tempdir().unwrap();
        let names: Vec<_> =
            missing_below(root.path(), &[Purpose::Boot, Purpose::Lab, Purpose::Boot])
                .iter()
                .map(|package| package.name)
                .collect();
        assert_eq!(names, ["qemu-system-x86", "ovmf", "util-linux", "iproute2"]);
    }

    #[test]
    fn a_proof_anywhere_counts() {
        let root = tempfile::tempdir().unwrap();
        for file in ["usr/sbin/ip", "usr/share/OVMF/OVMF_CODE.fd"] {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let names: Vec<_> = missing_below(root.path(), &[Purpose::Boot, Purpose::Lab])
            .iter()
            .map(|package| package.name)
            .collect();
        assert_eq!(names, ["qemu-system-x86", "util-linux"]);
    }

    #[test]
    fn no_purpose_names_a_package_twice() {
        for purpose in [
            Purpose::Image,
            Purpose::Debian,
            Purpose::Boot,
            Purpose::Lab,
            Purpose::Cluster,
            Purpose::Bench,
            Purpose::Slurm,
        ] {
            let mut names: Vec<_> = purpose
                .packages()
                .iter()
                .map(|package| package.name)
                .collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "{purpose:?}");
        }
    }
}
