//! Scientific work on a pool of workstations, as a user of a cluster does it: inputs are made, jobs are
//! submitted by `qsub` on the head, and what they leave behind is checked against what is known of it.

pub mod examl;
pub mod glam2;
pub mod job;
pub mod motif;
pub mod phylogeny;
pub mod shell;
