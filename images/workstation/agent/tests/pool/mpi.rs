//! What a user of MPI types inside a PBS job, without flags, over the overlay alone.

use crate::bed::POOL;

/// A program that only tells its rank, and meets the others when it ends.
const RANKS: &str = "/usr/lib/examl/bin/examl-sse3 -h";

/// Runs a script as a job on both workers, one process each; what it printed.
fn job(name: &str, script: &str) -> String {
    POOL.assembled();
    let text = format!(
        "mkdir {name} && cd {name} && cat >script <<'END'\ncd $PBS_O_WORKDIR\n{script}\nEND\n\
         qsub -W block=true -j oe -o out -N {name} -l nodes=2:ppn=1 script >id; status=$?; cat out; exit $status"
    );
    POOL.ok("head", "alice", &text)
}

#[test]
fn mpirun_and_srun_start_a_process_on_each_node_without_flags() {
    let said = job(
        "start",
        &format!(
            "one_line() {{ sort | paste -sd' '; }}\n\
             echo \"mpirun: $(mpirun hostname 2>&1 | one_line)\"\n\
             echo \"two: $(mpirun -np 2 hostname 2>&1 | one_line)\"\n\
             echo \"one: $(mpirun -np 1 hostname 2>&1 | one_line)\"\n\
             echo \"more: $(mpirun -np 4 --map-by node:OVERSUBSCRIBE hostname 2>&1 | one_line)\"\n\
             echo \"file: $(mpirun -np 2 -machinefile $PBS_NODEFILE hostname 2>&1 | one_line)\"\n\
             echo \"hosts: $(mpirun --hostfile $PBS_NODEFILE hostname 2>&1 | one_line)\"\n\
             # It says so when the step before has not quite ended.\n\
             waited='srun: .*step creation temporarily disabled|srun: Step created'\n\
             echo \"srun: $(srun hostname 2>&1 | grep -vE \"$waited\" | one_line)\"\n\
             ranks() {{ sed -n 's/.*Process Number: /rank /p' | one_line; }}\n\
             echo \"mpi by mpirun: $(mpirun {RANKS} | ranks)\"\n\
             echo \"mpi by srun: $(srun {RANKS} | ranks)\""
        ),
    );
    let expected = "mpirun: w1 w2\n\
                    two: w1 w2\n\
                    one: w1\n\
                    more: w1 w1 w2 w2\n\
                    file: w1 w2\n\
                    hosts: w1 w2\n\
                    srun: w1 w2\n\
                    mpi by mpirun: rank 0 rank 1\n\
                    mpi by srun: rank 0 rank 1";
    assert_eq!(said, expected);
}

/// From threads of its own a daemon may miss that a short process has ended, and `mpirun` never does.
#[test]
fn daemons_start_processes_from_the_thread_that_hears_of_their_end() {
    let said = job(
        "threads",
        "mpirun -np 4 --map-by node:OVERSUBSCRIBE sh -c 'ls /proc/$PPID/task | wc -l' 2>&1",
    );
    let threads: Vec<u32> = said.lines().filter_map(|line| line.parse().ok()).collect();
    assert_eq!(threads.len(), 4, "{said}");
    // Sixteen would be there to start them.
    assert!(threads.iter().all(|count| *count < 16), "{said}");
}

#[test]
fn processes_are_started_and_meet_by_the_overlay_alone() {
    // Addresses of any other interface lead nowhere between domains, or to a stranger.
    let said = job(
        "overlay",
        &format!(
            "mpirun --prtemca oob_base_verbose 20 --mca btl_base_verbose 100 {RANKS} 2>&1 |\n\
             sed -n 's/.*init adding \\([^ ]*\\) .*/started by \\1/p; s/.*connect() to .* address \\([^ ]*\\) .*/met by \\1/p'"
        ),
    );
    for kind in ["started by ", "met by "] {
        let used: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix(kind))
            .collect();
        assert!(!used.is_empty(), "{kind}: {said}");
        for address in used {
            // The pool's ranges.
            assert!(
                address.starts_with("10.") || address.starts_with("fd"),
                "{said}"
            );
        }
    }
}

#[test]
fn processes_that_wait_leave_the_processor_to_the_overlay() {
    POOL.assembled();
    for machine in ["w1", "w2"] {
        let known = "ompi_info --all --parsable | grep '^mca:mpi:base:param:mpi_yield_when_idle:\\(value\\|source\\)'";
        let said = POOL.ok(machine, "alice", known);
        assert!(
            said.contains(":value:1") || said.contains(":value:true"),
            "{said}"
        );
        assert!(said.contains("openmpi-mca-params.conf"), "{said}");
    }
}

#[test]
fn processes_of_jobs_on_one_machine_are_not_bound_to_the_same_core() {
    let allowed = "grep Cpus_allowed_list /proc/self/status";
    let said = job("binding", &format!("mpirun {allowed}"));
    let all = POOL.ok("w1", "root", allowed);
    assert_eq!(said, format!("{all}\n{all}"));
}
