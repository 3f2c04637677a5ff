//! The table `pbs-compat.md` against a real Slurm: one test a row. Run by `cargo xtask test`, as root.

mod bed;
mod change;
mod jobs;
mod nodes;
mod output;
mod show;
mod size;
mod submit;

use std::collections::BTreeSet;

const TABLE: &str = include_str!("../../../pbs-compat.md");

const SOURCES: &[&str] = &[
    include_str!("change.rs"),
    include_str!("jobs.rs"),
    include_str!("nodes.rs"),
    include_str!("output.rs"),
    include_str!("show.rs"),
    include_str!("size.rs"),
    include_str!("submit.rs"),
];

#[test]
fn every_row_of_the_table_has_its_test_and_every_test_a_row() {
    let rows: BTreeSet<&str> = TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && line.ends_with("` |"))
        .filter_map(|line| line.trim_end_matches("` |").rsplit_once('`'))
        .map(|(_, test)| test)
        .collect();
    let tests: BTreeSet<&str> = SOURCES
        .iter()
        .flat_map(|source| source.split("#[test]\n").skip(1))
        .filter_map(|text| text.split_once("fn ")?.1.split_once('('))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(rows, tests);
}
