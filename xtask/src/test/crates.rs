//! The table of who may depend on whom, held against what cargo says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Result, bail};
use cargo_metadata::DependencyKind;

use crate::cargo;

/// Each crate of the workspace with the workspace crates it may depend on, in any way.
const MAY_DEPEND_ON: &[(&str, &[&str])] = &[
    ("wow-overlay", &[]),
    ("wow-underlay", &[]),
    ("wow-guest", &[]),
    ("wow-control", &["wow-overlay"]),
    ("wow-init", &[]),
    (
        "wow-router",
        &[
            "wow-overlay",
            "wow-underlay",
            "wow-guest",
            "wow-dataplane",
            "wow-control",
            "wow-init",
        ],
    ),
    (
        "wow-dataplane",
        &["wow-overlay", "wow-underlay", "wow-guest"],
    ),
    ("wow-builder", &[]),
    ("wow-pbs", &[]),
    // Its tests have the laboratory's workloads run.
    ("wow-workstation", &["wow-lab"]),
    ("wow-sim", &["wow-overlay"]),
    ("wow-wan", &[]),
    (
        "wow-fuzz",
        &[
            "wow-overlay",
            "wow-underlay",
            "wow-guest",
            "wow-dataplane",
            "wow-control",
            "wow-init",
            "wow-router",
            "wow-wan",
            "wow-builder",
        ],
    ),
    ("wow-lab", &["wow-builder", "wow-wan"]),
    ("wow-forward", &["wow-guest"]),
    ("xtask", &["wow-builder", "wow-lab"]),
];

/// What the overlay must not reach even indirectly by name: sockets, event loops, the clock's and
/// the system's randomness.
const NEVER_IN_OVERLAY: &[&str] = &[
    "tokio",
    "mio",
    "socket2",
    "rustix",
    "libc",
    "getrandom",
    "nix",
];

/// The feature that replaces cryptography, and the one crate that may enable it.
const STAND_IN: (&str, &str) = ("stand-in", "wow-sim");

/// An error with every line of the table that does not hold.
pub fn check(root: &Path) -> Result<()> {
    let metadata = cargo::metadata()?;
    let members: BTreeSet<String> = metadata
        .packages
        .iter()
        .map(|package| package.name.to_string())
        .collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let depends: BTreeSet<String> = package
            .dependencies
            .iter()
            .map(|dependency| dependency.name.clone())
            .collect();
        wrong.extend(breaches(&package.name, depends.intersection(&members)));
        let (feature, user) = STAND_IN;
        let enables = package
            .dependencies
            .iter()
            .any(|dependency| dependency.features.iter().any(|enabled| enabled == feature));
        if enables && package.name != user {
            wrong.push(format!(
                "only {user} may enable the feature {feature}, not {}",
                package.name
            ));
        }
        if package.name == "wow-overlay" {
            let normal = package
                .dependencies
                .iter()
                .filter(|dependency| dependency.kind == DependencyKind::Normal);
            for dependency in
                normal.filter(|dependency| NEVER_IN_OVERLAY.contains(&&*dependency.name))
            {
                wrong.push(format!(
                    "wow-overlay must not depend on {}",
                    dependency.name
                ));
            }
        }
    }
    for (name, _) in MAY_DEPEND_ON {
        if !members.contains(*name) {
            wrong.push(format!(
                "{name} stands in the table but not in {}",
                root.display()
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("\n"))
}

/// The dependencies of one crate that the table does not allow.
fn breaches<'a>(name: &str, depends: impl Iterator<Item = &'a String>) -> Vec<String> {
    let table: BTreeMap<_, _> = MAY_DEPEND_ON.iter().copied().collect();
    let Some(allowed) = table.get(name) else {
        return vec![format!(
            "{name} is not in the table of crates: decide what it may depend on"
        )];
    };
    depends
        .filter(|dependency| !allowed.contains(&dependency.as_str()))
        .map(|dependency| format!("{name} must not depend on {dependency}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds() {
        check(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
    }

    #[test]
    fn a_forbidden_arrow_and_an_unknown_crate_are_named() {
        let depends = ["wow-overlay".to_owned()];
        assert_eq!(
            breaches("wow-builder", depends.iter()),
            ["wow-builder must not depend on wow-overlay"]
        );
        assert!(breaches("wow-sim", depends.iter()).is_empty());
        assert!(breaches("wow-new", depends.iter())[0].contains("not in the table"));
    }
}
