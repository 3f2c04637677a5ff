//! A real Slurm in namespaces: started once, used by all tests, and gone with this process, however it ends.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{LazyLock, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How often a test looks whether what it waits for is there: for some minutes, or longer on a busy machine.
const TRIES: u32 = 600;

/// How long it sleeps in between.
const PAUSE_SECONDS: &str = "0.2";

static BED: LazyLock<Bed> = LazyLock::new(Bed::start);

/// Held for writing by tests that take nodes away from others.
static POOL: RwLock<()> = RwLock::new(());

struct Bed {
    directory: PathBuf,
    /// Its process 1 as seen from here. It ends when its standard input does, which is with us.
    pid: u32,
    _unshare: Child,
}

/// A user at a terminal of the head, in a directory of the test's own.
pub struct Desk {
    user: &'static str,
    directory: String,
    /// What it has submitted: a test that fails must not leave the nodes taken.
    submitted: RefCell<Vec<String>>,
    _shared: Option<RwLockReadGuard<'static, ()>>,
    _alone: Option<RwLockWriteGuard<'static, ()>>,
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

/// Alice, beside other tests.
pub fn desk(test: &str) -> Desk {
    let shared = POOL.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    Desk::new("alice", test, Some(shared), None)
}

/// Alice, with all nodes to herself.
pub fn desk_alone(test: &str) -> Desk {
    let alone = POOL
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    Desk::new("alice", test, None, Some(alone))
}

impl Desk {
    fn new(
        user: &'static str,
        test: &str,
        shared: Option<RwLockReadGuard<'static, ()>>,
        alone: Option<RwLockWriteGuard<'static, ()>>,
    ) -> Self {
        let home = if user == "root" {
            "/root".to_owned()
        } else {
            format!("/home/{user}")
        };
        let desk = Self {
            user,
            directory: format!("{home}/{test}"),
            submitted: RefCell::default(),
            _shared: shared,
            _alone: alone,
        };
        let made = BED.run("head", user, &home, &format!("mkdir {}", desk.directory));
        assert_eq!(made.code, 0, "{made:?}");
        desk
    }

    /// Somebody else for the same test.
    pub fn other(&self, user: &'static str) -> Self {
        let test = self.directory.rsplit('/').next().unwrap();
        Self::new(user, test, None, None)
    }

    /// Runs shell text on the head.
    pub fn run(&self, text: &str) -> Outcome {
        BED.run("head", self.user, &self.directory, text)
    }

    /// Runs what must succeed; its output.
    pub fn ok(&self, text: &str) -> String {
        let outcome = self.run(text);
        assert_eq!(outcome.code, 0, "{text}: {outcome:?}");
        outcome.output
    }

    /// Runs what must fail with this code and exactly these words.
    pub fn fails(&self, text: &str, code: i32, words: &str) {
        let outcome = self.run(text);
        assert_eq!(
            (outcome.code, &*outcome.error),
            (code, words),
            "{text}: {outcome:?}"
        );
    }

    /// Submits a script that is given as text; the job's identifier.
    pub fn submit(&self, options: &str, script: &str) -> String {
        let id = self.ok(&format!(
            "qsub {options} <<'THE_SCRIPT'\n{script}\nTHE_SCRIPT"
        ));
        let number = id.strip_suffix(".head").unwrap_or_else(|| panic!("{id}"));
        assert!(number.trim_end_matches("[]").parse::<u32>().is_ok(), "{id}");
        self.submitted.borrow_mut().push(id.clone());
        id
    }

    /// Submits a script and waits for its end; what it wrote, errors included.
    pub fn result(&self, options: &str, script: &str) -> String {
        let id = self.submit(
            &format!("{options} -j oe -o {}/result", self.directory),
            script,
        );
        self.finished(&id);
        let text = self.read("result");
        self.ok("rm result");
        text
    }

    /// Waits until the job is over.
    pub fn finished(&self, id: &str) {
        let number = id.split(['.', '[']).next().unwrap_or(id);
        // Cheaper than qstat, which has the last word.
        self.until(&format!(
            "! squeue --noheader --jobs={number} 2>/dev/null | grep -q ."
        ));
        self.until(&format!("qstat '{id}' >/dev/null 2>&1; test $? = 35"));
    }

