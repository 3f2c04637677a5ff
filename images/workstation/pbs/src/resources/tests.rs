//! Resources in PBS's spelling against what Slurm is asked for.

use super::*;
use proptest::prelude::*;

/// A pool of four nodes with eight processors.
const POOL: [NodeSize; 4] = [NodeSize {
    cpus: 8,
    memory_bytes: 16 << 30,
}; 4];

fn request(text: &str) -> Result<Request, Failure> {
    let mut resources = Resources::default();
    resources.add(text)?;
    resources.request()
}

fn check(text: &str, expected: &str) {
    let request = request(text).unwrap();
    let layout = request.layout.fitted(&POOL);
    let arguments = layout.slurm(request.memory_bytes, request.process_memory_bytes);
    assert_eq!(arguments.join(" ").replace("--", ""), expected, "{text}");
}

#[test]
fn torques_nodes_are_nodes() {
    check("nodes=2:ppn=4", "nodes=2 ntasks-per-node=4 cpus-per-task=1");
    check("nodes=1", "nodes=1 ntasks-per-node=1 cpus-per-task=1");
    check(
        "nodes=w1:ppn=2+w2:ppn=2",
        "nodes=2 ntasks-per-node=2 nodelist=w1,w2 cpus-per-task=1",
    );
    check(
        "nodes=w1+w1",
        "nodes=1 ntasks-per-node=2 nodelist=w1 cpus-per-task=1",
    );
    check(
        "nodes=1:ppn=4+2:ppn=2",
        "nodes=3 ntasks-per-node=4 cpus-per-task=1",
    );
    check(
        "nodes=2:ppn=4,mem=4gb",
        "nodes=2 ntasks-per-node=4 mem=2048M cpus-per-task=1",
    );
    check(
        "nodes=2:ppn=4,pmem=1gb",
        "nodes=2 ntasks-per-node=4 mem=4096M cpus-per-task=1",
    );
    check(
        "procs=6,pmem=1gb",
        "ntasks=6 nodes=1-6 mem-per-cpu=1024M cpus-per-task=1",
    );
}

#[test]
fn openpbs_chunks_are_kept_whole() {
    check("ncpus=4", "nodes=1 ntasks-per-node=1 cpus-per-task=4");
    check(
        "select=1:ncpus=4",
        "nodes=1 ntasks-per-node=1 cpus-per-task=4",
    );
    check(
        "select=3:ncpus=4:mem=2gb",
        "ntasks=3 nodes=1-3 mem-per-cpu=512M cpus-per-task=4",
    );
    check(
        "select=2:ncpus=4:mpiprocs=4",
        "nodes=2 ntasks-per-node=4 cpus-per-task=1",
    );
    // Five chunks on four nodes: only all on one is even, and that is too small; Slurm will say no.
    check(
        "select=5:ncpus=4:mpiprocs=4",
        "nodes=5 ntasks-per-node=4 cpus-per-task=1",
    );
    check(
        "select=8:ncpus=4:mpiprocs=2:mem=1gb",
        "nodes=4 ntasks-per-node=4 mem=2048M cpus-per-task=2",
    );
    check(
        "select=2:ncpus=4:mpiprocs=4:mem=2gb+1:ncpus=1",
        "nodes=3 ntasks-per-node=4 mem=2048M cpus-per-task=1",
    );
}

#[test]
fn place_decides_where_chunks_lie() {
    check(
        "select=2:ncpus=2,place=scatter",
        "nodes=2 ntasks-per-node=1 cpus-per-task=2",
    );
    check(
        "select=2:ncpus=2+1:ncpus=1,place=pack",
        "nodes=1 ntasks-per-node=3 cpus-per-task=2",
    );
    assert!(request("select=1,place=scatter:excl").unwrap().exclusive);
    assert!(
        request("nodes=1,naccesspolicy=singlejob")
            .unwrap()
            .exclusive
    );
}

#[test]
fn features_and_limits() {
    let request = request("nodes=2:big:ppn=2,cput=1:00,pcput=30,file=1mb,nice=5,gpus=1").unwrap();
    assert_eq!(request.features, ["big"]);
    assert_eq!(request.gpus, Some(1));
    assert_eq!(request.limits.cpu_seconds, Some(30));
    assert_eq!(request.limits.file_bytes, Some(1 << 20));
    assert_eq!(request.limits.nice, Some(5));
}

#[test]
fn wrong_values_are_illegal_and_unknown_names_unknown() {
    for text in [
        "walltime",
        "walltime=",
        "walltime=x",
        "=1",
        "nodes=0",
        "nodes=1:ppn=x",
        "nodes=1:foo=2",
        "nodes=99999999",
        "nodes=-1",
        "select=2:ncpus",
        "select=0:ncpus=1",
        "select=a",
        "mem=1xb",
        "place=anywhere",
        "ncpus=0",
        "nice=99",
        "select=50000:ncpus=50000",
        "nodes=1:b&c",
    ] {
        assert_eq!(request(text).unwrap_err(), Failure::illegal('l'), "{text}");
    }
    assert_eq!(request("foo=1").unwrap_err().code, 187);
    assert_eq!(request("select=1:foo=1").unwrap_err().code, 187);
    assert_eq!(request("select=1:ncpus=1,mem=1gb").unwrap_err().code, 5);
}

#[test]
fn a_stronger_source_replaces_placement_as_a_whole() {
    let mut weak = Resources::default();
    weak.add("nodes=2:ppn=4,walltime=60").unwrap();
    let mut strong = Resources::default();
    strong.add("select=1:ncpus=1").unwrap();
    weak.override_with(strong);
    let names: Vec<_> = weak.iter().map(|(name, _)| name.to_owned()).collect();
    assert_eq!(names, ["select", "walltime"]);
}

proptest! {
    #[test]
    fn any_request_is_understood_or_refused(
        text in "((nodes|select|place|ncpus|mem|walltime|procs)=|[0-9w:+,=#]|ppn=|ncpus=|mpiprocs=|mem=|gb|pack){0,10}",
    ) {
        if let Ok(request) = request(&text) {
            let layout = request.layout.fitted(&POOL);
            prop_assert!(layout.nodes() >= 1 && layout.processes() >= 1);
            prop_assert!(layout.cpus() >= layout.processes());
            let _ = layout.slurm(request.memory_bytes, request.process_memory_bytes);
        }
    }
}
