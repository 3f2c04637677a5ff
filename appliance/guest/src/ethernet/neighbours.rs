//! Which guest of the LAN holds which address.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::Mac;

/// Guests at most; a node leases fewer addresses.
pub const NEIGHBOURS_MAX: usize = 64;

/// One address for each hardware address, and the other way round.
#[derive(Debug, Default)]
pub struct Neighbours {
    macs: BTreeMap<Ipv4Addr, Mac>,
}

impl Neighbours {
    /// Gives a guest an address instead of the one that it had, or none. The address is nobody else's
    /// any more. False where there is no room for another guest.
    pub fn set(&mut self, mac: Mac, address: Option<Ipv4Addr>) -> bool {
        self.macs.retain(|_, held_by| *held_by != mac);
        let Some(address) = address else {
            return true;
        };
        if self.macs.len() >= NEIGHBOURS_MAX && !self.macs.contains_key(&address) {
            return false;
        }
        self.macs.insert(address, mac);
        true
    }

    /// Who holds an address.
    pub fn mac_of(&self, address: Ipv4Addr) -> Option<Mac> {
        self.macs.get(&address).copied()
    }

    /// Whether a guest holds the address that it sends from.
    pub fn may_send(&self, mac: Mac, source: Ipv4Addr) -> bool {
        self.macs.get(&source) == Some(&mac)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(number: u8) -> Mac {
        [2, 0, 0, 0, 0, number]
    }

    fn address(number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 1, 0, number)
    }

    #[test]
    fn a_guest_has_one_address_and_an_address_one_guest() {
        let mut neighbours = Neighbours::default();
        assert!(neighbours.set(mac(1), Some(address(1))));
        assert!(neighbours.set(mac(2), Some(address(2))));
        assert!(neighbours.may_send(mac(1), address(1)));
        assert!(!neighbours.may_send(mac(1), address(2)));
        assert!(neighbours.set(mac(1), Some(address(2))));
        assert_eq!(neighbours.mac_of(address(1)), None);
        assert_eq!(neighbours.mac_of(address(2)), Some(mac(1)));
        assert!(neighbours.set(mac(1), None));
        assert_eq!(neighbours.mac_of(address(2)), None);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut neighbours = Neighbours::default();
        for number in 0..NEIGHBOURS_MAX as u8 {
            assert!(neighbours.set(mac(number), Some(address(number))));
        }
        assert!(!neighbours.set(mac(200), Some(address(200))));
        // Somebody who is in it may still change.
        assert!(neighbours.set(mac(3), Some(address(201))));
    }
}
