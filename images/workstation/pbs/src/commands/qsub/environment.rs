//! The environment that a job begins with: a login's, what was asked for, and what PBS tells of the submitter.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;

use crate::options::Options;
use crate::resources::Layout;
use crate::{site, variables};

/// What a login has for a path.
const LOGIN_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The submitter's variables that the job gets as PBS_O_NAME.
const ORIGINAL: &[&str] = &["HOME", "LANG", "LOGNAME", "PATH", "MAIL", "SHELL", "TZ"];

/// What the environment is made of.
pub struct Sources<'a> {
    /// qsub's options.
    pub options: &'a Options,
    /// The server's name.
    pub server: &'a str,
    /// Where qsub runs.
    pub directory: &'a str,
    /// Where the processes are.
    pub layout: &'a Layout,
    /// The first chunk's processes and processors.
    pub chunk: (u32, u32),
    /// Threads of each process, if it was said.
    pub threads: Option<u32>,
    /// The time that the job may take.
    pub walltime_seconds: Option<u64>,
    /// PBS_BATCH or PBS_INTERACTIVE.
    pub kind: &'a str,
}

/// The variables, each once.
pub fn of(sources: &Sources) -> Vec<(OsString, OsString)> {
    let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
    let mut set = |name: &str, value: &OsStr| {
        environment.insert(name.into(), value.to_owned());
    };
    let user = site::user();
    set("HOME", OsStr::new(&home()));
    set("LOGNAME", OsStr::new(&user));
    set("USER", OsStr::new(&user));
    set(
        "SHELL",
        &std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into()),
    );
    set("PATH", OsStr::new(LOGIN_PATH));
    if sources.options.whole_environment {
        for (name, value) in variables::of_environment() {
            environment.insert(name, value);
        }
    }
    for variable in &sources.options.variables {
        let value = match &variable.value {
            Some(value) => Some(OsString::from(value)),
            None => std::env::var_os(&variable.name),
        };
        if let Some(value) = value {
            environment.insert(variable.name.clone().into(), value);
        }
    }
    for name in ORIGINAL {
        if let Some(value) = std::env::var_os(name) {
            environment.insert(format!("PBS_O_{name}").into(), value);
        }
    }
    let (processes, cpus) = sources.chunk;
    let threads = sources.threads.unwrap_or((cpus / processes.max(1)).max(1));
    let queue = sources.options.queue.clone();
    for (name, value) in [
        ("PBS_ENVIRONMENT", sources.kind.to_owned()),
        ("PBS_SERVER", sources.server.to_owned()),
        ("PBS_O_HOST", site::host()),
        ("PBS_O_SYSTEM", "Linux".to_owned()),
        ("PBS_O_WORKDIR", sources.directory.to_owned()),
        ("PBS_O_SERVER", sources.server.to_owned()),
        ("PBS_NUM_NODES", sources.layout.nodes().to_string()),
        ("PBS_NUM_PPN", processes.to_string()),
        ("PBS_NP", sources.layout.processes().to_string()),
        ("PBS_NODENUM", "0".to_owned()),
        ("PBS_VNODENUM", "0".to_owned()),
        ("PBS_TASKNUM", "1".to_owned()),
        ("NCPUS", cpus.to_string()),
        ("OMP_NUM_THREADS", threads.to_string()),
    ] {
        // Who sets the number of threads knows why.
        let own =
            name == "OMP_NUM_THREADS" && sources.options.variables.iter().any(|it| it.name == name);
        if !own {
            environment.insert(name.into(), value.into());
        }
    }
    if let Some(queue) = queue {
        environment.insert("PBS_O_QUEUE".into(), queue.into());
    }
    if let Some(seconds) = sources.walltime_seconds {
        environment.insert("PBS_WALLTIME".into(), seconds.to_string().into());
    }
    environment.into_iter().collect()
}

/// The file that sbatch reads variables from: it is ours alone, and gone with this value.
pub fn file(environment: &[(OsString, OsString)]) -> std::io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    for (name, value) in environment {
        file.write_all(name.as_bytes())?;
        file.write_all(b"=")?;
        file.write_all(value.as_bytes())?;
        file.write_all(b"\0")?;
    }
    file.flush()?;
    Ok(file)
}

/// The user's home directory.
pub fn home() -> String {
    std::env::var("HOME")
        .ok()
        .filter(|home| home.starts_with('/'))
        .unwrap_or_else(|| "/".to_owned())
}
