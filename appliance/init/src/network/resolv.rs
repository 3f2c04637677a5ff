//! /etc/resolv.conf, for whatever on this machine asks the usual way; the router gets the servers
//! themselves.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

/// Where resolvers look.
pub(crate) const PATH: &str = "/etc/resolv.conf";

/// Replaces the file in one step, so that no reader sees half of it.
pub(crate) fn write(path: &Path, servers: &[Ipv4Addr]) -> io::Result<()> {
    let text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    let fresh = path.with_extension("conf.new");
    fs::write(&fresh, text)?;
    fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_one_a_line_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        write(
            &path,
            &[Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8)],
        )
        .unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "nameserver 1.2.3.4\nnameserver 5.6.7.8\n"
        );
        write(&path, &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