    /// Waits until the job has this state.
    pub fn state(&self, id: &str, letter: char) {
        self.until(&format!(
            "qstat -x -f '{id}' | grep -q 'job_state = {letter}'"
        ));
    }

    /// Waits until shell text succeeds.
    pub fn until(&self, text: &str) {
        let waited = self.run(&format!(
            "tries=0; until {{ {text}; }}; do tries=$((tries + 1)); [ $tries -lt {TRIES} ] || exit 1; sleep {PAUSE_SECONDS}; done"
        ));
        let now = || self.run("qstat -t; pbsnodes -l; squeue").output;
        assert_eq!(waited.code, 0, "waited for: {text}\n{}", now());
    }

    /// A file of the test's directory, or any by its full path.
    pub fn read(&self, file: &str) -> String {
        self.ok(&format!("cat -- '{file}'"))
    }

    /// One attribute of `qstat -f`.
    pub fn attribute(&self, id: &str, name: &str) -> Option<String> {
        let text = self.ok(&format!("qstat -x -f -1 '{id}'"));
        let start = format!("    {name} = ");
        text.lines()
            .find_map(|line| line.strip_prefix(&start).map(str::to_owned))
    }

    /// Asserts attributes of `qstat -f`.
    pub fn has(&self, id: &str, attributes: &[(&str, &str)]) {
        for (name, value) in attributes {
            assert_eq!(
                self.attribute(id, name).as_deref(),
                Some(*value),
                "{name} of {id}"
            );
        }
    }

    /// The test's directory.
    pub fn directory(&self) -> &str {
        &self.directory
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.submitted.borrow().is_empty() {
            let ids = self.submitted.borrow().join("' '");
            self.run(&format!("qdel '{ids}' 2>/dev/null"));
        }
    }
}

impl Bed {
    fn start() -> Self {
        let root = std::env::var_os("WOW_TEST_WORKSTATION")
            .unwrap_or_else(|| panic!("WOW_TEST_WORKSTATION is not set: run `cargo xtask test`"));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("slurm");
        std::fs::create_dir_all(&directory).unwrap();
        // Only one at a time: the directory is a mount point, though each sees only its own.
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm/bed.sh");
        let log = std::fs::File::create(directory.with_extension("log")).unwrap();
        let mut unshare = Command::new("unshare")
            .args([
                "--mount",
                "--net",
                "--ipc",
                "--pid",
                "--fork",
                "--kill-child",
                "--mount-proc",
                "sh",
            ])
            .arg(script)
            .arg(&directory)
            .arg(root)
            .arg(env!("CARGO_BIN_EXE_wow-pbs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut first = String::new();
        let stdout = unshare.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut first).unwrap();
        let said = std::fs::read_to_string(directory.with_extension("log")).unwrap_or_default();
        assert_eq!(first, "ready\n", "Slurm does not start: {said}");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let pid = std::fs::read_to_string(children)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        Self {
            directory,
            pid,
            _unshare: unshare,
        }
    }

    fn run(&self, machine: &str, user: &str, directory: &str, text: &str) -> Outcome {
        let id = match user {
            "alice" => "1000",
            "bob" => "1001",
            _ => "0",
        };
        let home = if id == "0" {
            "/root".to_owned()
        } else {
            format!("/home/{user}")
        };
        // First into the bed, then into the machine.
        let inside =
            r#"pid=$(cat "$1.pid"); shift; exec nsenter --target "$pid" --all --root --wd "$@""#;
        let output: Output = Command::new("nsenter")
            .args([
                "--target",
                &self.pid.to_string(),
                "--all",
                "--root",
                "--wd",
                "--",
            ])
            .args(["sh", "-c", inside, "sh"])
            .arg(self.directory.join(machine))
            .args(["--setuid", id, "--setgid", id, "--", "env", "-i"])
            .args([
                format!("HOME={home}"),
                format!("USER={user}"),
                format!("LOGNAME={user}"),
            ])
            .args([
                "SHELL=/bin/bash",
                "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            ])
            .args([
                "sh",
                "-c",
                "cd \"$1\" && eval \"$2\"",
                "sh",
                directory,
                text,
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| {
            String::from_utf8_lossy(&bytes)
                .trim_end_matches('\n')
                .to_owned()
        };
        Outcome {
            output: text(output.stdout),
            error: text(output.stderr),
            code: output.status.code().unwrap_or(-1),
        }
    }
}
