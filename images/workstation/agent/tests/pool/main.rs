//! A pool of workstations out of nothing but tickets: real `wow`, Slurm, OpenMPI and OpenSSH, in namespaces.
//!
//! The tests share the machines and run one after the other.

mod bed;
mod jobs;
mod membership;
mod mpi;
mod science;
mod ssh;
