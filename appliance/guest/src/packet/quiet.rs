//! The host's own IPv6 on a card that is its guests'.

use std::path::PathBuf;

/// It is switched off for as long as this lives.
///
/// The kernel sees the guests' packets as well. Of IPv4 it drops them, without an address on the card; by IPv6, which
/// every card has an address of, it would tell their senders that there is no way.
pub(super) struct Quiet {
    /// The switch, where it was on.
    switch: Option<PathBuf>,
}

impl Quiet {
    pub(super) fn keep(interface: &str) -> Quiet {
        let switch = PathBuf::from(format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"));
        // A kernel without IPv6 has no such file.
        let is_on = std::fs::read_to_string(&switch).is_ok_and(|off| off.trim() == "0");
        let is_off_now = is_on && std::fs::write(&switch, "1").is_ok();
        Quiet {
            switch: is_off_now.then_some(switch),
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if let Some(switch) = &self.switch {
            // A card that is gone has no switch.
            let _ = std::fs::write(switch, "0");
        }
    }
}
