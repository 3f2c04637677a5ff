//! The scientific work of the laboratory, on a small scale: array jobs of glam2, and ExaML by MPI.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, Result};
use wow_lab::workloads::examl::Examl;
use wow_lab::workloads::glam2::Glam2;
use wow_lab::workloads::shell::{Said, Shell};

use crate::bed::POOL;

/// A user's shell on the head.
struct Head;

impl Shell for Head {
    fn run(&self, text: &str, input: &[u8]) -> Result<Said> {
        let mut child = POOL.spawn("head", "alice", text, Stdio::piped());
        let mut stdin = child.stdin.take().context("no input")?;
        let input = input.to_vec();
        // Beside its output, or both would wait for each other.
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output()?;
        writer.join().expect("it does not panic").or_else(ended)?;
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            output: output.stdout,
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// A command need not read all of its input.
fn ended(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

#[test]
fn forty_tasks_of_glam2_find_their_motifs_on_both_workers() {
    POOL.assembled();
    let report = Glam2::SHORT
        .start(&Head, "glam2")
        .and_then(|running| running.wait(&Head).and_then(|()| running.check(&Head, 2)));
    println!("{}", report.unwrap());
}

#[test]
fn examl_finds_the_same_tree_and_likelihood_over_two_nodes_as_on_one() {
    POOL.assembled();
    println!("{}", Examl::SHORT.run(&Head, "examl", 2).unwrap());
}
