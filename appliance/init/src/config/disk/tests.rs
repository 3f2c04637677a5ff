use super::*;
use proptest::prelude::*;

/// A file system out of `fixtures`.
fn image(name: &str) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/disk/fixtures");
    let text = fs::read_to_string(directory.join(format!("{name}.txt"))).unwrap();
    let mut image = Vec::new();
    for line in text.lines() {
        let (place, content) = line.split_once(' ').unwrap();
        if place == "bytes" {
            image = vec![0; usize::from_str_radix(content, 16).unwrap()];
            continue;
        }
        let at = usize::from_str_radix(place, 16).unwrap();
        for (index, pair) in content.as_bytes().chunks(2).enumerate() {
            let pair = std::str::from_utf8(pair).unwrap();
            image[at + index] = u8::from_str_radix(pair, 16).unwrap();
        }
    }
    image
}

fn read(image: &[u8], name: &str) -> Option<Reading> {
    read_medium(&image, name)
}

/// The small ones; FAT32 begins at 33 MB.
const SMALL: [&str; 7] = [
    "fat12",
    "fat16",
    "ext2",
    "ext4",
    "iso",
    "iso-plain",
    "iso-rr",
];

fn pairs(reading: &Reading) -> Vec<(&'static str, &str)> {
    let entries = reading.entries.iter();
    let mut pairs: Vec<_> = entries.map(|it| (it.key().name, it.value())).collect();
    pairs.sort_unstable();
    pairs
}

#[test]
fn ticket_and_table_are_read_from_every_file_system() {
    let ticket = ("ticket", "wow-ticket-1.FIXTURE");
    let both = [("name", "from-disk"), ("seeds", "a:1,b:2"), ticket];
    let cidata = [("hostname", "h1"), ("name", "from-cidata")];
    let check = |name: &str, expected: &[(&str, &str)], origin: &str| {
        let reading = read(&image(name)[..], "vdb").expect(name);
        assert_eq!(pairs(&reading), expected, "{name}: {:?}", reading.problems);
        assert!(
            reading.problems.is_empty(),
            "{name}: {:?}",
            reading.problems
        );
        let said = reading.entries[0].origin().to_string();
        assert!(said.starts_with(origin), "{said}");
    };
    for name in ["fat12", "fat16", "fat32"] {
        check(name, &both, "disk vdb (FAT, WOW), ticket");
    }
    for name in ["ext2", "ext4"] {
        check(name, &both, "disk vdb (ext, WOW), ticket");
    }
    check("iso-rr", &both, "disk vdb (ISO 9660, WOW), ticket");
    check("iso-plain", &[ticket], "disk vdb (ISO 9660, WOW), ticket");
    check(
        "iso",
        &cidata,
        "disk vdb (ISO 9660, cidata), user-data line 3",
    );
}

/// The fixture with another label, where the file system has it.
fn relabelled(name: &str, from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut image = image(name);
    let places: Vec<usize> = (0..image.len() - from.len())
        .filter(|at| image[*at..].starts_with(from))
        .collect();
    assert!(!places.is_empty());
    for at in places {
        image[at..at + to.len()].copy_from_slice(to);
    }
    image
}

#[test]
fn a_disk_with_another_label_is_not_ours_and_small_letters_are_the_same() {
    assert!(read(&relabelled("fat12", b"WOW     ", b"WOX     ")[..], "a").is_none());
    assert!(read(&relabelled("fat12", b"WOW     ", b"wow     ")[..], "a").is_some());
    assert!(read(&vec![0; 1 << 20][..], "a").is_none());
    assert!(read(&[][..], "a").is_none());
}

#[test]
fn a_disk_without_our_files_is_told_what_is_looked_for() {
    let bare = relabelled("iso", b"cidata", b"WOW   ");
    let reading = read(&bare[..], "sr0").unwrap();
    let problem = reading.problems[0].to_string();
    assert!(problem.contains("disk sr0 (ISO 9660, WOW)"), "{problem}");
    assert!(problem.contains("ticket and wow.toml"), "{problem}");
}

#[test]
fn a_damaged_disk_is_a_problem_that_names_it() {
    let check = |mut image: Vec<u8>, at: usize, bytes: &[u8], words: &str| {
        image[at..at + bytes.len()].copy_from_slice(bytes);
        let reading = read(&image[..], "vdb").expect(words);
        let problems: Vec<_> = reading.problems.iter().map(ToString::to_string).collect();
        let named = problems
            .iter()
            .any(|it| it.contains("vdb") && it.contains(words));
        assert!(named, "{problems:?}");
    };
    // The superblock's features and its inodes' length.
    check(image("ext4"), 1024 + 0x60, &[0x8, 0, 0, 0], "features");
    check(image("ext4"), 1024 + 0x58, &[7, 0], "superblock");
    check(image("fat12"), 19, &[1, 0], "no clusters");
    // The block length of an ISO's descriptor.
    check(image("iso-rr"), 16 * 2048 + 128, &[1, 1], "2048");
    // A table that leads the root of FAT32 to nowhere.
    check(
        image("fat32"),
        44,
        &[0xff, 0xff, 0xff, 0x0f],
        "out of the file system",
    );
}

