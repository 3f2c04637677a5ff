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
    let pool = found(wow, dir, name, seeds)?;
    ticket(
        wow,
        &pool,
        "router,worker",
        &dir.join(format!("{name}.ticket")),
    )
}

/// Creates a pool alone. Its file.
pub fn found(wow: &Path, dir: &Path, name: &str, seeds: &[String]) -> Result<PathBuf> {
    let mut new = Command::new(wow);
    new.args(["pool", "new", name, "--dir"]).arg(dir);
    for seed in seeds {
        new.args(["--seed", seed]);
    }
    command::run(new, LIMIT)?.success("wow pool new")?;
    Ok(dir.join(format!("{name}.pool")))
}

/// Issues a ticket of a pool for nodes with these roles, into `out`. The ticket's path.
pub fn ticket(wow: &Path, pool: &Path, roles: &str, out: &Path) -> Result<PathBuf> {
    let mut issue = Command::new(wow);
    issue.args(["pool", "ticket", "--roles", roles]);
    // Long enough for a kept testbed, short enough to be worthless afterwards.
    issue.args(["--expires", "7d", "--out"]).arg(out).arg(pool);
    command::run(issue, LIMIT)?.success("wow pool ticket")?;
    Ok(out.to_path_buf())
}
