//! ExaML, the successor of fastDNAml: the likeliest tree of species by MPI, on one node and over several.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::job::Job;
use super::phylogeny::{Phylogeny, groups};
use super::shell::{Shell, quote};

/// Debian's packages that it needs on every machine: with it comes OpenMPI, which the workstation has.
pub const PACKAGES: &[&str] = &["examl"];

/// Debian's `examl` starts mpirun itself, and the variant for its own machine's processor everywhere. This
/// one runs on any processor of a pool.
const PROGRAM: &str = "/usr/lib/examl/bin/examl-sse3";

/// Two likelihoods are the same if their logarithms, which ExaML prints with six decimals, differ by no
/// more. Each process sums up its own sites, so other shares of them give sums in another order, and the
/// last of a double's 16 digits differ; ExaML itself ends its search at differences of 0.1.
const SAME: f64 = 0.001;

/// What is run, and how much of it.
#[derive(Debug, Clone)]
pub struct Examl {
    /// What the DNA and the trees follow from.
    pub seed: u64,
    /// Species: the messages grow with their square.
    pub species: usize,
    /// Sites: the work grows with them, the messages do not.
    pub sites: usize,
    /// What a run may take; it is its walltime too.
    pub limit: Duration,
}

/// One search for the tree.
#[derive(Debug, Clone, Serialize)]
pub struct Search {
    /// The logarithm of the likelihood of the tree that was found.
    pub log_likelihood: f64,
    /// By ExaML's own clock.
    pub seconds: f64,
    /// Where the processes ran, by rank.
    pub hosts: Vec<String>,
    /// The groups of its tree.
    #[serde(skip)]
    groups: BTreeSet<BTreeSet<String>>,
}

/// What came of it, when all of it is right.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// By one process.
    pub one: Search,
    /// By one process on each of several nodes.
    pub several: Search,
}

impl Examl {
    /// For the proof: some thousand round trips, each a tenth of a second between emulated machines.
    pub const PROOF: Self = Self {
        seed: 2006,
        species: 5,
        sites: 1000,
        limit: Duration::from_secs(3600),
    };

    /// As few species as have several trees, and less to do for each.
    pub const SHORT: Self = Self {
        species: 5,
        sites: 300,
        ..Self::PROOF
    };

    /// Makes the inputs in a new directory of the user's, and searches first on one node, then on so many
    /// with one process each. An error unless both find the tree along which the DNA evolved, with the same
    /// likelihood (see [`SAME`]), the second on different machines.
    pub fn run(&self, shell: &dyn Shell, directory: &str, nodes: usize) -> Result<Report> {
        let phylogeny = Phylogeny::new(self.seed, self.species, self.sites);
        let files = BTreeMap::from([
            ("alignment.phy".to_owned(), phylogeny.alignment),
            ("start.tree".to_owned(), phylogeny.start),
        ]);
        shell.make(directory, &files)?;
        let parse = "parse-examl -s alignment.phy -n alignment -m DNA";
        shell.ok(&format!("cd {} && {parse}", quote(directory)), &[])?;
        let truth = groups(&phylogeny.truth)?;
        let one = self.search(shell, directory, "one", 1)?;
        let several = self.search(shell, directory, "several", nodes)?;
        for search in [&one, &several] {
            ensure!(
                search.groups == truth,
                "on {:?} another tree was found than the DNA evolved along",
                search.hosts
            );
        }
        let report = Report { one, several };
        ensure!(
            report.difference() <= SAME,
            "the likelihoods differ: {:.6} on one node, {:.6} on {nodes}",
            report.one.log_likelihood,
            report.several.log_likelihood
        );
        Ok(report)
    }

    fn search(
        &self,
        shell: &dyn Shell,
        directory: &str,
        name: &str,
        nodes: usize,
    ) -> Result<Search> {
        let job = Job::submit(shell, directory, &self.script(name, nodes))?;
        job.wait(shell, self.limit)?;
        let ended = job.succeeded(shell, 1);
        let files = shell.files(
            directory,
            &[
                &format!("ExaML_info.{name}"),
                &format!("ExaML_result.{name}"),
                &format!("{name}.*"),
            ],
        )?;
        ended.with_context(|| format!("{name}.log: {:?}", files.get(&format!("{name}.log"))))?;
        let file = |name: &str| {
            files
                .get(name)
                .with_context(|| format!("{name} is missing"))
        };
        let ranks =
            (0..nodes).map(|rank| Ok(file(&format!("{name}.rank.{rank}"))?.trim().to_owned()));
        let hosts: Vec<String> = ranks.collect::<Result<_>>()?;
        let different: BTreeSet<&String> = hosts.iter().collect();
        ensure!(
            different.len() == nodes,
            "not {nodes} machines took part, but {hosts:?}"
        );
        let info = file(&format!("ExaML_info.{name}"))?;
        let number = |label: &str| {
            let line = info.lines().find_map(|line| line.strip_prefix(label));
            let number = line.and_then(|rest| rest.trim().parse::<f64>().ok());
            number.with_context(|| format!("no {label:?} in ExaML_info.{name}: {info}"))
        };
        Ok(Search {
            log_likelihood: number("Likelihood of best tree:")?,
            seconds: number("Overall Time for 1 Inference")?,
            groups: groups(file(&format!("ExaML_result.{name}"))?)?,
            hosts,
        })
    }

    /// A job that was ended and started again begins anew: ExaML does not write over a run of the same name.
    fn script(&self, name: &str, nodes: usize) -> String {
        format!(
            r#"#!/bin/sh
#PBS -N examl
#PBS -l nodes={nodes}:ppn=1,walltime={limit}
#PBS -j oe
#PBS -o {name}.log
cd "$PBS_O_WORKDIR" || exit 1
rm -f ExaML_*.{name} {name}.rank.*
mpirun sh -c 'hostname >{name}.rank.$OMPI_COMM_WORLD_RANK &&
    exec {PROGRAM} -s alignment.binary -t start.tree -m GAMMA -n {name}'
"#,
            limit = self.limit.as_secs(),
        )
    }
}

impl Report {
    /// Of the likelihoods' logarithms.
    pub fn difference(&self) -> f64 {
        (self.one.log_likelihood - self.several.log_likelihood).abs()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log likelihood {:.6} in {:.1} s on {}, {:.6} in {:.1} s on {}; they differ by {:.6}; \
             the tree is that along which the DNA evolved",
            self.one.log_likelihood,
            self.one.seconds,
            self.one.hosts.join(" and "),
            self.several.log_likelihood,
            self.several.seconds,
            self.several.hosts.join(" and "),
            self.difference(),
        )
    }
}
