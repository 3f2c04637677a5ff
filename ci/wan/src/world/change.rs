//! Changes of the world at run time. What is in flight stays in flight, and meets what is there when
//! it arrives.

use serde_json::{Map, Value};

use super::{PortId, Routes, World, between::Between};
use crate::config::{Fault, Pair, Place};

impl World {
    /// Plugs a port into another domain, at once.
    pub fn move_port(&mut self, port: &str, domain: &str) -> Result<(), Fault> {
        let id = self.port_id(port)?;
        let to = self.domain(domain)?;
        let state = &mut self.ports[id.0];
        self.gateways[state.domain].unplug(id);
        self.gateways[to].plug(id);
        state.domain = to;
        self.config = self.config.clone().with_port_in(id.0, domain);
        Ok(())
    }

    /// Gives a domain other settings, by the keys of its `[[domain]]` (null takes one away). Its NAT
    /// begins anew, without mappings, when anything of the NAT is another; its lines when anything of
    /// the link is.
    pub fn change_domain(
        &mut self,
        domain: &str,
        settings: &Map<String, Value>,
    ) -> Result<(), Fault> {
        let index = self.domain(domain)?;
        let config = self.config.with_domain(index, settings)?;
        let (old, new) = (&self.config.domains()[index], &config.domains()[index]);
        self.gateways[index].change(&config, old, new);
        self.routes = Routes::new(&config);
        self.config = config;
        Ok(())
    }

    /// Makes a domain's NAT forget all mappings, as one that was switched off and on does.
    pub fn forget_mappings(&mut self, domain: &str) -> Result<(), Fault> {
        let index = self.domain(domain)?;
        match self.gateways[index].restart_nat(&self.config) {
            true => Ok(()),
            false => Err(unknown(format!("domain \"{domain}\" has no NAT"))),
        }
    }

    /// Changes what lies between two domains.
    pub fn change_pair(
        &mut self,
        between: [&str; 2],
        change: impl FnOnce(&mut Pair),
    ) -> Result<(), Fault> {
        self.config = self.config.with_pair(between, change)?;
        self.between = Between::new(&self.config);
        Ok(())
    }

    fn port_id(&self, name: &str) -> Result<PortId, Fault> {
        let ports = self.config.ports();
        let found = ports.iter().position(|port| port.name == name);
        found
            .map(PortId)
            .ok_or_else(|| unknown(format!("there is no port \"{name}\"")))
    }

    fn domain(&self, name: &str) -> Result<usize, Fault> {
        self.config
            .domain_index(name)
            .ok_or_else(|| unknown(format!("there is no domain \"{name}\"")))
    }
}

fn unknown(message: String) -> Fault {
    Fault {
        place: Place::Whole,
        message,
    }
}
