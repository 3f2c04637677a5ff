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
    root
}

fn parse(text: &str) -> Result<Definition, DefinitionError> {
    Definition::parse(repository().path(), Path::new("images/small.toml"), text)
}

/// Changes the good definition and expects an error in `line` that says `message`.
#[track_caller]
fn refused(from: &str, to: &str, line: usize, message: &str) {
    assert!(GOOD.contains(from), "the good definition has {from:?}");
    let error = parse(&GOOD.replacen(from, to, 1)).expect_err("must be refused");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("images/small.toml:{line}: ")) && text.contains(message),
        "{text}"
    );
}

#[test]
fn a_good_definition_is_taken_whole() {
    let definition = parse(GOOD).unwrap();
    assert_eq!(
        definition.kernel.fragments,
        [Path::new("kernel-config/base.config")]
    );
    assert_eq!(definition.kernel.command_line_line, 7);
    assert_eq!(
        definition.initramfs.directories,
        [("/tmp".to_owned(), 0o1777)]
    );
    assert_eq!(definition.initramfs.files[0].2, b"net = \"dhcp\"\n");
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
    refused("WOWBOOT", "wowboot", 19, "capitals");
    refused("WOWBOOT", "WOWBOOTDISKS", 19, "at most 11");
    refused("kernel-bytes = 6_000_000", "", 21, "kernel-bytes");
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
    let router = Definition::load(root, "router").unwrap();
    assert_eq!(router.kernel.fragments.len(), 4);
}
