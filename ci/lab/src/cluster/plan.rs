//! What a cluster consists of: how many machines, what each is for, and where each stands.

use anyhow::{Result, ensure};

use crate::topology::{CORE, NATED_MAX, Topology};

/// The node on this host by which people and tests reach the machines.
pub const ACCESS: &str = "lab";

/// Most workers: a test bed is one host's.
const WORKERS_MAX: u8 = 100;

/// How large a cluster is to be.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Workers.
    pub workers: u8,
    /// Domains behind NATs; the machines stand in them by turns, the head in the first.
    pub domains: u8,
}

/// One workstation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workstation {
    /// Its name.
    pub name: String,
    /// The role that its ticket allows.
    pub role: &'static str,
}

impl Plan {
    /// The workstations, the head first.
    pub fn workstations(&self) -> Vec<Workstation> {
        let head = Workstation {
            name: "head".into(),
            role: "head",
        };
        let worker = |number| Workstation {
            name: format!("w{number}"),
            role: "worker",
        };
        [head]
            .into_iter()
            .chain((1..=self.workers).map(worker))
            .collect()
    }

    /// Where everything stands: the seed first, then the workstations in their order, then this host's own
    /// node beside the seed.
    pub fn topology(&self) -> Result<Topology> {
        ensure!(
            (1..=NATED_MAX).contains(&self.domains),
            "there may be 1 to {NATED_MAX} domains, not {}",
            self.domains
        );
        ensure!(
            (1..=WORKERS_MAX).contains(&self.workers),
            "there may be 1 to {WORKERS_MAX} workers, not {}",
            self.workers
        );
        let mut topology = Topology::seed_and_empty(self.domains);
        let domains: Vec<String> = topology
            .domains
            .iter()
            .filter(|domain| domain.nat.is_some())
            .map(|domain| domain.name.clone())
            .collect();
        for (machine, domain) in self.workstations().iter().zip(domains.iter().cycle()) {
            topology.add(&machine.name, domain);
        }
        topology.add(ACCESS, CORE);
        Ok(topology)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_stand_in_the_domains_by_turns() {
        let plan = Plan {
            workers: 3,
            domains: 3,
        };
        let topology = plan.topology().unwrap();
        let places: Vec<_> = topology
            .places
            .iter()
            .map(|place| (place.name.as_str(), place.domain.as_str()))
            .collect();
        let expected = [
            ("seed", CORE),
            ("head", "a"),
            ("w1", "b"),
            ("w2", "c"),
            ("w3", "a"),
            (ACCESS, CORE),
        ];
        assert_eq!(places, expected);
        let mut addresses: Vec<_> = topology.places.iter().map(|place| place.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), topology.places.len());
    }

    #[test]
    fn what_no_host_could_carry_is_refused() {
        for (workers, domains) in [(0, 1), (1, 0), (101, 1), (1, 26)] {
            assert!(Plan { workers, domains }.topology().is_err());
        }
    }
}
