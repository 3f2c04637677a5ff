//! The root file system: made from a tree by mke2fs, read and changed by debugfs.
//!
//! debugfs works on the image as a file, so neither root nor a mount is needed. Times, the volume's
//! id and the seed of its hashes are fixed; what debugfs allocates follows from the image and the
//! order of the changes, so equal changes give equal bytes.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BuildError;
use crate::cache;
use crate::definition::Link;
use crate::digest::{Digest, Fields};
use crate::process::{self, Log};

/// Room for the journal, tables of inodes and bitmaps, and what directories take beyond files.
const OVERHEAD_MIB: u64 = 48;
/// The root's share that only root may fill: enough to log in and make room.
const RESERVED_PERCENT: &str = "1";

/// A file to put in.
#[derive(Debug)]
pub struct Addition {
    /// Where it will lie.
    pub path: String,
    /// Its permissions.
    pub mode: u32,
    /// Where its content is on this machine.
    pub source: PathBuf,
}

/// The shell text that makes the file system `root.ext4` out of the tree `tree`, both in the working
/// directory, for whoever has the right to read the tree: `free_mib` stay free.
pub fn make_script(label: &str, name: &str, free_mib: u64, time: u64) -> String {
    let (id, seed) = (uuid("id", name), uuid("hash seed", name));
    let extra = (OVERHEAD_MIB + free_mib) << 8;
    // Blocks of 4 KiB: each file's, once a file, and one for every other entry. mke2fs takes the
    // inodes' other times from the tree, where they are those of unpacking.
    format!(
        "PATH=$PATH:/usr/sbin:/sbin\n\
         export E2FSPROGS_FAKE_TIME={time}\n\
         blocks=$(find tree -xdev -printf '%i %y %s\\n' | LC_ALL=C sort -u | \
         awk '{{ n += $2 == \"f\" ? int(($3 + 4095) / 4096) : 1 }} END {{ print int(n * 1.02) + {extra} }}')\n\
         mke2fs -q -t ext4 -b 4096 -m {RESERVED_PERCENT} -L {label} -U {id} \
         -E hash_seed={seed},root_owner=0:0,nodiscard -d tree root.ext4 \"$blocks\" >&2\n\
         inodes=$(dumpe2fs -h root.ext4 | \
         awk '/^Inode count:/ {{ n += $3 }} /^Free inodes:/ {{ n -= $3 }} END {{ print n }}')\n\
         seq \"$inodes\" | awk '$1 == 2 || $1 > 10 {{ for (i = 1; i < 3; i++) \
         print \"sif <\" $1 \"> \" (i == 1 ? \"a\" : \"c\") \"time @{time}\" }}' >times\n\
         debugfs -w -f times root.ext4 >&2\n"
    )
}

/// A UUID of version 8 (RFC 9562), a digest of what it stands for.
fn uuid(what: &str, name: &str) -> String {
    let digest: Digest = Fields::new("wow ext4")
        .field("what", what)
        .field("name", name)
        .finish();
    let hex = digest.to_string();
    format!(
        "{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..15],
        &hex[15..18],
        &hex[18..30]
    )
}

/// Copies a file of the image, or the file that a link in its directory leads to, to `to`.
pub fn extract(image: &Path, path: &str, to: &Path, log: &mut Log<'_>) -> Result<(), BuildError> {
    let mut path = path.to_owned();
    if let Some(target) = link_target(&ask(image, &format!("stat {path}\n"))?.0) {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        path = match target.starts_with('/') {
            true => target,
            false => format!("{parent}/{target}"),
        };
    }
    log.note(&format!("reading {path} from {}", image.display()))?;
    // The place's own name may be more than debugfs can read.
    let (directory, name) = (to.parent(), to.file_name().and_then(|name| name.to_str()));
    let (Some(directory), Some(name)) = (directory, name) else {
        return Err(BuildError::Input(format!("{} is no file", to.display())));
    };
    let (_, errors) = ask_in(directory, image, false, 0, &format!("dump {path} {name}\n"))?;
    match to.is_file() && errors.is_empty() {
        true => Ok(()),
        false => Err(BuildError::Input(format!(
            "the image has no {path}: {}",
            errors.join("; ")
        ))),
    }
}

