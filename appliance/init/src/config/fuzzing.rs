//! Entrances for fuzzers to the sources of configuration.

use super::fw_cfg_ports::{self, Device};
use super::{MAX_VALUE_BYTES, Reading, cmdline, disk, file, guest_info};

/// Reads a kernel command line.
pub fn command_line(line: &str) {
    check(&cmdline::parse(line));
}

/// Reads the image's configuration file.
pub fn image_file(text: &str) {
    check(&file::parse("/etc/wow.toml", text));
}

/// Reads a disk's image.
pub fn config_disk(image: &[u8]) {
    if let Some(reading) = disk::read_image(image) {
        check(&reading);
    }
}

/// Reads an OVF environment as VMware's hosts hand it on.
pub fn ovf_environment(text: &str) {
    let mut reading = Reading::default();
    guest_info::take_environment(&mut reading, text);
    check(&reading);
}

/// Reads fw_cfg's files from a device that answers every read with the next of `bytes`.
pub fn fw_cfg(bytes: &[u8]) {
    let mut device = Bytes(bytes);
    let Some(files) = fw_cfg_ports::read_files_of(&mut device, "opt/wow/", MAX_VALUE_BYTES + 1)
    else {
        return;
    };
    let mut reading = Reading::default();
    for (name, content) in files {
        reading.take(&name, Ok(content));
    }
    check(&reading);
}

struct Bytes<'a>(&'a [u8]);

impl Device for Bytes<'_> {
    fn select(&mut self, _key: u16) {}

    fn read(&mut self, bytes: &mut [u8]) {
        let (head, rest) = self.0.split_at(bytes.len().min(self.0.len()));
        bytes.fill(0);
        bytes[..head.len()].copy_from_slice(head);
        self.0 = rest;
    }
}

/// What is taken for a value is fit to be used, and what is said is fit for a terminal.
fn check(reading: &Reading) {
    for setting in &reading.entries {
        let value = setting.value();
        assert!(!value.is_empty() && value.len() <= MAX_VALUE_BYTES);
        assert!(!value.chars().any(char::is_control));
    }
    for problem in &reading.problems {
        let said = problem.to_string();
        assert!(
            !said.chars().any(|c| c.is_control() && c != '\n'),
            "{said:?}"
        );
    }
}