#[test]
fn a_file_that_is_too_long_is_refused_before_it_is_read() {
    // The length of TICKET in FAT's root directory.
    let mut image = image("fat12");
    let at = image
        .windows(11)
        .position(|name| name == b"TICKET     ")
        .unwrap();
    image[at + 28..at + 32].copy_from_slice(&[0xff; 4]);
    let reading = read(&image[..], "fd0").unwrap();
    assert_eq!(
        pairs(&reading),
        [("name", "from-disk"), ("seeds", "a:1,b:2")]
    );
    let problem = reading.problems[0].to_string();
    assert!(problem.contains("fd0 (FAT, WOW), ticket"), "{problem}");
    assert!(problem.contains("longer than 65536"), "{problem}");
}

#[test]
fn a_chain_without_end_is_read_no_further_than_its_file() {
    // Both clusters of FAT32's root lead to the root again.
    let mut image = image("fat32");
    let table = usize::from(u16::from_le_bytes([image[14], image[15]])) * 512;
    let root = image[44];
    let entry = table + usize::from(root) * 4;
    image[entry..entry + 4].copy_from_slice(&[root, 0, 0, 0]);
    let reading = read(&image[..], "vdb").unwrap();
    assert_eq!(reading.entries.len(), 3);
}

fn disks(directory: &Path) -> Disks {
    Disks {
        class: directory.join("class"),
        devices: directory.join("dev"),
        floppies: false,
        answer_max: Duration::from_millis(50),
        busy: Arc::default(),
    }
}

#[test]
fn a_device_that_does_not_answer_is_named_and_the_others_count() {
    static HELD: Mutex<()> = Mutex::new(());
    fn held(_: &Path, name: &str) -> Option<Reading> {
        if name == "sda" {
            drop(lock(&HELD));
        }
        let mut reading = Reading::default();
        reading.push(Setting::new("name", name, Origin::new(name, "")));
        Some(reading)
    }
    let names = || vec!["sda".to_owned(), "vda".to_owned()];
    let directory = tempfile::tempdir().unwrap();
    let disks = disks(directory.path());
    let hold = lock(&HELD);
    for _ in 0..2 {
        let readings = disks.read_each(names(), held);
        let [(_, Some(sda)), (_, Some(vda))] = &readings[..] else {
            panic!("{readings:?}");
        };
        assert!(
            sda.problems[0]
                .to_string()
                .contains("disk sda: does not answer")
        );
        assert_eq!(pairs(vda), [("name", "vda")]);
    }
    assert_eq!(lock(&disks.busy).len(), 1, "asked once, and not again");
    drop(hold);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !lock(&disks.busy).is_empty() {
        assert!(Instant::now() < deadline);
        std::thread::yield_now();
    }
    let patient = Disks {
        answer_max: Duration::from_secs(30),
        ..disks
    };
    let readings = patient.read_each(names(), held);
    assert!(
        readings
            .iter()
            .all(|(_, it)| it.as_ref().unwrap().problems.is_empty())
    );
}

#[test]
fn devices_that_the_machine_makes_itself_are_left_out_and_a_new_one_is_a_change() {
    let directory = tempfile::tempdir().unwrap();
    let disks = disks(directory.path());
    let add = |name: &str, size: &str| {
        fs::create_dir_all(disks.class.join(name)).unwrap();
        fs::write(disks.class.join(name).join("size"), size).unwrap();
    };
    assert_eq!(disks.read().absent.as_deref(), Some("no disk here"));
    add("loop0", "0\n");
    add("sr0", "0\n");
    let before = disks.changes();
    assert_eq!(before, "sr0=0;");
    add("sr0", "732\n");
    assert_ne!(disks.changes(), before, "a medium was put in");
    add("vdb", "8\n");
    assert_eq!(disks.changes(), "sr0=732;vdb=8;");
    // Neither has a device here; what is no block device is never read.
    fs::create_dir_all(&disks.devices).unwrap();
    fs::write(disks.devices.join("vdb"), image("fat12")).unwrap();
    let reading = disks.read();
    assert!(reading.entries.is_empty() && reading.problems.is_empty());
    assert_eq!(reading.absent.as_deref(), Some("no disk with this label"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_disk_with_wrong_bytes_neither_panics_nor_reads_on_without_end(
        which in 0..SMALL.len(),
        wrong in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..24),
    ) {
        let mut image = image(SMALL[which]);
        // Where something stands at all.
        let used: Vec<usize> = (0..image.len()).filter(|at| image[*at] != 0).collect();
        for (place, value) in wrong {
            image[used[place.index(used.len())]] = value;
        }
        let reading = read(&image[..], "x");
        for setting in reading.iter().flat_map(|reading| &reading.entries) {
            prop_assert!(!setting.value().chars().any(char::is_control));
        }
    }
}
