//! Corpora as directories: the committed ones, small, and those that grow under `target`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Inputs of one committed corpus.
const FILES_MAX: usize = 48;
/// Their bytes together: all corpora stay well below a megabyte.
const BYTES_MAX: u64 = 16 * 1024;

/// The names of all targets: each has a corpus, as a test of theirs makes sure.
pub fn names(root: &Path) -> Result<Vec<String>> {
    let directory = root.join("ci/fuzz/corpus");
    let entries = std::fs::read_dir(&directory)
        .with_context(|| format!("cannot list {}", directory.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// The committed corpus of a target.
pub fn committed(root: &Path, name: &str) -> PathBuf {
    root.join("ci/fuzz/corpus").join(name)
}

/// The growing corpus of a target.
pub fn directory(work: &Path, name: &str) -> Result<PathBuf> {
    let directory = work.join("corpus").join(name);
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Puts a choice of the files of `from` in the place of those of `to`: of all sizes, as far as the
/// bounds allow.
pub fn replace(to: &Path, from: &Path) -> Result<()> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(from).context("cannot list the merged corpus")? {
        let entry = entry.context("cannot list the merged corpus")?;
        let size = entry.metadata().context("cannot look at a file")?.len();
        files.push((size, entry.file_name()));
    }
    files.sort();
    let replaced = || -> std::io::Result<()> {
        for entry in std::fs::read_dir(to)? {
            std::fs::remove_file(entry?.path())?;
        }
        for name in choose(&files) {
            std::fs::copy(from.join(name), to.join(name))?;
        }
        Ok(())
    };
    replaced().with_context(|| format!("cannot replace the files of {}", to.display()))
}

/// Files at even steps from the smallest on, until a bound is reached.
fn choose<T>(files: &[(u64, T)]) -> Vec<&T> {
    let step = files.len().div_ceil(FILES_MAX).max(1);
    let mut total = 0;
    let chosen = files.iter().step_by(step).take_while(|(size, _)| {
        total += size;
        total <= BYTES_MAX
    });
    chosen.map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_of_all_sizes_and_within_both_bounds() {
        let small: Vec<_> = (0..480).map(|size| (size / 10, size)).collect();
        let chosen = choose(&small);
        assert_eq!((chosen.len(), *chosen[47]), (FILES_MAX, 470));
        let large: Vec<_> = (0..20).map(|name| (BYTES_MAX / 4, name)).collect();
        assert_eq!(choose(&large).len(), 4);
        assert!(choose::<u8>(&[]).is_empty());
    }
}
