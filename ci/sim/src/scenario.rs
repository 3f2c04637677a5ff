//! One run as a value: everything that determines it, and the command that repeats it.

use std::time::Duration;

use crate::crypto::Crypto;
use crate::faults::Faults;
use crate::network::DelayRange;
use crate::network::mix::NatMix;
use crate::text::print_duration;

/// Most nodes in one run: what the simulated internet has addresses for, with room to spare.
pub const NODES_MAX: usize = 100_000;
/// Time within which nodes start, unless said otherwise.
pub const JOIN_WINDOW: Duration = Duration::from_secs(10);
/// Time within which a pool must converge once nothing more happens, unless said otherwise.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Bits that all of a pool's IPv4 addresses share, unless said otherwise: so few that hardly any two
/// nodes derive one address.
pub const PREFIX: u8 = 9;
/// One-way delays between domains: from one town to the other side of the world.
pub const DELAY: DelayRange = DelayRange {
    min: Duration::from_millis(5),
    max: Duration::from_millis(150),
};

/// For how long idle traffic is measured unless said otherwise: not at all in pools so large that it
/// would take longer than joining.
pub const fn idle_for_pool_of(nodes: usize) -> Duration {
    match nodes <= 2000 {
        true => Duration::from_secs(20),
        false => Duration::ZERO,
    }
}

/// The longest prefix of a pool that leaves two addresses for each node, and that a pool may have.
pub fn prefix_max(nodes: usize) -> u8 {
    let addresses = (2 * nodes.clamp(8, NODES_MAX)).next_power_of_two();
    32 - addresses.ilog2() as u8
}

/// What to simulate. The same scenario gives the same run, event by event.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// How many nodes, at most [`NODES_MAX`].
    pub nodes: usize,
    /// What every random choice comes from.
    pub seed: u64,
    /// What goes wrong.
    pub faults: Faults,
    /// What stands between domains and the internet.
    pub nat: NatMix,
    /// Time within which nodes start, at random moments.
    pub join_window: Duration,
    /// Virtual time to converge in once nothing more happens.
    pub limit: Duration,
    /// For how long idle traffic is measured once the ring has formed.
    pub idle: Duration,
    /// What seals and signs.
    pub crypto: Crypto,
    /// Bits that all of the pool's IPv4 addresses share: the more, the fewer addresses there are to
    /// contend for.
    pub prefix: u8,
}

impl Scenario {
    /// `nodes` public nodes on a network without faults.
    pub fn new(nodes: usize, seed: u64) -> Self {
        Scenario {
            nodes: nodes.clamp(1, NODES_MAX),
            seed,
            faults: Faults::none(),
            nat: NatMix::public(),
            join_window: JOIN_WINDOW,
            limit: LIMIT,
            idle: idle_for_pool_of(nodes),
            crypto: Crypto::for_pool_of(nodes),
            prefix: PREFIX,
        }
    }

    /// The command that repeats this run.
    pub fn command(&self) -> String {
        let mut command = format!(
            "cargo xtask sim --nodes {} --seed {}",
            self.nodes, self.seed
        );
        let mut option = |name: &str, value: String| {
            command.push_str(&format!(" --{name} {value}"));
        };
        if !self.faults.is_none() {
            option("faults", self.faults.to_string());
        }
        if self.nat != NatMix::public() {
            option("nat", self.nat.to_string());
        }
        if self.join_window != JOIN_WINDOW {
            option("join-window", print_duration(self.join_window));
        }
        if self.limit != LIMIT {
            option("seconds", self.limit.as_secs().to_string());
        }
        if self.idle != idle_for_pool_of(self.nodes) {
            option("idle", print_duration(self.idle));
        }
        if self.crypto != Crypto::for_pool_of(self.nodes) {
            option("crypto", self.crypto.to_string());
        }
        if self.prefix != PREFIX {
            option("prefix", self.prefix.to_string());
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_names_what_differs_from_the_defaults() {
        let mut scenario = Scenario::new(200, 7);
        assert_eq!(scenario.command(), "cargo xtask sim --nodes 200 --seed 7");
        scenario.faults = "loss=5%,kill=20%".parse().unwrap();
        scenario.nat = "none,symmetric=2".parse().unwrap();
        scenario.limit = Duration::from_secs(60);
        scenario.prefix = 24;
        assert_eq!(
            scenario.command(),
            "cargo xtask sim --nodes 200 --seed 7 --faults loss=5%,kill=20% \
             --nat none,symmetric=2 --seconds 60 --prefix 24"
        );
    }
}
