//! QEMU's fw_cfg: one file a key, `-fw_cfg name=opt/wow/KEY,file=PATH` (or `string=`).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{MAX_VALUE_BYTES, Origin, Problem, Rank, Reading, Setting, Source, printable};

/// Entries looked at; QEMU's own table holds a few dozen files in all.
const MAX_ENTRIES: usize = 64;

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
            Err(error) => {
                reading.absent = Some(match error.kind() {
                    io::ErrorKind::NotFound => "not given".to_owned(),
                    _ => format!("cannot read {}: {error}", self.directory.display()),
                });
                return reading;
            }
        };
        names.sort();
        for name in names {
            let origin = Origin::new("QEMU fw_cfg", format!("opt/wow/{}", printable(&name)));
            match read_one(&self.directory.join(&name), origin.clone())
                .and_then(|value| Setting::new(&name, &value, origin))
            {
                Ok(setting) => reading.entries.push(setting),
                Err(problem) => reading.problems.push(problem),
            }
        }
        reading
    }

    fn example(&self, key: &str) -> String {
        format!("QEMU fw_cfg: -fw_cfg name=opt/wow/{key},file=PATH")
    }
}

fn read_one(directory: &Path, origin: Origin) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    let bound = MAX_VALUE_BYTES as u64 + 1;
    let read =
        File::open(directory.join("raw")).and_then(|file| file.take(bound).read_to_end(&mut bytes));
    let complaint = match read {
        Err(error) => format!("cannot be read: {error}"),
        Ok(length) if length > MAX_VALUE_BYTES => {
            format!("is longer than {MAX_VALUE_BYTES} bytes: is it the right file?")
        }
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(_) => "is no text (UTF-8): is it the right file?".to_owned(),
        },
    };
    Err(Problem::Source { origin, complaint })
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
