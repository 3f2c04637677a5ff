//! qsub -l: how large a job is and where it runs, by what it finds inside.

use crate::bed::{Desk, desk};

/// The node file as counts in order: `2 2` for two lines of each of two nodes.
fn counts(desk: &Desk, options: &str) -> String {
    desk.result(
        options,
        "uniq -c $PBS_NODEFILE | awk '{ printf \"%s%s\", (NR > 1 ? \" \" : \"\"), $1 }'",
    )
}

#[test]
fn walltime_is_seconds_or_a_clock() {
    let desk = desk("walltime");
    for (text, shown, slurm) in [
        ("3600", "01:00:00", "1:00:00"),
        ("90", "00:01:30", "2:00"),
        ("1:30:00", "01:30:00", "1:30:00"),
        ("2:00:00:00", "48:00:00", "2-00:00:00"),
    ] {
        let id = desk.submit(&format!("-h -l walltime={text}"), "true");
        desk.has(&id, &[("Resource_List.walltime", shown)]);
        let number = id.trim_end_matches(".head");
        assert_eq!(desk.ok(&format!("squeue -h -o %l -j {number}")), slurm);
        desk.ok(&format!("qdel {id}"));
    }
}

#[test]
fn nodes_and_ppn_give_that_many_lines_for_each_node() {
    let desk = desk("nodes");
    assert_eq!(counts(&desk, "-l nodes=2:ppn=2"), "2 2");
    assert_eq!(counts(&desk, "-l nodes=1:ppn=3"), "3");
    assert_eq!(counts(&desk, "-l nodes=2"), "1 1");
    let variables = desk.result(
        "-l nodes=2:ppn=2",
        "echo $PBS_NUM_NODES $PBS_NUM_PPN $PBS_NP $(srun hostname | sort | uniq -c | awk '{ print $1 }')",
    );
    assert_eq!(variables, "2 2 4 2 2");
}

#[test]
fn nodes_can_be_named() {
    let desk = desk("named");
    assert_eq!(
        desk.result("-l nodes=w2:ppn=2", "paste -sd' ' $PBS_NODEFILE; hostname"),
        "w2 w2\nw2"
    );
    assert_eq!(
        desk.result("-l nodes=w2:ppn=2+w1", "paste -sd' ' $PBS_NODEFILE"),
        "w1 w2 w2"
    );
    assert_eq!(desk.result("-l select=1:ncpus=1:host=w1", "hostname"), "w1");
}

#[test]
fn unequal_shares_have_their_own_counts() {
    let desk = desk("unequal");
    assert_eq!(counts(&desk, "-l nodes=1:ppn=3+1:ppn=1"), "3 1");
    let tasks = desk.result(
        "-l nodes=1:ppn=3+1:ppn=1",
        "srun true; echo $SLURM_NTASKS $SLURM_TASKS_PER_NODE",
    );
    assert_eq!(tasks, "4 3,1");
}

#[test]
fn chunks_have_processes_processors_and_threads() {
    let desk = desk("chunks");
    let look =
        "echo $(wc -l <$PBS_NODEFILE) $(sort -u $PBS_NODEFILE | wc -l) $NCPUS $OMP_NUM_THREADS";
    assert_eq!(
        desk.result("-l select=2:ncpus=4:mpiprocs=4", look),
        "8 2 4 1"
    );
    assert_eq!(
        desk.result("-l select=1:ncpus=4:mpiprocs=2", look),
        "2 1 4 2"
    );
    assert_eq!(
        desk.result("-l select=1:ncpus=2:ompthreads=1", look),
        "1 1 2 1"
    );
    assert_eq!(desk.result("-l ncpus=3", look), "1 1 3 3");
    // Four chunks of two processes: two nodes hold two each.
    assert_eq!(
        desk.result("-l select=4:ncpus=2:mpiprocs=2", look),
        "8 2 2 1"
    );
    assert_eq!(
        counts(&desk, "-l select=1:ncpus=3:mpiprocs=3+1:ncpus=1"),
        "3 1"
    );
}

#[test]
fn place_packs_scatters_and_excludes() {
    let desk = desk("place");
    let nodes = "sort -u $PBS_NODEFILE | wc -l";
    assert_eq!(
        desk.result("-l select=2:ncpus=1 -l place=scatter", nodes),
        "2"
    );
    assert_eq!(desk.result("-l select=2:ncpus=1,place=pack", nodes), "1");
    let whole = "echo $SLURM_CPUS_ON_NODE";
    assert_eq!(desk.result("-l select=1:ncpus=1 -l place=excl", whole), "4");
    assert_eq!(
        desk.result("-l nodes=1 -l naccesspolicy=singlejob", whole),
        "4"
    );
    assert_eq!(desk.result("-n -l nodes=1", whole), "4");
}

#[test]
fn processors_anywhere_and_memory() {
    let desk = desk("memory");
    assert_eq!(desk.result("-l procs=6", "wc -l <$PBS_NODEFILE"), "6");
    for (resources, shown, slurm) in [
        ("nodes=2:ppn=2,mem=2gb", "2048mb", "1G"),
        ("nodes=1:ppn=2,pmem=256mb", "512mb", "512M"),
        ("mem=300000kb", "293mb", "293M"),
        ("select=2:ncpus=2:mpiprocs=2:mem=512mb", "1024mb", "512M"),
    ] {
        let id = desk.submit(&format!("-h -l {resources}"), "true");
        desk.has(&id, &[("Resource_List.mem", shown)]);
        let number = id.trim_end_matches(".head");
        assert_eq!(
            desk.ok(&format!("squeue -h -o %m -j {number}")),
            slurm,
            "{resources}"
        );
        desk.ok(&format!("qdel {id}"));
    }
}

#[test]
fn limits_hold_for_the_jobs_processes() {
    let desk = desk("limits");
    let limits = desk.result(
        "-l cput=1:00,file=1mb,pvmem=900mb,nice=7",
        "echo $(ulimit -t) $(ulimit -f) $(ulimit -v) $(nice)",
    );
    assert_eq!(limits, "60 1024 921600 7");
}