/// Puts files and links into the image, in place of what is there, as root's, with `time` as theirs.
pub fn change(
    image: &Path,
    additions: &[Addition],
    links: &[Link],
    time: u64,
    scratch: &Path,
    log: &mut Log<'_>,
) -> Result<(), BuildError> {
    let paths = additions.iter().map(|addition| addition.path.as_str());
    let paths: BTreeSet<&str> = paths
        .chain(links.iter().map(|link| link.path.as_str()))
        .collect();
    let directories: BTreeSet<&str> = paths.iter().flat_map(|path| parents(path)).collect();
    let mut question = String::new();
    for path in directories.iter().chain(&paths) {
        let _ = writeln!(question, "stat {path}");
    }
    let (_, errors) = ask(image, &question)?;
    let missing = |path: &str| {
        let start = format!("{path}: File not found");
        errors.iter().any(|error| error.starts_with(&start))
    };

    let mut commands = String::new();
    // A set gives a directory before what lies in it.
    for directory in directories.iter().filter(|directory| missing(directory)) {
        let _ = writeln!(commands, "mkdir {directory}");
        own(&mut commands, directory, 0o040_755);
    }
    for path in paths.iter().filter(|path| !missing(path)) {
        let _ = writeln!(commands, "rm {path}");
    }
    for (number, addition) in additions.iter().enumerate() {
        // Numbers, because debugfs could not read every name of this machine.
        let staged = format!("{number}");
        let link = scratch.join(&staged);
        std::os::unix::fs::symlink(&addition.source, &link)
            .map_err(BuildError::io("link", &link))?;
        let (parent, name) = addition.path.rsplit_once('/').unwrap_or_default();
        let _ = writeln!(commands, "cd {parent}/\nwrite {staged} {name}\ncd /");
        own(&mut commands, &addition.path, 0o100_000 | addition.mode);
    }
    for link in links {
        let (parent, name) = link.path.rsplit_once('/').unwrap_or_default();
        let _ = writeln!(
            commands,
            "cd {parent}/\nsymlink {name} {}\ncd /",
            link.target
        );
        own(&mut commands, &link.path, 0o120_777);
    }
    log.note(&commands)?;
    let (_, errors) = ask_in(scratch, image, true, time, &commands)?;
    if !errors.is_empty() {
        let full = errors.iter().any(|error| error.contains("allocate"));
        let hint = if full { " (raise disk.free-mib)" } else { "" };
        return Err(BuildError::Input(format!(
            "cannot put files into the root{hint}: {}",
            errors.join("; ")
        )));
    }
    log.run(
        "checking the root file system",
        process::command("e2fsck").args(["-f", "-n"]).arg(image),
    )
}

fn own(commands: &mut String, path: &str, mode: u32) {
    let _ = writeln!(
        commands,
        "sif {path} mode 0{mode:o}\nsif {path} uid 0\nsif {path} gid 0"
    );
}

/// The directories above `path`, but for the root itself.
fn parents(path: &str) -> Vec<&str> {
    path.match_indices('/')
        .skip(1)
        .map(|(at, _)| &path[..at])
        .collect()
}

/// The target in debugfs's description of a short symbolic link.
fn link_target(stat: &str) -> Option<String> {
    let line = stat
        .lines()
        .find_map(|line| line.strip_prefix("Fast link dest: "))?;
    Some(line.trim_matches('"').to_owned())
}

fn ask(image: &Path, commands: &str) -> Result<(String, Vec<String>), BuildError> {
    let parent = image.parent().unwrap_or(Path::new("."));
    ask_in(parent, image, false, 0, commands)
}

/// Runs debugfs's `commands` in `directory`; what it answers, and what it complains of.
fn ask_in(
    directory: &Path,
    image: &Path,
    write: bool,
    time: u64,
    commands: &str,
) -> Result<(String, Vec<String>), BuildError> {
    let file = tempfile::NamedTempFile::new()
        .map_err(BuildError::io("create", Path::new("a temporary file")))?;
    fs::write(file.path(), commands).map_err(BuildError::io("write", file.path()))?;
    let mut command: Command = process::command("debugfs");
    command
        .env("E2FSPROGS_FAKE_TIME", time.to_string())
        .env("DEBUGFS_PAGER", "cat")
        .current_dir(directory);
    if write {
        command.arg("-w");
    }
    command.arg("-f").arg(file.path()).arg(image);
    let output = command
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(BuildError::io("run", Path::new("debugfs")))?;
    // The first line names the program's version.
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors = errors.lines().skip(1).map(str::trim);
    Ok((
        String::from_utf8_lossy(&output.stdout).into_owned(),
        errors
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect(),
    ))
}

