//! OVMF's files, wherever the distribution has put them.

use std::io;
use std::path::{Path, PathBuf};

/// UEFI firmware: code, shared and read-only, and a machine's own variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uefi {
    /// The firmware.
    pub code: PathBuf,
    /// This machine's copy of its variables.
    pub variables: PathBuf,
}

/// Pairs of code and variables. Debian 12 has both, Debian 13 only the first.
const PAIRS: [(&str, &str); 3] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
];

impl Uefi {
    /// Finds the firmware and copies fresh variables to `variables`; `None` when it is not installed.
    pub fn prepare(variables: &Path) -> io::Result<Option<Self>> {
        let found = PAIRS
            .iter()
            .find(|(code, vars)| Path::new(code).is_file() && Path::new(vars).is_file());
        let Some((code, template)) = found else {
            return Ok(None);
        };
        // Not `fs::copy`: the package's file may be read-only, and this one must not be.
        std::fs::write(variables, std::fs::read(template)?)?;
        Ok(Some(Self {
            code: code.into(),
            variables: variables.to_path_buf(),
        }))
    }
}
