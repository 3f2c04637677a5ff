//! Definitions that must be refused name their file and line; the repository's own are accepted.

use super::*;

const GOOD: &str = r#"name = "small"

[kernel]
package = "linux-source-6.12"
versions = { bookworm = "6.12.1-1~deb12u1" }
fragments = ["base"]
command-line = "console=ttyS0 quiet"

[initramfs]
init = { package = "wow-router", binary = "wow" }
directories = [{ path = "/tmp", mode = "1777" }]
files = [
    { path = "/etc/wow.toml", source = "small/wow.toml", mode = "0644" },
]
links = [{ path = "/bin/wow", target = "/init" }]

[disk]
size-mib = 8
label = "WOWBOOT"

[machine]
memory-mib = 128
cpus = 1
properties = [{ key = "ticket", label = "Ticket", help = "of the pool", secret = true }]

[limits]
kernel-bytes = 6_000_000
disk-bytes = 12_000_000
"#;

fn repository() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(root.path().join("images/small")).unwrap();
    std::fs::create_dir_all(root.path().join("kernel-config")).unwrap();
    std::fs::write(
        root.path().join("images/small/wow.toml"),
        "net = \"dhcp\"\n",
    )
    .unwrap();
    std::fs::write(root.path().join("kernel-config/base.config"), "").unwrap();
    std::fs::write(
        root.path().join("images/small/a.service"),
        "[Service]\nExecStart=/bin/a\n[Install]\nWantedBy=multi-user.target\n",
    )
    .unwrap();
    std::fs::write(root.path().join("images/small/b.service"), "[Service]\n").unwrap();
    root
}

fn parse(text: &str) -> Result<Definition, DefinitionError> {
    Definition::parse(repository().path(), Path::new("images/small.toml"), text)
}

fn appliance(definition: Definition) -> Appliance {
    match definition {
        Definition::Appliance(appliance) => appliance,
        Definition::Debian(_) => panic!("not an appliance"),
    }
}

fn debian(definition: Definition) -> Debian {
    match definition {
        Definition::Debian(debian) => debian,
        Definition::Appliance(_) => panic!("not Debian"),
    }
}

/// Changes the good definition and expects an error in `line` that says `message`.
#[track_caller]
fn refused(from: &str, to: &str, line: usize, message: &str) {
    refused_in(GOOD, from, to, line, message);
}

#[track_caller]
fn refused_in(good: &str, from: &str, to: &str, line: usize, message: &str) {
    assert!(good.contains(from), "the good definition has {from:?}");
    let error = parse(&good.replacen(from, to, 1)).expect_err("must be refused");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("images/small.toml:{line}: ")) && text.contains(message),
        "{text}"
    );
}

#[test]
fn a_good_definition_is_taken_whole() {
    let definition = appliance(parse(GOOD).unwrap());
    assert_eq!(
        definition.kernel.fragments,
        [Path::new("kernel-config/base.config")]
    );
    assert_eq!(definition.kernel.command_line_line, 7);
    assert_eq!(
        definition.initramfs.directories,
        [("/tmp".to_owned(), 0o1777)]
    );
    assert_eq!(definition.initramfs.files[0].content, b"net = \"dhcp\"\n");
    assert_eq!(definition.disk.size_mib, 8);
}

#[test]
fn mistakes_are_named_with_file_and_line() {
    refused("label =", "lable =", 19, "lable");
    refused(
        "name = \"small\"",
        "name = \"other\"",
        1,
        "must be \"small\"",
    );
    refused("quiet\"", "quiet", 7, "string");
    refused("console=", "console=\\\"", 7, "printable");
    refused(
        "[\"base\"]",
        "[\"base\", \"bsae\"]",
        6,
        "there is no kernel-config/bsae.config",
    );
    refused("[\"base\"]", "[\"base\", \"base\"]", 6, "twice");
    refused("[\"base\"]", "[]", 6, "at least one");
    refused(
        "linux-source-6.12\"",
        "-o=Evil\"",
        4,
        "not a Debian package name",
    );
    refused("6.12.1-1~deb12u1", "6.12 rm", 5, "not a Debian version");
    refused("\"1777\"", "\"rwx\"", 11, "octal");
    refused("small/wow.toml", "../small.toml", 13, "below images/");
    refused(
        "small/wow.toml",
        "small/none.toml",
        13,
        "cannot read images/small/none.toml",
    );
    refused("/etc/wow.toml", "/tmp", 13, "twice");
    refused("/etc/wow.toml", "etc/wow.toml", 13, "absolute");
    refused("/bin/wow", "/tmp/../wow", 15, "absolute");
    refused("size-mib = 8", "size-mib = 1", 18, "MiB");
    refused("size-mib = 8", "size-mib = 12", 18, "limits.disk-bytes");
    refused(
        "size-mib = 8",
        "size-mib = 8\nslot-mib = 3",
        19,
        "limits.kernel-bytes",
    );
    refused(
        "size-mib = 8",
        "size-mib = 8\nslot-mib = 6",
        19,
        "no room for two slots",
    );
    refused("WOWBOOT", "wowboot", 19, "capitals");
    refused("WOWBOOT", "WOWBOOTDISKS", 19, "at most 11");
    refused("memory-mib = 128", "memory-mib = 126", 22, "in steps of 4");
    refused("memory-mib = 128", "memory-mib = 16", 22, "64 to");
    refused("cpus = 1", "cpus = 0", 23, "processors");
    refused("key = \"ticket\"", "key = \"wow.ticket\"", 24, "hyphens");
    refused("kernel-bytes = 6_000_000", "", 26, "kernel-bytes");
}

