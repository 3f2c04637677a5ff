//! Builds the router's image while tests run that mostly wait: its kernel takes minutes of both processors.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use wow_builder::host::{Guarded, Tether, guarded_command};

/// A build that gives way to everything else.
pub struct Ahead(Guarded);

impl Ahead {
    /// Begins it; what it says goes to a log.
    pub fn start(logs: &Path) -> Result<Self> {
        let path = logs.join("image-ahead.log");
        let log =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut command = guarded_command("nice", Tether::Tied);
        command
            .args(["-n", "19"])
            .arg(std::env::current_exe()?)
            .args(["image", "router"])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Self(Guarded::spawn(command)?))
    }

    /// Waits for its end. Whether it came to a good one is found out by whoever needs the image: it is made again
    /// then from what is there.
    pub fn finish(mut self) -> Result<()> {
        self.0.wait()?;
        Ok(())
    }
}
