//! Debian trees for tests: a suite's packages unpacked and configured in a directory, by mmdebstrap, as root.
//!
//! Made once for each list of packages. Nothing of it runs on the machine itself, and nothing is installed
//! there but mmdebstrap.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::HostError;

/// Names what a tree holds; written last, so a tree without it is the remains of an interrupted run.
const SEAL: &str = ".wow-tree";

/// The tree of `suite` with `packages` below `parent`, made now unless it is there. `say` gets a line.
pub fn debian_tree(
    parent: &Path,
    suite: &str,
    packages: &[&str],
    say: &mut dyn FnMut(&str),
) -> Result<PathBuf, HostError> {
    let tree = parent.join(format!("debian-{suite}"));
    let holds = packages.join(",");
    if fs::read_to_string(tree.join(SEAL)).is_ok_and(|sealed| sealed == holds) {
        return Ok(tree);
    }
    let failed = |source| HostError::Run {
        program: "mmdebstrap",
        source,
    };
    match fs::remove_dir_all(&tree) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir_all(parent).map_err(failed)?;
    // Where apt knows none, mmdebstrap has its own.
    let mirror = mirrors().into_iter().next();
    let from = mirror.as_deref().unwrap_or("mmdebstrap's own archive");
    say(&format!(
        "unpacking Debian {suite} with {holds} from {from}"
    ));
    let output = Command::new("mmdebstrap")
        .args(["--mode=root", "--variant=essential", "--quiet"])
        .args([
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
        ])
        .arg(format!("--include={holds}"))
        .arg(suite)
        .arg(&tree)
        .args(&mirror)
        .stdin(Stdio::null())
        .output()
        .map_err(failed)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let mut last: Vec<&str> = text.lines().rev().take(6).collect();
        last.reverse();
        return Err(HostError::Apt {
            command: format!("mmdebstrap {suite}"),
            message: last.join("; "),
        });
    }
    fs::write(tree.join(SEAL), &holds).map_err(failed)?;
    Ok(tree)
}

/// The Debian archives that this machine's apt uses: the main one, then its security updates'.
pub fn mirrors() -> Vec<String> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI)"])
        .args(["Created-By: Packages", "Origin: Debian"])
        .stdin(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    archives(&text.unwrap_or_default())
}

/// The first archives of each kind that have all suites: snapshots and disks hold one.
fn archives(text: &str) -> Vec<String> {
    let first = |end: &str| {
        let mut lines = text.lines().map(|line| line.trim_end_matches('/'));
        lines.find(|line| line.starts_with("http") && line.ends_with(end))
    };
    let Some(main) = first("/debian") else {
        return Vec::new();
    };
    let all = [Some(main), first("/debian-security")];
    all.into_iter().flatten().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_own_archives_are_used() {
        let text = "cdrom:x/\nhttp://m.test/debian-security/\nhttps://m.test/debian/\nhttp://n.test/debian/\n";
        let expected = ["https://m.test/debian", "http://m.test/debian-security"];
        assert_eq!(archives(text), expected);
        assert!(archives("").is_empty());
        assert!(archives("http://m.test/debian-security/").is_empty());
    }

    #[test]
    fn a_sealed_tree_is_used_as_it_is() {
        let parent = tempfile::tempdir().unwrap();
        let tree = parent.path().join("debian-x");
        fs::create_dir_all(&tree).unwrap();
        fs::write(tree.join(SEAL), "a,b").unwrap();
        let found = debian_tree(parent.path(), "x", &["a", "b"], &mut |_| {
            panic!("nothing to do")
        });
        assert_eq!(found.unwrap(), tree);
    }
}
