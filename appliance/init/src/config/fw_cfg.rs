//! QEMU's fw_cfg: one file a key, `-fw_cfg name=opt/wow/KEY,file=PATH` (or `string=`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::fw_cfg_ports;
use super::{MAX_VALUE_BYTES, Origin, Problem, Rank, Reading, Setting, Source, printable};

/// Entries looked at; QEMU's own table holds a few dozen files in all.
const MAX_ENTRIES: usize = 64;
/// Read of one file: one byte more than a value may have, to tell that it is longer.
const READ_BYTES_MAX: usize = MAX_VALUE_BYTES + 1;

/// The `opt/wow` files of QEMU's fw_cfg, through the kernel's CONFIG_FW_CFG_SYSFS.
#[derive(Debug)]
pub struct FwCfg {
    directory: PathBuf,
}

impl Default for FwCfg {
    fn default() -> Self {
        Self {
            directory: "/sys/firmware/qemu_fw_cfg/by_name/opt/wow".into(),
        }
    }
}

impl Source for FwCfg {
    fn rank(&self) -> Rank {
        Rank::FwCfg
    }

    fn read(&self) -> Reading {
        let mut reading = Reading::default();
        let mut names: Vec<String> = match fs::read_dir(&self.directory) {
            Ok(entries) => entries
                .flatten()
                .take(MAX_ENTRIES)
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.read_without_driver();
            }
            Err(error) => {
                let place = self.directory.display();
                reading.absent = Some(format!("cannot read {place}: {error}"));
                return reading;
            }
        };
        names.sort();
        for name in names {
            reading.take(&name, read_raw(&self.directory.join(&name)));
        }
        reading
    }

    fn example(&self, key: &str) -> String {
        format!("QEMU fw_cfg: -fw_cfg name=opt/wow/{key},file=PATH")
    }
}

impl FwCfg {
    /// The kernel made no files: either there are none, or its driver does not work here.
    fn read_without_driver(&self) -> Reading {
        let mut reading = Reading::default();
        let driver_works = self.directory.ancestors().nth(2).is_some_and(Path::exists);
        let files = if driver_works || !crate::is_process_one() {
            None
        } else {
            fw_cfg_ports::read_files("opt/wow/", READ_BYTES_MAX)
        };
        match files {
            Some(files) if !files.is_empty() => {
                for (name, content) in files.into_iter().take(MAX_ENTRIES) {
                    reading.take(&name, Ok(content));
                }
            }
            Some(_) | None => reading.absent = Some("not given".to_owned()),
        }
        reading
    }
}

impl Reading {
    /// Takes in the content of the file that is named after a key.
    pub(super) fn take(&mut self, name: &str, content: io::Result<Vec<u8>>) {
        let origin = Origin::new("QEMU fw_cfg", format!("opt/wow/{}", printable(name)));
        self.push(match text(content) {
            Ok(value) => Setting::new(name, &value, origin),
            Err(complaint) => Err(Problem::Source { origin, complaint }),
        });
    }
}

fn read_raw(directory: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(directory.join("raw"))?;
    file.take(READ_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn text(content: io::Result<Vec<u8>>) -> Result<String, String> {
    match content {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(bytes) if bytes.len() > MAX_VALUE_BYTES => Err(format!(
            "is longer than {MAX_VALUE_BYTES} bytes: is it the right file?"
        )),
        Ok(bytes) => String::from_utf8(bytes)
            .map_err(|_| "is no text (UTF-8): is it the right file?".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(files: &[(&str, &[u8])]) -> (tempfile::TempDir, FwCfg) {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::create_dir(root.path().join(name)).unwrap();
            fs::write(root.path().join(name).join("raw"), content).unwrap();
        }
        let directory = root.path().to_owned();
        (root, FwCfg { directory })
    }

    #[test]
    fn each_file_is_a_key_and_its_trailing_newline_is_dropped() {
        let (_root, source) = source(&[("ticket", b"wow-ticket-1.abc\n"), ("name", b"a")]);
        let reading = source.read();
        let found: Vec<_> = reading
            .entries
            .iter()
            .map(|s| (s.key().name, s.value()))
            .collect();
        assert_eq!(found, [("name", "a"), ("ticket", "wow-ticket-1.abc")]);
        assert!(reading.problems.is_empty() && reading.absent.is_none());
    }

    #[test]
    fn unknown_oversized_binary_and_unreadable_files_are_problems() {
        let long = vec![b'x'; MAX_VALUE_BYTES + 1];
        let (root, source) = source(&[
            ("ticket", &long),
            ("name", b"\xff\xfe"),
            ("other", b"x"),
            ("log", b"info"),
        ]);
        fs::create_dir(root.path().join("net")).unwrap();
        let reading = source.read();
        assert_eq!(reading.entries.len(), 1, "the good one still counts");
        let problems: Vec<String> = reading.problems.iter().map(ToString::to_string).collect();
        let expect = [
            ("opt/wow/name", "UTF-8"),
            ("opt/wow/net", "cannot be read"),
            ("opt/wow/other", "unknown key"),
            ("opt/wow/ticket", "longer"),
        ];
        assert_eq!(problems.len(), expect.len());
        for (problem, (place, what)) in problems.iter().zip(expect) {
            assert!(
                problem.contains(place) && problem.contains(what),
                "{problem}"
            );
        }
    }

    #[test]
    fn a_machine_without_fw_cfg_has_no_problem() {
        let reading = FwCfg {
            directory: "/nonexistent".into(),
        }
        .read();
        assert!(reading.entries.is_empty() && reading.problems.is_empty());
        assert_eq!(reading.absent.as_deref(), Some("not given"));
    }
}
