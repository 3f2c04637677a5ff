//! squashfs: a root file system as one compressed file that is only read.
//!
//! It is made out of the ext4 that is on the disk, so both hold the same. ext4 is read by `ext4-view`, handed to
//! mksquashfs as a tar archive through a pipe, and nothing needs root. What an archive does not say, such as the
//! root directory's mode and time, is said to mksquashfs; hard links become files of their own, whose content
//! mksquashfs stores once.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;

use ext4_view::{DirEntry, Ext4, Ext4Error, Ext4Read, FileType};

use crate::BuildError;
use crate::archive;
use crate::process::{self, Log};

/// Beyond this level zstd takes five times as long for a twentieth of the size.
const LEVEL: &str = "9";
/// What ext4 has for its own repair.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// Pieces in which files are read.
const PIECE_BYTES: usize = 1 << 16;

/// The package that makes it, with its version: part of its key.
pub fn tools() -> Result<String, BuildError> {
    let mut question = process::command("dpkg-query");
    question.args(["--show", "--showformat=${Package} ${Version}\\n"]);
    process::output(question.arg("squashfs-tools")).map_err(|error| {
        BuildError::Input(format!(
            "{error}\ninstall what compresses a root: apt-get install squashfs-tools"
        ))
    })
}

/// Makes `to` of the ext4 file system that begins at byte `at` of `image`. Nothing in it is newer than `time`.
pub fn from_ext4(
    image: &Path,
    at: u64,
    to: &Path,
    time: u64,
    log: &mut Log<'_>,
) -> Result<(), BuildError> {
    let (reader, writer) =
        io::pipe().map_err(BuildError::io("open a pipe for", Path::new("mksquashfs")))?;
    let mut squash = process::command("mksquashfs");
    squash
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .arg("-")
        .arg(to)
        .args(["-tar", "-noappend", "-no-progress", "-quiet"])
        .args(["-comp", "zstd", "-Xcompression-level", LEVEL])
        .args(["-root-mode", "0755", "-root-uid", "0", "-root-gid", "0"]);
    thread::scope(|scope| {
        let archive = scope.spawn(|| archive(image, at, writer));
        let made = log.run_from("compressing the root", &mut squash, reader);
        let read = archive
            .join()
            .expect("reading a file system does not panic");
        match read {
            // Whoever ended before the end says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => made,
            Err(error) => Err(BuildError::io("read the root in", image)(error)),
            Ok(()) => made,
        }
    })
}

/// A file system within a file.
struct Part {
    file: File,
    at: u64,
}

impl Ext4Read for Part {
    fn read(
        &mut self,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync + 'static>> {
        let start = start.checked_add(self.at).ok_or("an offset beyond 2^64")?;
        Ok(self.file.read_exact_at(into, start)?)
    }
}