const GOOD_DEBIAN: &str = r#"name = "small"

[debian]
suite = "trixie"
packages = ["less", "openssh-server"]
left-out = ["/usr/share/man/*"]
files = [{ path = "/etc/early", source = "small/wow.toml", mode = "0600" }]
disabled = ["munge.service"]
removed = ["/etc/ssh/ssh_host_*"]

[content]
binaries = [{ package = "wow-router", binary = "wow", path = "/usr/local/bin/wow" }]
units = ["small/a.service"]
files = [{ path = "/etc/wow.toml", source = "small/wow.toml", mode = "0600" }]
links = [{ path = "/usr/local/bin/w", target = "wow" }]

[boot]
command-line = "root=LABEL=small ro quiet"

[disk]
boot-mib = 64
boot-label = "BOOT"
root-label = "small"
free-mib = 100

[disc]
label = "LIVE"
command-line = "boot=live"

[machine]
memory-mib = 1024
cpus = 2

[limits]
disk-bytes = 1_000_000_000
"#;

#[test]
fn a_debian_definition_is_taken_whole() {
    let definition = debian(parse(GOOD_DEBIAN).unwrap());
    assert_eq!(definition.packages[1].name, "openssh-server");
    assert_eq!(definition.packages[1].origin, "images/small.toml:5");
    let unit = &definition.units[0];
    assert_eq!(unit.file.path, "/etc/systemd/system/a.service");
    assert_eq!(
        unit.wants[0].path,
        "/etc/systemd/system/multi-user.target.wants/a.service"
    );
    assert_eq!(definition.files[0].mode, 0o600);
    assert_eq!(definition.disk.boot_mib, 64);
    assert_eq!(definition.disc.unwrap().command_line, "boot=live");
}

#[test]
fn mistakes_in_a_debian_definition_are_named_with_file_and_line() {
    let refused = |from: &str, to: &str, line: usize, message: &str| {
        refused_in(GOOD_DEBIAN, from, to, line, message);
    };
    refused("suite =", "siute =", 4, "siute");
    refused("\"trixie\"", "\"Trixie 13\"", 4, "code name");
    refused("\"less\"", "\"less --yes\"", 5, "not a Debian package name");
    refused("\"LIVE\"", "\"LIVE-CD\"", 27, "a CD-ROM's label");
    refused("\"LIVE\"", "\"A_LONG_LABEL\"", 27, "at most 11");
    refused("boot=live", "boot=\\\"", 28, "printable ASCII");
    refused("\"less\"", "\"openssh-server\"", 5, "twice");
    refused("man/*\"", "man/*; rm\"", 6, "pattern");
    refused("munge.service", "munge service", 8, "systemd unit");
    refused("small/a.service", "small/none.service", 13, "cannot read");
    refused(
        "small/a.service",
        "small/b.service",
        13,
        "nothing starts it",
    );
    refused("/etc/wow.toml", "/usr/local/bin/wow", 14, "twice");
    refused("/etc/wow.toml", "/etc/wow config", 14, "characters");
    refused("boot-mib = 64", "boot-mib = 640", 21, "MiB");
    refused(
        "root-label = \"small\"",
        "root-label = \"a b\"",
        23,
        "label",
    );
    refused("[boot]", "[boots]", 17, "boots");
}

#[test]
fn wishes_are_added_and_checked() {
    let mut definition = debian(parse(GOOD_DEBIAN).unwrap());
    definition.add_packages(&["hmmer".to_owned()]).unwrap();
    assert_eq!(definition.packages[2].origin, "--with");
    let error = definition.add_packages(&["--x".to_owned()]).unwrap_err();
    assert!(error.contains("--x"), "{error}");
    let key = "# mine\nssh-ed25519 AAAAC3Nza me@here\n\n";
    definition.authorize(key).unwrap();
    definition.authorize("ecdsa-sha2-nistp256 AAAA\n").unwrap();
    let file = definition.files.last().unwrap();
    assert_eq!(file.path, "/etc/ssh/authorized_keys.d/wow");
    let expected = "ssh-ed25519 AAAAC3Nza me@here\necdsa-sha2-nistp256 AAAA\n";
    assert_eq!(file.content, expected.as_bytes());
    let private = "-----BEGIN OPENSSH PRIVATE KEY-----\nSECRET\n";
    let error = definition.authorize(private).unwrap_err();
    assert!(
        error.contains(".pub") && !error.contains("SECRET"),
        "{error}"
    );
    assert!(definition.authorize("\n").is_err());
    assert!(definition.authorize("hello world\n").is_err());
}

#[test]
fn a_missing_definition_names_those_there_are() {
    let root = repository();
    std::fs::write(root.path().join("images/small.toml"), GOOD).unwrap();
    let error = Definition::load(root.path(), "smal")
        .unwrap_err()
        .to_string();
    assert!(error.contains("images/smal.toml") && error.contains("the images are: small"));
    assert!(Definition::load(root.path(), "small").is_ok());
}

#[test]
fn the_definitions_of_this_repository_are_good() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let router = appliance(Definition::load(root, "router").unwrap());
    assert_eq!(router.kernel.fragments.len(), 6);
    let workstation = debian(Definition::load(root, "workstation").unwrap());
    assert_eq!(workstation.suite, "trixie");
}
