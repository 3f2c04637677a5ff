//! PBS_NODEFILE: a line for each process, written inside the job from the nodes that it got.

use crate::resources::{Layout, Share};

/// Shell text that writes the node file to standard output, and corrects what Slurm says of processes where
/// the nodes have different shares.
pub fn shell(layout: &Layout) -> String {
    match layout {
        Layout::Shares(shares) => {
            let mut text = shares_text(shares);
            if uneven(shares) {
                text.push_str(CORRECT);
            }
            text
        }
        // Slurm decided how many processes each node has.
        Layout::Free { .. } | Layout::Chunks { .. } => FOLLOW_SLURM.to_owned(),
    }
}

/// `4(x2),3` beside the nodes' names.
const FOLLOW_SLURM: &str = r#"set -- $(printf '%s\n' "$SLURM_TASKS_PER_NODE" | tr ',' '\n' |
    awk -F'[(x)]+' '{ for (i = ($2 ? $2 : 1); i > 0; i--) print $1 }')
for _wow_host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    _wow_count=${1:-1}
    [ $# -eq 0 ] || shift
    while [ "$_wow_count" -gt 0 ]; do
        echo "$_wow_host"
        _wow_count=$((_wow_count - 1))
    done
done >"$PBS_NODEFILE"
"#;

/// Slurm gave all nodes the largest share; srun and mpirun are to start what was asked for.
const CORRECT: &str = r#"SLURM_NTASKS=$(wc -l <"$PBS_NODEFILE")
SLURM_NPROCS=$SLURM_NTASKS
SLURM_TASKS_PER_NODE=$(uniq -c "$PBS_NODEFILE" | awk '{ printf "%s%s", (NR > 1 ? "," : ""), $1 }')
export SLURM_NTASKS SLURM_NPROCS SLURM_TASKS_PER_NODE
unset SLURM_NTASKS_PER_NODE
"#;

fn shares_text(shares: &[Share]) -> String {
    let mut named = String::from(" ");
    let mut others = Vec::new();
    for share in shares {
        match &share.host {
            Some(host) => named.push_str(&format!("{host}={} ", share.processes)),
            None => others.push(share.processes.to_string()),
        }
    }
    format!(
        r#"_wow_named='{named}'
set -- {others}
for _wow_host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    case $_wow_named in
    *" $_wow_host="*)
        _wow_count=${{_wow_named##*" $_wow_host="}}
        _wow_count=${{_wow_count%% *}}
        ;;
    *)
        _wow_count=${{1:-1}}
        [ $# -eq 0 ] || shift
        ;;
    esac
    while [ "$_wow_count" -gt 0 ]; do
        echo "$_wow_host"
        _wow_count=$((_wow_count - 1))
    done
done >"$PBS_NODEFILE"
"#,
        others = others.join(" ")
    )
}

fn uneven(shares: &[Share]) -> bool {
    shares
        .windows(2)
        .any(|pair| pair[0].processes != pair[1].processes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs the text with a stand-in for the one command of Slurm's in it.
    fn written(layout: &Layout, hosts: &str, tasks: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nodes");
        let text = format!(
            "scontrol() {{ printf '%s\\n' $3; }}\n{}\n{{ cat \"$PBS_NODEFILE\"; echo \"${{SLURM_TASKS_PER_NODE-}}\"; }} | paste -sd' '",
            shell(layout)
        );
        let output = Command::new("sh")
            .args(["-euc", &text])
            .env("PBS_NODEFILE", &file)
            .env("SLURM_JOB_NODELIST", hosts.replace(' ', "\n"))
            .env("SLURM_TASKS_PER_NODE", tasks)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn share(host: Option<&str>, processes: u32) -> Share {
        Share {
            host: host.map(str::to_owned),
            processes,
            cpus: processes,
            memory_bytes: None,
        }
    }

    #[test]
    fn each_node_has_its_share() {
        let even = Layout::Shares(vec![share(None, 2), share(None, 2)]);
        assert_eq!(written(&even, "a b", "2(x2)"), "a a b b 2(x2)");
    }

    #[test]
    fn uneven_shares_correct_what_slurm_says() {
        let uneven = Layout::Shares(vec![share(None, 3), share(None, 1)]);
        assert_eq!(written(&uneven, "a b", "3(x2)"), "a a a b 3,1");
    }

    #[test]
    fn named_nodes_have_their_own() {
        let named = Layout::Shares(vec![share(Some("b"), 3), share(None, 1)]);
        assert_eq!(written(&named, "a b", "3(x2)"), "a b b b 1,3");
    }

    #[test]
    fn processes_that_lie_anywhere_are_where_slurm_put_them() {
        let free = Layout::Free {
            processes: 7,
            cpus: 1,
            memory_bytes: None,
            max_nodes: 7,
        };
        assert_eq!(written(&free, "a b c", "3(x2),1"), "a a a b b b c 3(x2),1");
    }
}
