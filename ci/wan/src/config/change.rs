//! A configuration that changes while it is in force: every change gives a whole new one, checked by
//! the same rules, or is refused and nothing has happened.

use serde_json::{Map, Value};

use super::{Config, Domain, Fault, Pair, Place, Uplink, raw::RawDomain};

impl Config {
    /// With other settings of a domain, by the keys of its `[[domain]]`; null takes a key away. Its
    /// name, its subnet and whether it is public are for good.
    pub fn with_domain(
        &self,
        index: usize,
        settings: &Map<String, Value>,
    ) -> Result<Config, Fault> {
        let domain = self
            .domains
            .get(index)
            .ok_or_else(|| whole(format!("there is no domain number {index}")))?;
        let raw = RawDomain::from(domain.clone());
        let mut value = serde_json::to_value(raw).map_err(|error| whole(error.to_string()))?;
        // A named behaviour takes the place of one that was described.
        if settings.contains_key("nat")
            && let Some(keys) = value.as_object_mut()
        {
            keys.remove("mapping");
            keys.remove("filtering");
        }
        merge(&mut value, settings);
        let raw: RawDomain = serde_json::from_value(value)
            .map_err(|error| whole(format!("domain \"{}\": {error}", domain.name)))?;
        let changed = raw.check(index)?;
        check_lasting(domain, &changed)?;
        let mut domains = self.domains.clone();
        domains[index] = changed;
        let config = Config::new(self.seed, domains, self.ports.clone())?;
        Ok(Config {
            matrix: self.matrix,
            pairs: self.pairs.clone(),
            ..config
        })
    }

    /// With a port in another domain. A DHCP reservation stays behind.
    pub(crate) fn with_port_in(mut self, port: usize, domain: &str) -> Config {
        if let Some(port) = self.ports.get_mut(port)
            && port.domain != domain
        {
            domain.clone_into(&mut port.domain);
            port.ip = None;
        }
        self
    }

    /// With a pair changed; it is added if it had no settings of its own, and goes when it has none
    /// left.
    pub fn with_pair(
        &self,
        between: [&str; 2],
        change: impl FnOnce(&mut Pair),
    ) -> Result<Config, Fault> {
        let mut pairs = self.pairs.clone();
        let is_it = |pair: &Pair| {
            let [a, b] = pair.between.each_ref().map(String::as_str);
            [a, b] == between || [b, a] == between
        };
        let mut pair = match pairs.iter().position(is_it) {
            Some(at) => pairs.swap_remove(at),
            None => Pair {
                between: between.map(str::to_owned),
                latency: None,
                cut: false,
            },
        };
        change(&mut pair);
        // Checked before it may go: the names must be right even to change nothing.
        pairs.push(pair.clone());
        let mut config = self.clone().with_pairs(pairs)?;
        if pair.latency.is_none() && !pair.cut {
            config.pairs.pop();
        }
        Ok(config)
    }
}

fn check_lasting(old: &Domain, new: &Domain) -> Result<(), Fault> {
    let public = |domain: &Domain| matches!(domain.uplink, Uplink::Public);
    let lasting = [
        ("name", old.name == new.name),
        ("subnet", old.subnet == new.subnet),
        ("public", public(old) == public(new)),
    ];
    match lasting.iter().find(|(_, same)| !same) {
        None => Ok(()),
        Some((key, _)) => Err(whole(format!(
            "domain \"{}\" keeps its {key} for good: start the emulator anew for another",
            old.name
        ))),
    }
}

fn merge(value: &mut Value, settings: &Map<String, Value>) {
    let Some(keys) = value.as_object_mut() else {
        return;
    };
    for (key, setting) in settings {
        match (keys.get_mut(key), setting) {
            (_, Value::Null) => {
                keys.remove(key);
            }
            (Some(inner @ Value::Object(_)), Value::Object(settings)) => merge(inner, settings),
            _ => {
                keys.insert(key.clone(), setting.clone());
            }
        }
    }
}

fn whole(message: String) -> Fault {
    Fault {
        place: Place::Whole,
        message,
    }
}