/// A new empty directory for [`change`] to work in.
pub fn scratch(entry: &Path) -> Result<PathBuf, BuildError> {
    let scratch = entry.join("scratch");
    cache::remove(&scratch)?;
    cache::create(&scratch)?;
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Programs;
    use crate::progress::Progress;

    const TIME: u64 = 1_754_697_600;

    /// Runs `work` with a log in a directory that holds a small root; not without e2fsprogs.
    fn with_root(work: impl FnOnce(&Path, &Path, &mut Log<'_>)) {
        let directory = tempfile::tempdir().unwrap();
        let tree = directory.path().join("tree");
        fs::create_dir_all(tree.join("etc/old")).unwrap();
        fs::write(tree.join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        fs::write(tree.join("etc/hosts-1"), "1\n").unwrap();
        std::os::unix::fs::symlink("etc/hosts-1", tree.join("link")).unwrap();
        // What unpacking an archive leaves: times of the archive.
        let touch = format!("find tree -exec touch --no-dereference --date=@{TIME} {{}} +\n");
        let script = touch + &make_script("test", "test", 4, TIME);
        let mut shell = process::command("sh");
        let made = shell
            .args(["-ec", &script])
            .current_dir(directory.path())
            .output();
        let image = directory.path().join("root.ext4");
        if !image.is_file() {
            eprintln!("the file system is not checked here: {made:?}");
            return;
        }
        let running = Progress::hidden().start("test");
        let path = directory.path().join("log");
        let programs = Programs::new().unwrap();
        let mut log = Log::create(&path, &running, &programs).unwrap();
        work(directory.path(), &image, &mut log);
    }

    fn put(directory: &Path, image: &Path, log: &mut Log<'_>) -> Result<(), BuildError> {
        let source = directory.join("a name with spaces");
        fs::write(&source, "new\n").unwrap();
        let addition = |path: &str, mode| Addition {
            path: path.to_owned(),
            mode,
            source: source.clone(),
        };
        let additions = [
            addition("/etc/hosts", 0o600),
            addition("/usr/local/bin/program", 0o755),
        ];
        let link = Link {
            path: "/usr/local/bin/other".to_owned(),
            target: "program".to_owned(),
        };
        change(image, &additions, &[link], TIME, &scratch(directory)?, log)
    }

    #[test]
    fn files_are_replaced_and_added_with_their_directories_and_always_to_the_same_bytes() {
        with_root(|directory, image, log| {
            let copy = directory.join("copy.ext4");
            fs::copy(image, &copy).unwrap();
            put(directory, image, log).unwrap();
            put(directory, &copy, log).unwrap();
            assert!(fs::read(image).unwrap() == fs::read(&copy).unwrap());
            let stat = |path: &str| ask(image, &format!("stat {path}\n")).unwrap().0;
            for (path, mode) in [
                ("/etc/hosts", "0600"),
                ("/usr", "0755"),
                ("/usr/local/bin/program", "0755"),
                ("/usr/local/bin/other", "0777"),
            ] {
                let text = stat(path);
                assert!(text.contains(&format!("Mode:  {mode} ")), "{text}");
                assert!(text.contains("User:     0   Group:     0"), "{text}");
            }
            let other = link_target(&stat("/usr/local/bin/other"));
            assert_eq!(other.as_deref(), Some("program"));
            for path in ["/etc/hosts", "/usr/local/bin/program"] {
                let to = directory.join("out");
                cache::remove(&to).unwrap();
                extract(image, path, &to, log).unwrap();
                assert_eq!(fs::read(&to).unwrap(), b"new\n");
            }
        });
    }

    #[test]
    fn a_root_made_later_of_a_tree_made_later_is_the_same() {
        let mut roots = Vec::new();
        for _ in 0..2 {
            with_root(|_, image, _| roots.push(fs::read(image).unwrap()));
            // The kernel's times of files have this resolution at least.
            std::thread::sleep(std::time::Duration::from_millis(1100));
        }
        assert!(roots.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_link_is_followed_and_a_missing_file_told() {
        with_root(|directory, image, log| {
            let to = directory.join("out");
            extract(image, "/link", &to, log).unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"1\n");
            let error = extract(image, "/none", &directory.join("none"), log).unwrap_err();
            assert!(error.to_string().contains("has no /none"), "{error}");
        });
    }

    #[test]
    fn a_root_that_is_full_is_told_with_the_remedy() {
        with_root(|directory, image, log| {
            let source = directory.join("large");
            fs::write(&source, vec![7; 128 << 20]).unwrap();
            let addition = Addition {
                path: "/large".to_owned(),
                mode: 0o644,
                source,
            };
            let scratch = scratch(directory).unwrap();
            let error = change(image, &[addition], &[], TIME, &scratch, log).unwrap_err();
            assert!(error.to_string().contains("disk.free-mib"), "{error}");
        });
    }

    #[test]
    fn identifiers_follow_from_names() {
        assert_eq!(uuid("id", "a"), uuid("id", "a"));
        assert_ne!(uuid("id", "a"), uuid("id", "b"));
        assert_eq!(uuid("id", "a").len(), 36);
    }
}
