//! Which PBS server this is: the name behind the job numbers.

use std::path::Path;

/// What `--version` and `qstat -F json` call us.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The pool's name for the machine that Slurm's controller runs on.
const HEAD: &str = "head";

/// The server's name: PBS's variables, PBS's configuration file, else the pool's name for it.
pub fn server() -> String {
    ["PBS_DEFAULT", "PBS_SERVER"]
        .iter()
        .find_map(|variable| std::env::var(variable).ok())
        .filter(|name| is_host_name(name))
        .or_else(|| configured(Path::new("/etc/pbs.conf")))
        .unwrap_or_else(|| HEAD.to_owned())
}

/// This machine's name.
pub fn host() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    name.split('.').next().unwrap_or_default().to_owned()
}

/// The name of the user who runs this; the number where it has none.
pub fn user() -> String {
    let id = rustix::process::getuid().as_raw();
    // The machine's own users, and those of the pool's head (libnss-extrausers).
    ["/etc/passwd", "/var/lib/extrausers/passwd"]
        .iter()
        .filter_map(|file| std::fs::read_to_string(file).ok())
        .find_map(|text| {
            text.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                (fields.nth(1)? == id.to_string()).then(|| name.to_owned())
            })
        })
        // Users from elsewhere than the file, such as LDAP.
        .or_else(|| std::env::var("LOGNAME").ok())
        .unwrap_or_else(|| id.to_string())
}

fn configured(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("PBS_SERVER="))
        .map(|name| name.trim().to_owned())
        .filter(|name| is_host_name(name))
}

fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_file_names_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pbs.conf");
        std::fs::write(&file, "PBS_EXEC=/opt/pbs\nPBS_SERVER=boss\n").unwrap();
        assert_eq!(configured(&file).as_deref(), Some("boss"));
        std::fs::write(&file, "PBS_SERVER=a b\n").unwrap();
        assert_eq!(configured(&file), None);
    }
}
