//! What a node may be in its pool: a set of roles, granted by tickets and held by certificates.

use std::fmt;
use std::ops::{BitOr, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A set of roles. Shown and parsed as names with commas between: `router,worker`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Roles(u8);

/// Every role's bit and name, in the order they are shown.
const NAMES: [(Roles, &str); 4] = [
    (Roles::HEAD, "head"),
    (Roles::WORKER, "worker"),
    (Roles::LOGIN, "login"),
    (Roles::ROUTER, "router"),
];

/// A text that is no set of roles.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no role: name some of head, worker, login and router, with commas between")]
pub struct RolesError(String);

impl Roles {
    /// No role.
    pub const NONE: Roles = Roles(0);
    /// The pool's job server and file server.
    pub const HEAD: Roles = Roles(1);
    /// Runs jobs.
    pub const WORKER: Roles = Roles(2);
    /// Where users log in and submit.
    pub const LOGIN: Roles = Roles(4);
    /// Carries a network's packets and no jobs.
    pub const ROUTER: Roles = Roles(8);
    /// Every role.
    pub const ALL: Roles = Roles(15);

    /// The set with these bits; `None` when one stands for no role.
    pub const fn from_bits(bits: u8) -> Option<Roles> {
        if bits & !Roles::ALL.0 == 0 {
            Some(Roles(bits))
        } else {
            None
        }
    }

    /// One bit for each role: the form that is signed.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether every role of `other` is in this set.
    pub const fn contains(self, other: Roles) -> bool {
        other.0 & !self.0 == 0
    }

    /// Whether the set has no role.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of the roles, in a fixed order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES
            .into_iter()
            .filter(move |(role, _)| self.contains(*role))
            .map(|(_, name)| name)
    }
}

impl BitOr for Roles {
    type Output = Roles;

    fn bitor(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }
}

/// The roles of the left set that are not in the right one.
impl Sub for Roles {
    type Output = Roles;

    fn sub(self, other: Roles) -> Roles {
        Roles(self.0 & !other.0)
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.pad("none");
        }
        f.pad(&self.names().collect::<Vec<_>>().join(","))
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roles({self})")
    }
}

impl FromStr for Roles {
    type Err = RolesError;

    fn from_str(text: &str) -> Result<Self, RolesError> {
        let mut roles = Roles::NONE;
        for word in text.split(',').map(str::trim) {
            let (role, _) = NAMES
                .into_iter()
                .find(|(_, name)| *name == word)
                .ok_or_else(|| RolesError(word.chars().take(40).collect()))?;
            roles = roles | role;
        }
        Ok(roles)
    }
}

impl TryFrom<String> for Roles {
    type Error = RolesError;

    fn try_from(text: String) -> Result<Self, RolesError> {
        text.parse()
    }
}

impl From<Roles> for String {
    fn from(roles: Roles) -> String {
        roles.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_round_trips_through_text_and_bits() {
        for bits in 1..=Roles::ALL.bits() {
            let roles = Roles::from_bits(bits).unwrap();
            assert_eq!(roles.to_string().parse::<Roles>().unwrap(), roles);
            assert_eq!(roles.bits(), bits);
        }
        assert_eq!((Roles::ROUTER | Roles::HEAD).to_string(), "head,router");
        assert_eq!(Roles::NONE.to_string(), "none");
    }

    #[test]
    fn unknown_roles_are_refused_by_name() {
        for (text, culprit) in [
            ("", "\"\""),
            ("boss", "\"boss\""),
            ("router,Head", "\"Head\""),
            ("head,", "\"\""),
        ] {
            let error = text.parse::<Roles>().unwrap_err().to_string();
            assert!(error.starts_with(culprit), "{error}");
        }
        assert_eq!(Roles::from_bits(16), None);
        assert_eq!(Roles::from_bits(255), None);
    }

    #[test]
    fn sets_contain_subtract_and_join() {
        let both = Roles::ROUTER | Roles::WORKER;
        assert!(both.contains(Roles::WORKER) && both.contains(Roles::NONE) && both.contains(both));
        assert!(!both.contains(Roles::HEAD) && !Roles::ROUTER.contains(both));
        assert_eq!(both - Roles::ROUTER, Roles::WORKER);
        assert!((both - Roles::ALL).is_empty());
        assert_eq!(" worker , router".parse::<Roles>().unwrap(), both);
    }
}
