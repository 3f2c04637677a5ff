//! Child processes that cannot outlive us.
//!
//! Tied children die with this process, even when it is killed: `setpriv --pdeathsig` asks the kernel
//! for it, without `unsafe` code here. The kernel ties the signal to the *thread* that forked, so every
//! child is forked by one thread that lives as long as the process.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Whether a child dies with us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tether {
    /// It is killed when this process ends, however that happens.
    Tied,
    /// It stays when this process ends (`--keep`).
    Free,
}

/// How often a bounded wait looks again.
const POLL: Duration = Duration::from_millis(10);

/// A command for `program` that [`Guarded::spawn`] will tie as `tether` says; add arguments as usual.
pub fn guarded_command(program: impl AsRef<OsStr>, tether: Tether) -> Command {
    match tether {
        Tether::Tied => tied_command(program, "KILL"),
        Tether::Free => Command::new(program),
    }
}

/// A command for `program` that the kernel sends `signal` when the thread that starts it ends.
pub(crate) fn tied_command(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal, "--"]).arg(program);
    command
}

/// A child that is killed and reaped when this value is dropped.
#[derive(Debug)]
pub struct Guarded {
    child: Option<Child>,
    pid: u32,
}

impl Guarded {
    /// Starts `command` in a process group of its own, so that a Ctrl-C in the terminal reaches us alone
    /// and we end things in order.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        command.process_group(0);
        Self::spawn_in_foreground(command)
    }

    /// Starts `command` in our own process group: for a child that reads the terminal.
    pub fn spawn_in_foreground(command: Command) -> io::Result<Self> {
        let child = fork_on_the_lasting_thread(command)?;
        Ok(Self {
            pid: child.id(),
            child: Some(child),
        })
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The child's status if it has ended.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.try_wait(),
            None => Ok(None),
        }
    }

    /// Waits for the child's end for at most `limit`; `None` when it still runs.
    pub fn wait_for(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits for the child's end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        match &mut self.child {
            Some(child) => child.wait(),
            None => Err(io::Error::other("the process was released")),
        }
    }

    /// Kills and reaps the child now.
    pub fn kill(&mut self) {
        if let Some(child) = &mut self.child {
            // An error means that it has already ended and been reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Gives up ownership: a [`Tether::Free`] child goes on after us.
    pub fn release(mut self) -> u32 {
        self.child = None;
        self.pid
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Names one process for good: a pid alone may have been given to another since.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProcessId {
    /// Process id.
    pub pid: u32,
    /// Its start, in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub started_ticks: u64,
}

impl ProcessId {
    /// The identity of a running process; `None` when there is none by this pid.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold spaces; the fields after it do not.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?;
        if state == "Z" || state == "X" {
            return None;
        }
        Some(Self {
            pid,
            started_ticks: fields.nth(18)?.parse().ok()?,
        })
    }

    /// Whether this very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Kills this very process if it still runs and waits for its end, at most `limit`. True when gone.
    pub fn kill(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            thread::sleep(POLL);
        }
        true
    }
}

struct Job {
    command: Command,
    answer: Sender<io::Result<Child>>,
}

fn fork_on_the_lasting_thread(command: Command) -> io::Result<Child> {
    static JOBS: OnceLock<Sender<Job>> = OnceLock::new();
    let jobs = JOBS.get_or_init(|| {
        let (sender, receiver): (Sender<Job>, Receiver<Job>) = channel();
        thread::Builder::new()
            .name("spawner".into())
            .spawn(move || {
                for mut job in receiver {
                    // The receiver of the answer waits for it below.
                    let _ = job.answer.send(job.command.spawn());
                }
            })
            .expect("a thread can be started before anything else runs");
        sender
    });
    let (answer, result) = channel();
    jobs.send(Job { command, answer })
        .map_err(|_| io::Error::other("the spawner has ended"))?;
    result
        .recv()
        .map_err(|_| io::Error::other("the spawner has ended"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_child_is_gone() {
        let mut command = guarded_command("sleep", Tether::Tied);
        command.arg("600");
        let child = Guarded::spawn(command).unwrap();
        let id = ProcessId::of(child.pid()).unwrap();
        assert!(id.is_alive());
        drop(child);
        assert!(!id.is_alive());
    }

    #[test]
    fn a_child_forked_from_a_thread_survives_that_thread() {
        let mut child = thread::spawn(|| {
            let mut command = guarded_command("sleep", Tether::Tied);
            command.arg("600");
            Guarded::spawn(command).unwrap()
        })
        .join()
        .unwrap();
        assert!(
            child
                .wait_for(Duration::from_millis(200))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_tied_child_dies_with_a_killed_parent() {
        // The shell stands for us: it is killed, and its tied child must follow.
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "setpriv --pdeathsig KILL -- sleep 600 & echo $!; wait",
        ]);
        command.stdout(std::process::Stdio::piped());
        let mut shell = command.spawn().unwrap();
        let mut line = String::new();
        io::BufRead::read_line(
            &mut io::BufReader::new(shell.stdout.take().unwrap()),
            &mut line,
        )
        .unwrap();
        let pid: u32 = line.trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        // Only once setpriv has become sleep is the tie in place.
        while std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .unwrap()
            .trim()
            != "sleep"
        {
            assert!(Instant::now() < deadline);
            thread::sleep(POLL);
        }
        let id = ProcessId::of(pid).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        while id.is_alive() {
            assert!(Instant::now() < deadline, "the child outlived its parent");
            thread::sleep(POLL);
        }
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let own = ProcessId::of(std::process::id()).unwrap();
        let other = ProcessId {
            started_ticks: own.started_ticks + 1,
            ..own.clone()
        };
        assert!(own.is_alive());
        assert!(!other.is_alive());
        assert!(
            other.kill(Duration::from_secs(1)),
            "nothing of that identity is left to kill"
        );
    }
}
