//! `qsub -I`: a shell on the first node, on this terminal.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::Stdio;

use crate::failure::Failure;
use crate::job_id::{JobId, Part};
use crate::slurm::{self, errors};
use crate::wrapper::Work;

use super::Submission;

/// Waits for nodes, runs the shell, and gives the nodes back.
pub fn run(job: &Submission) -> Result<u8, Failure> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return Err(Failure::system(
            "standard input and output must be a terminal for interactive job submission",
        ));
    }
    let script = job.wrapper(&Work::Terminal).compose();
    let mut command = slurm::program("salloc");
    // The environment goes from salloc to srun to the shell: it stands in no command line.
    let keep = std::env::var_os("SLURM_CONF");
    command.env_clear().envs(job.environment("PBS_INTERACTIVE"));
    if let Some(configuration) = keep {
        command.env("SLURM_CONF", configuration);
    }
    command
        .args(job.arguments())
        .args([
            "srun",
            "--interactive",
            "--preserve-env",
            "--pty",
            "/bin/sh",
            "-c",
        ])
        .arg(script)
        .stderr(Stdio::piped());
    let run = |error| Failure::system(format!("cannot run salloc: {error}"));
    let mut child = command.spawn().map_err(run)?;
    let mut teller = Teller::default();
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            teller.hear(&line);
        }
    }
    let status = child.wait().map_err(run)?;
    if teller.granted {
        if let Some(id) = &teller.id {
            eprintln!("\nqsub: job {id} completed");
        }
        return Ok(status
            .code()
            .and_then(|code| code.try_into().ok())
            .unwrap_or(1));
    }
    Err(errors::failure(&teller.complaints))
}

/// Says in PBS's words what salloc says.
#[derive(Default)]
struct Teller {
    id: Option<String>,
    granted: bool,
    complaints: String,
}

impl Teller {
    fn hear(&mut self, line: &str) {
        let Some(said) = line.strip_prefix("salloc: ") else {
            // Of srun or of the job itself. A terminal's lines may end by themselves.
            eprintln!("{}", line.trim_end_matches('\r'));
            return;
        };
        if said.starts_with("error:") || said.starts_with("fatal:") {
            self.complaints.push_str(line);
            self.complaints.push('\n');
            return;
        }
        let id = ["Pending job allocation ", "Granted job allocation "]
            .iter()
            .find_map(|words| said.strip_prefix(words))
            .and_then(|number| number.trim().parse().ok())
            .map(|number| {
                JobId {
                    number,
                    part: Part::Whole,
                }
                .full()
            });
        if let Some(id) = id {
            if self.id.is_none() {
                eprintln!("qsub: waiting for job {id} to start");
            }
            if said.starts_with("Granted") {
                eprintln!("qsub: job {id} ready\n");
                self.granted = true;
            }
            self.id = Some(id);
        }
    }
}
