//! Machines out of namespaces: started once, used by all tests, and gone with this process, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex};

/// How often a test looks whether what it waits for is there: for some minutes, or longer on a busy machine.
const TRIES: u32 = 900;

/// How long it sleeps in between.
const PAUSE_SECONDS: &str = "0.3";

/// Each machine with what its ticket allows, and the role that it is told.
const MACHINES: [(&str, &str, Option<&str>); 5] = [
    ("head", "head,worker,login", Some("head")),
    ("w1", "worker", None),
    ("w2", "router,worker", None),
    ("login", "login", None),
    ("r", "router", Some("head")),
];

/// The pool, with all machines up.
pub static POOL: LazyLock<Bed> = LazyLock::new(Bed::start);

/// See the module.
pub struct Bed {
    directory: PathBuf,
    /// Its process 1 as seen from here. It ends when its standard input does, which is with us.
    pid: u32,
    orders: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
    _unshare: Child,
    _tickets: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    /// Standard output without its last newline.
    pub output: String,
    /// Standard error likewise.
    pub error: String,
    /// The exit code.
    pub code: i32,
}

impl Bed {
    fn start() -> Self {
        let given = |name: &str| {
            std::env::var_os(name)
                .unwrap_or_else(|| panic!("{name} is not set: run `cargo xtask test`"))
        };
        let (root, wow) = (given("WOW_TEST_WORKSTATION"), given("WOW_TEST_WOW"));
        let pbs = given("WOW_TEST_PBS");
        let tickets = tickets(Path::new(&wow));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pool");
        std::fs::create_dir_all(&directory).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pool/bed.sh");
        let log = std::fs::File::create(directory.with_extension("log")).unwrap();
        let flags = [
            "--mount",
            "--net",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
        ];
        let mut unshare = Command::new("unshare")
            .args(flags)
            .args(["--mount-proc", "sh"])
            .arg(script)
            .arg(&directory)
            .arg(root)
            .arg(wow)
            .arg(env!("CARGO_BIN_EXE_wow-workstation"))
            .arg(pbs)
            .arg(tickets.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdin = unshare.stdin.take().unwrap();
        let mut stdout = BufReader::new(unshare.stdout.take().unwrap());
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let said = std::fs::read_to_string(directory.with_extension("log")).unwrap_or_default();
        assert_eq!(first, "ready\n", "the machines cannot be made: {said}");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let pid = std::fs::read_to_string(children).unwrap();
        let bed = Self {
            directory,
            pid: pid.trim().parse().unwrap(),
            orders: Mutex::new((stdin, stdout)),
            _unshare: unshare,
            _tickets: tickets,
        };
        for (machine, ..) in MACHINES {
            bed.boot(machine);
        }
        bed
    }

    /// Starts a machine.
    pub fn boot(&self, machine: &str) {
        self.order(&format!("boot {machine}"));
    }

    /// Ends a machine as when its power fails.
    pub fn kill(&self, machine: &str) {
        self.order(&format!("kill {machine}"));
    }

    fn order(&self, words: &str) {
        let mut orders = self.orders.lock().unwrap();
        writeln!(orders.0, "{words}").unwrap();
        let mut said = String::new();
        orders.1.read_line(&mut said).unwrap();
        let log = std::fs::read_to_string(self.directory.with_extension("log"));
        assert_eq!(said, "done\n", "{words}: {}", log.unwrap_or_default());
    }

    /// Runs shell text on a machine, as root or as a user of the pool.
    pub fn run(&self, machine: &str, user: &str, text: &str) -> Outcome {
        let output = self
            .spawn(machine, user, text, Stdio::null())
            .wait_with_output();
        let output = output.unwrap();
        let text = |bytes: Vec<u8>| {
            let text = String::from_utf8_lossy(&bytes);
            text.trim_end_matches('\n').to_owned()
        };
        Outcome {
            output: text(output.stdout),
            error: text(output.stderr),
            code: output.status.code().unwrap_or(-1),
        }
    }

    /// Starts shell text likewise.
    pub fn spawn(&self, machine: &str, user: &str, text: &str, input: Stdio) -> Child {
        // First into the bed, then into the machine, where its own su knows the pool's users.
        let inside = r#"pid=$(cat "$1.pid") || exit 99; shift; exec nsenter --target "$pid" --all --root --wd "$@""#;
        let become_user: &[&str] = match user {
            "root" => &["sh", "-c"],
            _ => &["setpriv", "--reset-env", "--init-groups", "--reuid"],
        };
        let mut words: Vec<&str> = become_user.to_vec();
        let cd = format!("cd; {text}");
        if user != "root" {
            words.extend([user, "--regid", user, "sh", "-c", &cd]);
        } else {
            words.push(text);
        }
        Command::new("nsenter")
            .args(["--target", &self.pid.to_string()])
            .args(["--all", "--root", "--wd", "--", "sh", "-c", inside, "sh"])
            .arg(self.directory.join(machine))
            .args(["--", "env", "-i"])
            .arg("PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .args(words)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs what must succeed; its output.
    pub fn ok(&self, machine: &str, user: &str, text: &str) -> String {
        let outcome = self.run(machine, user, text);
        assert_eq!(
            outcome.code,
            0,
            "{text} on {machine}: {outcome:?}\n{}",
            self.state()
        );
        outcome.output
    }

    /// Waits until shell text succeeds for root.
    pub fn until(&self, machine: &str, text: &str) {
        let waited = self.run(
            machine,
            "root",
            &format!(
                "tries=0; until {{ {text}; }} >/dev/null 2>&1; do tries=$((tries + 1)); [ $tries -lt {TRIES} ] || exit 1; sleep {PAUSE_SECONDS}; done"
            ),
        );
        assert_eq!(
            waited.code,
            0,
            "waited on {machine} for: {text}: {waited:?}\n{}",
            self.state()
        );
    }

    /// Waits until both workers take jobs.
    pub fn assembled(&self) {
        self.until("head", "test \"$(sinfo -h -N -p batch -t idle,mix,alloc -o %N | sort | paste -sd' ')\" = 'w1 w2'");
    }

    /// What the machines say of themselves.
    fn state(&self) -> String {
        let mut all = String::new();
        for (machine, ..) in MACHINES {
            let look = "tail -n 25 /var/log/agent.log; wow status; cat /etc/hosts";
            let said = self.run(machine, "root", look);
            all.push_str(&format!("--- {machine}\n{}\n{}\n", said.output, said.error));
        }
        all + &self.run("head", "root", "sinfo -N; squeue").output
    }
}

/// A pool and each machine's ticket: all that a machine is given.
fn tickets(wow: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(wow)
            .args(arguments)
            .current_dir(directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    // The router is the seed, as it would be in the world.
    run(&["pool", "new", "lab", "--seed", "192.0.2.5:4001"]);
    for (machine, allowed, role) in MACHINES {
        let out = format!("{machine}.ticket");
        run(&[
            "pool", "ticket", "lab.pool", "--roles", allowed, "--out", &out,
        ]);
        if let Some(role) = role {
            std::fs::write(directory.path().join(format!("{machine}.role")), role).unwrap();
        }
    }
    directory
}
