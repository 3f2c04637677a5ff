//! Makes a pool and a ticket with the `wow` program, in a private directory.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::command;

/// Nothing here computes for long.
const LIMIT: Duration = Duration::from_secs(30);

/// Creates a pool named `name` with these seeds in `dir`, and a ticket for it. The ticket's path.
pub fn create(wow: &Path, dir: &Path, name: &str, seeds: &[String]) -> Result<PathBuf> {
    let mut new = Command::new(wow);
    new.args(["pool", "new", name, "--dir"]).arg(dir);
    for seed in seeds {
        new.args(["--seed", seed]);
    }
    command::run(new, LIMIT)?.success("wow pool new")?;

    let ticket = dir.join(format!("{name}.ticket"));
    let mut issue = Command::new(wow);
    issue
        .args(["pool", "ticket"])
        .arg(dir.join(format!("{name}.pool")));
    // Long enough for a kept demo, short enough to be worthless afterwards.
    issue.args(["--expires", "7d", "--out"]).arg(&ticket);
    command::run(issue, LIMIT)?.success("wow pool ticket")?;
    Ok(ticket)
}
