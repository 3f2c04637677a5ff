//! The command line.

use std::path::PathBuf;
use std::time::Duration;

const HELP: &str = "\
usage: wow-workstation [OPTION...]
Takes this machine's role in its pool, as the daemon `wow` on it was told (`wow run --role`).

  --socket PATH     the daemon's control socket [default: /run/wow/control.sock]
  --no-nfs          neither export nor mount /home and /shared: they are shared by other means
  --forget SPAN     the head forgets workers that are away for so long [default: 1h]
  --version, --help";

/// What the program was asked to do.
pub enum Asked {
    /// Its work.
    Run(Options),
    /// To say this.
    Say(String),
}

/// How it is to work.
#[derive(Debug, Clone)]
pub struct Options {
    /// The daemon's control socket.
    pub socket: PathBuf,
    /// Whether file systems are shared by NFS.
    pub nfs: bool,
    /// When the head forgets a worker that is away.
    pub forget: Duration,
}

impl Options {
    /// From this process's arguments.
    pub fn from_args() -> Result<Asked, String> {
        parse(lexopt::Parser::from_env())
    }
}

fn parse(mut parser: lexopt::Parser) -> Result<Asked, String> {
    use lexopt::prelude::*;
    let mut options = Options {
        socket: "/run/wow/control.sock".into(),
        nfs: true,
        forget: Duration::from_secs(3600),
    };
    while let Some(argument) = parser.next().map_err(|error| error.to_string())? {
        match argument {
            Long("socket") => {
                options.socket = parser.value().map_err(|error| error.to_string())?.into();
            }
            Long("no-nfs") => options.nfs = false,
            Long("forget") => {
                let text = parser.value().and_then(|value| value.string());
                let text = text.map_err(|error| error.to_string())?;
                options.forget = humantime::parse_duration(&text)
                    .map_err(|error| format!("--forget {text}: {error}"))?;
            }
            Long("version") => {
                let version = env!("CARGO_PKG_VERSION");
                return Ok(Asked::Say(format!("wow-workstation {version}")));
            }
            Short('h') | Long("help") => return Ok(Asked::Say(HELP.into())),
            other => return Err(format!("{}; see --help", other.unexpected())),
        }
    }
    Ok(Asked::Run(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_others_refused() {
        let parsed = |words: &[&str]| parse(lexopt::Parser::from_args(words));
        let Ok(Asked::Run(options)) = parsed(&["--no-nfs", "--forget", "90s"]) else {
            panic!("refused");
        };
        assert!(!options.nfs);
        assert_eq!(options.forget, Duration::from_secs(90));
        assert!(parsed(&["--nfs"]).is_err_and(|error| error.contains("--help")));
        assert!(parsed(&["--forget", "soon"]).is_err_and(|error| error.contains("soon")));
        assert!(matches!(parsed(&["--help"]), Ok(Asked::Say(_))));
    }
}
