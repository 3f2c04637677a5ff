//! The CD-ROM is read by a program that knows nothing of ours.

use std::process::Command;

use super::*;

const LOADER_BYTES: usize = 5001;

struct Made {
    directory: tempfile::TempDir,
    loader: Vec<u8>,
    volume: Vec<u8>,
    kernel: Vec<u8>,
    disc: Vec<u8>,
}

fn pattern(bytes: usize, seed: u32) -> Vec<u8> {
    let byte = |n: u32| ((n ^ seed).wrapping_mul(0x9e37_79b1) >> 13) as u8;
    (0..bytes as u32).map(byte).collect()
}

/// A CD-ROM whose kernel lies in its UEFI volume from `kernel_at`.
fn made(kernel_at: usize) -> Made {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let (loader, kernel) = (pattern(LOADER_BYTES, 1), pattern(70_003, 2));
    let mut volume = vec![0; 200 << 10];
    volume[kernel_at..kernel_at + kernel.len()].copy_from_slice(&kernel);
    let paths = (
        write("loader", &loader),
        write("volume", &volume),
        write("kernel", &kernel),
        write("notes", b"a file\n"),
    );
    let to = directory.path().join("disc");
    let disc = Disc {
        label: "TEST_DISC",
        bios: ("ISOLINUX.BIN", &paths.0),
        uefi: ("UEFI.IMG", &paths.1),
        files: &[("WOW.EFI", &paths.2), ("NOTES.TXT", &paths.3)],
    };
    super::write(&disc, &to).unwrap();
    Made {
        disc: std::fs::read(&to).unwrap(),
        directory,
        loader,
        volume,
        kernel,
    }
}

/// What xorriso says of the disc; nothing where it is not installed.
fn xorriso(made: &Made, arguments: &[&str]) -> Option<String> {
    let path = made.directory.path().join("disc");
    let mut command = Command::new("xorriso");
    command.arg("-indev").arg(&path).args(arguments);
    match command.current_dir(made.directory.path()).output() {
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            Some(String::from_utf8_lossy(&output.stdout).into_owned() + &errors)
        }
        Err(error) => {
            eprintln!("the CD-ROM is not read here: {error}");
            None
        }
    }
}

#[test]
fn another_reader_finds_every_file_whole() {
    let made = made(10 << 10);
    let into = made.directory.path().join("out");
    let extract = ["-osirrox", "on", "-extract", "/", into.to_str().unwrap()];
    if xorriso(&made, &extract).is_none() {
        return;
    }
    let read = |name: &str| std::fs::read(into.join(name)).unwrap();
    assert!(read("WOW.EFI") == made.kernel);
    assert!(read("UEFI.IMG") == made.volume);
    assert_eq!(read("NOTES.TXT"), b"a file\n");
    // All of the loader but the table.
    let loader = read("ISOLINUX.BIN");
    assert!(loader[64..] == made.loader[64..] && loader[..8] == made.loader[..8]);
    let count = std::fs::read_dir(&into).unwrap().count();
    assert_eq!(count, 5, "these and the catalogue");
}

#[test]
fn another_reader_finds_both_ways_to_boot() {
    let made = made(10 << 10);
    let Some(report) = xorriso(&made, &["-report_el_torito", "plain", "-pvd_info"]) else {
        return;
    };
    let line = |start: &str| {
        let mut lines = report.lines();
        lines
            .find(|line| line.starts_with(start))
            .map(str::to_owned)
    };
    let bios = line("El Torito boot img :   1").unwrap_or_else(|| panic!("{report}"));
    assert!(bios.contains("BIOS  y   none"), "{bios}");
    let uefi = line("El Torito boot img :   2").unwrap_or_else(|| panic!("{report}"));
    assert!(uefi.contains("UEFI  y   none"), "{uefi}");
    // xorriso recognizes the table by its sum.
    let info = line("El Torito img opts :   1").unwrap_or_else(|| panic!("{report}"));
    assert!(info.contains("boot-info-table"), "{info}");
    let path = line("El Torito img path :   2").unwrap_or_else(|| panic!("{report}"));
    assert!(path.ends_with("/UEFI.IMG"), "{path}");
    assert!(report.contains("TEST_DISC"), "{report}");
}

#[test]
fn a_kernel_that_the_volume_holds_takes_no_room_of_its_own() {
    let (inside, outside) = (made(10 << 10), made((10 << 10) + 512));
    let more = (outside.disc.len() - inside.disc.len()) as u64;
    let kernel = inside.kernel.len() as u64;
    assert_eq!(more, kernel.next_multiple_of(SECTOR_BYTES));
}

#[test]
fn the_same_files_give_the_same_bytes() {
    assert!(made(4096).disc == made(4096).disc);
}

#[test]
fn what_is_no_name_on_a_cd_rom_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    std::fs::write(&path, vec![0; LOADER_BYTES]).unwrap();
    let write = |label: &str, names: [&str; 2]| {
        let files = names.map(|name| (name, path.as_path()));
        let disc = Disc {
            label,
            bios: ("ISOLINUX.BIN", &path),
            uefi: ("UEFI.IMG", &path),
            files: &files,
        };
        super::write(&disc, &directory.path().join("disc"))
    };
    assert!(write("A_1", ["A.B", "C.D"]).is_ok());
    for label in ["", "lower", "A B"] {
        assert!(write(label, ["A.B", "C.D"]).is_err(), "{label}");
    }
    for name in ["a.b", "ABCDEFGHI.A", "A.BCDE", "A", ".A", "UEFI.IMG", "C.D"] {
        assert!(write("A", [name, "C.D"]).is_err(), "{name}");
    }
}
