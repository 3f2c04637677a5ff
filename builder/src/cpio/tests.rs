//! Golden bytes, properties over random trees, and extraction by the system's cpio.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// One record: path, mode, device, content.
type Record = (String, u32, (u32, u32), Vec<u8>);

/// Reads an archive back, in the order of its records.
fn read(bytes: &[u8]) -> Vec<Record> {
    let mut at = 0;
    let mut records = Vec::new();
    loop {
        assert_eq!(at % 4, 0, "records start on a multiple of four");
        assert_eq!(&bytes[at..at + 6], b"070701");
        let field = |n: usize| {
            let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
            u32::from_str_radix(text, 16).unwrap()
        };
        assert_eq!(field(5), 0, "the time is fixed");
        let name_length = field(11) as usize;
        let name = String::from_utf8(bytes[at + 110..at + 109 + name_length].to_vec()).unwrap();
        let start = (at + 110 + name_length).next_multiple_of(4);
        let content = bytes[start..start + field(6) as usize].to_vec();
        if name == "TRAILER!!!" {
            assert_eq!((start + content.len()).next_multiple_of(4), bytes.len());
            return records;
        }
        assert_eq!(
            field(0) as usize,
            records.len() + 1,
            "inodes count the records"
        );
        let next = (start + content.len()).next_multiple_of(4);
        records.push((name, field(1), (field(9), field(10)), content));
        at = next;
    }
}

fn appliance() -> Archive {
    let mut archive = Archive::new();
    archive
        .character_device("/dev/console", 0o600, 5, 1)
        .unwrap();
    archive.file("/init", 0o755, b"hello".to_vec()).unwrap();
    archive.directory("/tmp", 0o1777).unwrap();
    archive.symlink("/bin/wow", "/init").unwrap();
    archive
}

#[test]
fn one_file_gives_the_bytes_of_the_format() {
    let mut archive = Archive::new();
    archive.file("/init", 0o755, b"hello".to_vec()).unwrap();
    let header = "07070100000001000081ED0000000000000000000000010000000000000005\
                  00000000000000000000000000000000000000050000000"
        .to_owned()
        + "0";
    let mut expected = header.into_bytes();
    // The name starts 110 bytes in, so "/init" without its slash ends at 115.
    expected.extend_from_slice(b"init\0\0hello\0\0\0");
    expected.extend_from_slice(b"070701");
    expected.extend_from_slice(
        format!("{:032}{}{:048}{}", 0, "00000001", 0, "0000000B00000000").as_bytes(),
    );
    expected.extend_from_slice(b"TRAILER!!!\0\0\0\0");
    assert_eq!(
        String::from_utf8_lossy(&archive.to_bytes()),
        String::from_utf8_lossy(&expected)
    );
}

#[test]
fn parents_appear_and_come_before_their_children() {
    let records = read(&appliance().to_bytes());
    let names: Vec<_> = records.iter().map(|record| record.0.as_str()).collect();
    assert_eq!(
        names,
        ["bin", "bin/wow", "dev", "dev/console", "init", "tmp"]
    );
    assert_eq!(records[0].1, 0o040_755);
    assert_eq!(records[1].1, 0o120_777);
    assert_eq!((records[3].1, records[3].2), (0o020_600, (5, 1)));
    assert_eq!(records[5].1, 0o041_777);
}

#[test]
fn the_order_of_adding_does_not_matter() {
    let mut other = Archive::new();
    other.symlink("/bin/wow", "/init").unwrap();
    other.directory("/bin", 0o755).unwrap();
    other.directory("/tmp", 0o1777).unwrap();
    other.file("/init", 0o755, b"hello".to_vec()).unwrap();
    other.character_device("/dev/console", 0o600, 5, 1).unwrap();
    assert_eq!(other.to_bytes(), appliance().to_bytes());
}

#[test]
fn what_the_kernel_would_unpack_wrongly_is_refused() {
    let mut archive = appliance();
    for path in [
        "init",
        "/",
        "/a//b",
        "/a/../b",
        "/a/",
        "/a\0b",
        "/TRAILER!!!",
        "/./a",
    ] {
        assert_eq!(
            archive.file(path, 0o644, Vec::new()),
            Err(CpioError::Path(path.to_owned())),
            "{path}"
        );
    }
    assert!(matches!(
        archive.directory("/tmp", 0o755),
        Err(CpioError::Duplicate(_))
    ));
    assert!(matches!(
        archive.file("/dev", 0o644, Vec::new()),
        Err(CpioError::Duplicate(_))
    ));
    assert!(matches!(
        archive.file("/init/x", 0o644, Vec::new()),
        Err(CpioError::Parent { .. })
    ));
    assert!(matches!(
        archive.directory("/x", 0o100_755),
        Err(CpioError::Mode { .. })
    ));
}

#[test]
fn the_systems_cpio_extracts_it() {
    if Command::new("cpio")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        eprintln!("cpio is not installed: extraction is not checked here");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("a.cpio");
    let mut tree = Archive::new();
    tree.file("/etc/wow.toml", 0o640, b"net = \"dhcp\"\n".to_vec())
        .unwrap();
    tree.symlink("/wow", "etc/wow.toml").unwrap();
    std::fs::write(&archive, tree.to_bytes()).unwrap();
    let status = Command::new("cpio")
        .args(["--extract", "--quiet", "--file"])
        .arg(&archive)
        .current_dir(directory.path())
        .status()
        .unwrap();
    assert!(status.success());
    let text = std::fs::read_to_string(directory.path().join("wow")).unwrap();
    assert_eq!(text, "net = \"dhcp\"\n");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_tree_reads_back(
        files in proptest::collection::btree_map(
            "/[a-c]{1,3}(/[d-f]{1,3}){0,2}/[g-z]{1,9}",
            proptest::collection::vec(any::<u8>(), 0..40),
            0..12,
        )
    ) {
        let mut archive = Archive::new();
        for (path, content) in &files {
            archive.file(path, 0o644, content.clone()).unwrap();
        }
        let records = read(&archive.to_bytes());
        let found: BTreeMap<_, _> = records
            .into_iter()
            .filter(|record| record.1 == 0o100_644)
            .map(|record| (format!("/{}", record.0), record.3))
            .collect();
        prop_assert_eq!(found, files);
    }
}
