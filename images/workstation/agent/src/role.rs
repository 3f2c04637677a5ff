//! Which role this machine takes.

use std::fmt;

use crate::daemon::Status;

/// What a workstation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Job server and file server.
    Head,
    /// Runs jobs.
    Worker,
    /// Where users log in and submit.
    Login,
}

const ALL: [Role; 3] = [Role::Head, Role::Worker, Role::Login];

impl Role {
    /// As certificates and configurations name it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Head => "head",
            Role::Worker => "worker",
            Role::Login => "login",
        }
    }

    /// The role that was chosen for this machine, or the only one that its ticket allows; else what is
    /// wrong.
    pub fn choose(status: &Status) -> Result<Role, String> {
        if let Some(asked) = &status.role {
            let role = ALL.into_iter().find(|role| role.name() == asked);
            return role.filter(|_| status.roles.has(asked)).ok_or_else(|| {
                format!(
                    "this machine takes no role: its ticket does not allow the role {asked} that its \
                     configuration names"
                )
            });
        }
        let allowed: Vec<Role> = ALL
            .into_iter()
            .filter(|role| status.roles.has(role.name()))
            .collect();
        match allowed[..] {
            [role] => Ok(role),
            [] => Err(
                "this machine takes no role: its ticket allows none of head, worker and login; \
                 make one with `wow pool ticket --roles`"
                    .into(),
            ),
            _ => {
                let names: Vec<_> = allowed.iter().map(|role| role.name()).collect();
                Err(format!(
                    "this machine takes no role: its ticket allows {}; name one as `role` in the \
                     machine's configuration (wow.role=… on the kernel command line, opt/wow/role in \
                     fw_cfg, or `wow run --role`)",
                    names.join(" and ")
                ))
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(roles: &str, role: Option<&str>) -> Result<Role, String> {
        let status = serde_json::json!({
            "id": "00", "name": "n", "pool": "lab", "range": "10.128.0.0/9", "joined": true,
            "addresses": {"v4": "10.128.0.9", "v6": "fd00::9"}, "roles": roles, "role": role, "guest": "tun wow0",
        });
        Role::choose(&serde_json::from_value(status).unwrap())
    }

    #[test]
    fn the_only_role_of_the_ticket_is_taken_without_asking() {
        assert_eq!(choose("worker,router", None), Ok(Role::Worker));
        assert_eq!(choose("login", None), Ok(Role::Login));
    }

    #[test]
    fn one_of_several_has_to_be_named() {
        let asked = choose("head,worker", None).unwrap_err();
        assert!(
            asked.contains("head and worker") && asked.contains("wow.role"),
            "{asked}"
        );
        assert_eq!(choose("head,worker", Some("head")), Ok(Role::Head));
        assert!(choose("router", None).is_err());
    }

    #[test]
    fn a_role_that_the_ticket_does_not_allow_is_refused() {
        let refused = choose("worker", Some("head")).unwrap_err();
        assert!(refused.contains("role head"), "{refused}");
    }
}
