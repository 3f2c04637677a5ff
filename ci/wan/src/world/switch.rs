//! A domain's learning switch: which MAC address was last seen behind which port.

use std::{collections::BTreeMap, time::Duration};

use super::PortId;
use crate::{config::Mac, time::Instant};

/// Most addresses learnt in a domain; frames to others are flooded.
const MAX_ADDRESSES: usize = 4096;
/// How long a silent address is remembered (IEEE 802.1D's default).
const AGE: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(super) struct Switch {
    addresses: BTreeMap<Mac, (PortId, Instant)>,
    last_purge: Instant,
}

impl Switch {
    pub(super) fn learn(&mut self, now: Instant, mac: Mac, port: PortId) {
        if self.addresses.len() >= MAX_ADDRESSES && !self.addresses.contains_key(&mac) {
            if now - self.last_purge < AGE {
                return;
            }
            self.last_purge = now;
            self.addresses.retain(|_, (_, seen)| now - *seen < AGE);
            if self.addresses.len() >= MAX_ADDRESSES {
                return;
            }
        }
        self.addresses.insert(mac, (port, now));
    }

    pub(super) fn port_of(&self, now: Instant, mac: Mac) -> Option<PortId> {
        let (port, seen) = self.addresses.get(&mac)?;
        (now - *seen < AGE).then_some(*port)
    }

    pub(super) fn forget(&mut self, port: PortId) {
        self.addresses.retain(|_, (known, _)| *known != port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(n: u32) -> Mac {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([2, 0, a, b, c, d])
    }

    #[test]
    fn addresses_move_age_and_stay_bounded() {
        let mut switch = Switch::default();
        let start = Instant::ZERO + AGE;
        switch.learn(start, mac(1), PortId(1));
        switch.learn(start, mac(1), PortId(2));
        assert_eq!(switch.port_of(start, mac(1)), Some(PortId(2)));
        assert_eq!(switch.port_of(start + AGE, mac(1)), None);
        for n in 0..2 * MAX_ADDRESSES as u32 {
            switch.learn(start, mac(n), PortId(0));
        }
        assert_eq!(switch.addresses.len(), MAX_ADDRESSES);
        switch.learn(start + AGE, mac(u32::MAX), PortId(3));
        assert_eq!(switch.port_of(start + AGE, mac(u32::MAX)), Some(PortId(3)));
        switch.forget(PortId(3));
        assert!(switch.addresses.is_empty());
    }
}