/// Writes everything in the file system as a tar archive, in the order of names.
fn archive(image: &Path, at: u64, to: impl Write) -> io::Result<()> {
    let file = File::open(image)?;
    let system = Ext4::load(Box::new(Part { file, at })).map_err(broken)?;
    let mut archive = tar::Builder::new(BufWriter::with_capacity(PIECE_BYTES, to));
    // The next is the last: depth first, and no recursion.
    let mut waiting = entries(&system, ext4_view::PathBuf::new("/"))?;
    while let Some(entry) = waiting.pop() {
        let path = entry.path();
        let name = path.as_ref().strip_prefix(b"/").unwrap_or_default();
        if name == LOST_AND_FOUND {
            continue;
        }
        let about = entry.metadata().map_err(broken)?;
        let kind = match about.file_type() {
            FileType::Regular => tar::EntryType::Regular,
            FileType::Directory => tar::EntryType::Directory,
            FileType::Symlink => tar::EntryType::Symlink,
            other => {
                let text = format!("{} is a {other:?}", path.display());
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        };
        let bytes = if about.is_dir() || about.is_symlink() {
            0
        } else {
            about.len()
        };
        let mut header = archive::header(kind, u32::from(about.mode()) & 0o7777, bytes);
        header.set_uid(u64::from(about.uid()));
        header.set_gid(u64::from(about.gid()));
        header.set_mtime(u64::try_from(about.modified().seconds()).unwrap_or_default());
        let name = Path::new(OsStr::from_bytes(name));
        match kind {
            tar::EntryType::Symlink => {
                let target = system.read_link(&path).map_err(broken)?;
                let target = OsStr::from_bytes(target.as_ref());
                archive.append_link(&mut header, name, Path::new(target))?;
            }
            tar::EntryType::Directory => {
                archive.append_data(&mut header, name, io::empty())?;
                waiting.extend(entries(&system, path)?);
            }
            _ => {
                let file = system.open(&path).map_err(broken)?;
                let content = BufReader::with_capacity(PIECE_BYTES, file);
                archive.append_data(&mut header, name, content)?;
            }
        }
    }
    archive.into_inner()?.flush()
}

/// What is in a directory, the last name first.
fn entries(system: &Ext4, directory: ext4_view::PathBuf) -> io::Result<Vec<DirEntry>> {
    let all = system.read_dir(&directory).map_err(broken)?;
    let all: Result<Vec<DirEntry>, Ext4Error> = all.collect();
    let mut all = all.map_err(broken)?;
    all.retain(|entry| !matches!(entry.file_name().as_ref(), b"." | b".."));
    all.sort_by(|one, other| other.file_name().as_ref().cmp(one.file_name().as_ref()));
    Ok(all)
}

fn broken(error: Ext4Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;
    use crate::disk::ext4;
    use crate::process::Programs;
    use crate::progress::Progress;

    const TIME: u64 = 1_754_697_600;
    /// Where the file system begins in its file.
    const AT: u64 = 1 << 20;

    /// A tree with what could get lost, as an ext4 file system within a disk; none without e2fsprogs.
    fn disk(directory: &Path) -> Option<std::path::PathBuf> {
        let tree = directory.join("tree");
        let long = format!("usr/{}", "a-long-name-".repeat(12));
        fs::create_dir_all(tree.join(&long)).unwrap();
        fs::write(tree.join(&long).join("file"), "deep\n").unwrap();
        fs::write(tree.join("usr/program"), vec![7; 300_000]).unwrap();
        fs::hard_link(tree.join("usr/program"), tree.join("usr/again")).unwrap();
        std::os::unix::fs::symlink("usr/program", tree.join("link")).unwrap();
        fs::write(tree.join("empty"), "").unwrap();
        let script = format!(
            "chmod 4755 tree/usr/program; chmod 1777 tree/usr; chmod 600 tree/empty\n\
             find tree -exec touch --no-dereference --date=@{} {{}} +\n{}\
             debugfs -w -R 'sif /empty uid 1000' root.ext4 >&2\n\
             truncate -s {AT} disk && cat root.ext4 >>disk",
            TIME - 1000,
            ext4::make_script("test", "test", 4, TIME)
        );
        let mut shell = process::command("sh");
        let made = shell
            .args(["-ec", &script])
            .current_dir(directory)
            .output()
            .unwrap();
        let disk = directory.join("disk");
        if !disk.is_file() {
            eprintln!("squashfs is not checked here: {made:?}");
            return None;
        }
        Some(disk)
    }

    fn make(disk: &Path, at: u64, to: &Path) -> Result<(), BuildError> {
        let running = Progress::hidden().start("test");
        let path = to.with_extension("log");
        let programs = Programs::new().unwrap();
        let mut log = Log::create(&path, &running, &programs).unwrap();
        from_ext4(disk, at, to, TIME, &mut log)
    }

    #[test]
    fn owners_modes_times_and_content_are_those_of_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let Some(disk) = disk(directory.path()) else {
            return;
        };
        let to = directory.path().join("root.squashfs");
        match make(&disk, AT, &to) {
            Err(error @ BuildError::Spawn { .. }) => {
                return eprintln!("squashfs is not checked here: {error}");
            }
            made => made.unwrap(),
        }
        let unsquash = |arguments: &[&str]| {
            let mut command = Command::new("unsquashfs");
            let output = command.env("TZ", "UTC").args(arguments).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let path = to.to_str().unwrap();
        let list = unsquash(&["-llnumeric", path]);
        let time = "2025-08-08 23:43";
        for (mode, owner, name) in [
            ("drwxrwxrwt", "0/0", "/usr"),
            ("-rwsr-xr-x", "0/0", "/usr/program"),
            ("-rwsr-xr-x", "0/0", "/usr/again"),
            ("-rw-------", "1000/0", "/empty"),
            ("lrwxrwxrwx", "0/0", "/link -> usr/program"),
        ] {
            let is_it = |line: &&str| {
                line.starts_with(mode)
                    && line.contains(&format!(" {owner} "))
                    && line.ends_with(&format!("{time} squashfs-root{name}"))
            };
            assert!(list.lines().any(|line| is_it(&line)), "{name}: {list}");
        }
        let root = list.lines().find(|line| line.ends_with(" squashfs-root"));
        let root = root.unwrap_or_else(|| panic!("{list}"));
        assert!(root.starts_with("drwxr-xr-x 0/0"), "{root}");
        assert!(root.contains("2025-08-09 00:00"), "{root}");
        assert!(!list.contains("lost+found"), "{list}");
        assert_eq!(list.lines().count(), 8, "{list}");
        let file = format!("usr/{}/file", "a-long-name-".repeat(12));
        assert_eq!(unsquash(&["-cat", path, &file]), "deep\n");
        assert_eq!(unsquash(&["-cat", path, "usr/program"]).len(), 300_000);
        // What the two names of one file hold is there once.
        assert!(fs::metadata(&to).unwrap().len() < 16 << 10);

        let again = directory.path().join("again.squashfs");
        // The kernel's times of files have this resolution at least.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        make(&disk, AT, &again).unwrap();
        assert!(fs::read(&to).unwrap() == fs::read(&again).unwrap());
    }

    #[test]
    fn what_is_no_file_system_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let Some(disk) = disk(directory.path()) else {
            return;
        };
        let error = make(&disk, 0, &directory.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("the root in"), "{error}");
    }
}
