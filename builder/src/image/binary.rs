//! Builds the static binary that becomes `/init`, through cargo.
//!
//! glibc with `crt-static` needs no extra Rust target. The target is still named, so that the
//! flags do not reach build scripts and procedural macros. Paths of the machine are mapped away:
//! the binary is the same from any checkout.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::BuildError;
use crate::cache::{Fact, Package};
use crate::process::{self, Log};
use crate::repository::Directories;

/// The target of the appliance.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Programs that never look at their own stack, and what tells the linker to leave out the tables for that: a
/// tenth of the program, since the compiler makes them for whatever the standard library has them for.
const WITHOUT_UNWIND_TABLES: [(&str, &str); 1] = [("wow", "appliance/router/no-unwind.ld")];

/// Builds the binary and returns its path.
pub fn build(
    directories: &Directories,
    package: &str,
    binary: &str,
    log: &mut Log<'_>,
) -> Result<PathBuf, BuildError> {
    let mut command = cargo(directories)?;
    command.args(["rustc", "--release", "--locked", "--target", TARGET]);
    // What only people at a terminal need is a default feature.
    command.args([
        "--package",
        package,
        "--bin",
        binary,
        "--no-default-features",
    ]);
    let mut scripts = WITHOUT_UNWIND_TABLES.iter();
    if let Some((_, script)) = scripts.find(|(name, _)| *name == binary) {
        let mut argument = OsString::from("-Clink-arg=-Wl,--script=");
        argument.push(directories.root.join(script));
        command.arg("--").arg(argument);
    }
    log.compile(
        &format!("building {binary}"),
        command.current_dir(&directories.root),
    )?;
    let path = directories.target.join(TARGET).join("release").join(binary);
    if path.is_file() {
        return Ok(path);
    }
    Err(BuildError::Input(format!(
        "cargo left no {}: does a config.toml redirect it?",
        path.display()
    )))
}

/// The crates of others that a package's programs are linked from, by name and version.
pub fn crates(
    directories: &Directories,
    package: &str,
) -> Result<BTreeMap<String, Fact>, BuildError> {
    let mut command = cargo(directories)?;
    command.args(["tree", "--locked", "--target", TARGET, "--edges", "normal"]);
    command.args(["--package", package, "--no-default-features"]);
    command.args(["--prefix", "none", "--format", "{p}\t{l}\t"]);
    let listed = process::output(command.current_dir(&directories.root))?;
    Ok(listed.lines().filter_map(linked).collect())
}

/// A crate of `cargo tree`: `NAME vVERSION[ (WHERE OR WHAT)]`, its licence, and perhaps a mark. What runs in the
/// compiler or is ours is none of them.
fn linked(line: &str) -> Option<(String, Fact)> {
    let mut parts = line.split('\t');
    let (package, licence) = (parts.next()?, parts.next()?);
    let mut words = package.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    if words.next().is_some() {
        return None;
    }
    let fact = Fact {
        name: name.to_owned(),
        version: version.to_owned(),
        package: Some(Package::of_cargo(name, version, licence)),
        ..Fact::default()
    };
    Some((format!("{name} {version}"), fact))
}

/// The compiler's version, for the manifest.
pub fn compiler() -> Result<String, BuildError> {
    process::output(process::command("rustc").arg("--version"))
}

fn cargo(directories: &Directories) -> Result<Command, BuildError> {
    let mut command = process::command("cargo");
    // `cargo xtask` is itself run by cargo, which tells its children about the package they
    // belong to.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        let inherited = name_text.starts_with("CARGO_PKG_")
            || name_text.starts_with("CARGO_MANIFEST_")
            || name_text.starts_with("CARGO_PROFILE_")
            || matches!(
                &*name_text,
                "CARGO_CRATE_NAME" | "CARGO_BIN_NAME" | "CARGO_PRIMARY_PACKAGE"
            )
            || matches!(
                &*name_text,
                "RUSTFLAGS" | "CARGO_BUILD_TARGET" | "CARGO_BUILD_RUSTFLAGS"
            );
        if inherited {
            command.env_remove(&name);
        }
    }
    let maps = path_maps(directories)?;
    // Separated by 0x1f: paths may have spaces.
    // A panic aborts, and without symbols a backtrace says nothing.
    let mut rust_flags = OsString::from("-Ctarget-feature=+crt-static\x1f-Cforce-unwind-tables=no");
    let mut c_flags = OsString::new();
    for (from, to) in &maps {
        rust_flags.push("\x1f--remap-path-prefix=");
        rust_flags.push(from);
        rust_flags.push(format!("={to}"));
        if !c_flags.is_empty() {
            c_flags.push(" ");
        }
        c_flags.push("-ffile-prefix-map=");
        c_flags.push(from);
        c_flags.push(format!("={to}"));
    }
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags);
    command.env(format!("CFLAGS_{}", TARGET.replace('-', "_")), c_flags);
    command
        .env("CARGO_TARGET_DIR", &directories.target)
        .env("CARGO_TERM_COLOR", "never");
    Ok(command)
}

/// Prefixes of paths that would enter the binary, with what stands for them; later ones win.
fn path_maps(directories: &Directories) -> Result<Vec<(PathBuf, &'static str)>, BuildError> {
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let cargo_home =
        std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let sysroot = process::output(process::command("rustc").args(["--print", "sysroot"]))?;
    Ok(vec![
        (directories.root.clone(), "/wow"),
        (directories.target.clone(), "/target"),
        (cargo_home, "/cargo"),
        (Path::new(&sysroot).join("lib/rustlib/src/rust"), "/rust"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_others_are_told_from_ours_and_from_macros() {
        let listed = |line| linked(line).map(|(name, fact)| (name, fact.package.unwrap()));
        let (name, package) = listed("errno v0.3.15+a\tMIT/Apache-2.0\t (*)").unwrap();
        assert_eq!(name, "errno 0.3.15+a");
        assert_eq!(package.purl, "pkg:cargo/errno@0.3.15%2Ba");
        assert_eq!(package.licence.as_deref(), Some("MIT OR Apache-2.0"));
        assert_eq!(listed("clap_derive v4.6.9 (proc-macro)\tMIT\t"), None);
        assert_eq!(listed("wow-init v0.1.0 (/wow/appliance/init)\tMIT\t"), None);
        assert_eq!(listed("ring v0.1.0\t\t").unwrap().1.licence, None);
    }
}
