//! Cargo as a program, and where it puts things.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

/// The workspace as cargo sees it.
pub fn metadata() -> Result<Metadata> {
    // `CARGO_MANIFEST_DIR` is this crate's; the workspace is above it.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .no_deps()
        .exec()
        .context("cargo metadata failed")
}

/// `cargo`, without what cargo told this process about the package xtask: build scripts that look
/// at such variables would otherwise run again for nothing.
pub fn command(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || matches!(
                &*text,
                "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "CARGO_PRIMARY_PACKAGE"
            )
        {
            command.env_remove(name);
        }
    }
    command.current_dir(root);
    command
}

/// Builds the WAN emulator; its path.
pub fn build_wan(root: &Path, target: &Path) -> Result<PathBuf> {
    build(root, target, "wow-wan", "wow-wan", "dev")
}

/// Builds the program `name` of a package by a profile; its path.
pub fn build(
    root: &Path,
    target: &Path,
    package: &str,
    name: &str,
    profile: &str,
) -> Result<PathBuf> {
    let status = command(root)
        .args(["build", "--quiet", "--locked", "--package", package])
        .args(["--profile", profile])
        .status()
        .context("cannot run cargo")?;
    anyhow::ensure!(status.success(), "building {package} failed with {status}");
    // For historical reasons cargo calls the directory of `dev` otherwise.
    let directory = if profile == "dev" { "debug" } else { profile };
    let path = target.join(directory).join(name);
    anyhow::ensure!(path.is_file(), "cargo left no {}", path.display());
    Ok(path)
}
