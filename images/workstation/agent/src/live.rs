//! A machine from the CD-ROM and its disk for what is written: what the initramfs has found wrong with that, and what
//! goes wrong with it later. Where the root is a disk's, there is nothing of this.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::disk::{self, Room};

/// Where the initramfs leaves its mounts and its notes.
const NOTES: &str = "/run/live";

/// What the kernel tells of each ext4.
const EXT4: &str = "/sys/fs/ext4";

/// What is read of a note: more than all that the initramfs has to say.
const NOTE_BYTES_MAX: u64 = 4096;

/// What is wrong now, in sentences.
pub fn trouble() -> Vec<String> {
    look(Path::new(NOTES), Path::new(EXT4))
}

fn look(notes: &Path, ext4: &Path) -> Vec<String> {
    let mut all: Vec<String> = note(&notes.join("trouble"))
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    let state = note(&notes.join("state"));
    let device = state.trim_end();
    let Some(name) = Path::new(device).file_name() else {
        return all;
    };
    if disk::room(&notes.join("changes")) == Some(Room::Full) {
        all.push(format!(
            "the disk {device} for what is written is nearly full: make room, or this machine starts without it the \
             next time"
        ));
    }
    let errors = note(&ext4.join(name).join("errors_count"));
    if !matches!(errors.trim_end(), "" | "0") {
        all.push(format!(
            "the disk {device} for what is written fails or is damaged, as the kernel's log says: restart, so that it \
             is checked, or replace it"
        ));
    }
    all
}

/// The beginning of a file; nothing if there is none.
fn note(path: &Path) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error counts.
        let _ = file.take(NOTE_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_initramfs_sentences_are_told_within_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let [notes, none] = ["live", "none"].map(|name| directory.path().join(name));
        assert_eq!(look(&none, &none), [""; 0]);
        std::fs::create_dir(&notes).unwrap();
        let write = |content: &[u8]| std::fs::write(notes.join("trouble"), content).unwrap();
        write(b"the disk is full\n\nand \xff odd\n");
        assert_eq!(
            look(&notes, &none),
            ["the disk is full", "and \u{fffd} odd"]
        );
        write(&[b'x'; 1 << 20]);
        let told = look(&notes, &none);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].len() as u64, NOTE_BYTES_MAX);
    }

    #[test]
    fn a_disk_is_named_once_the_kernel_has_met_errors_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let [notes, ext4] = ["live", "ext4"].map(|name| directory.path().join(name));
        std::fs::create_dir(&notes).unwrap();
        std::fs::create_dir_all(ext4.join("vdb1")).unwrap();
        let count = |text: &str| std::fs::write(ext4.join("vdb1/errors_count"), text).unwrap();
        count("2\n");
        assert_eq!(look(&notes, &ext4), [""; 0], "it is somebody else's");
        std::fs::write(notes.join("state"), "/dev/vdb1\n").unwrap();
        let told = look(&notes, &ext4);
        assert!(told.len() == 1 && told[0].contains("/dev/vdb1"), "{told:?}");
        count("0\n");
        assert_eq!(look(&notes, &ext4), [""; 0]);
    }
}
