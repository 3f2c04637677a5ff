//! Looks up for the DNS server what the pool's table knows.

use wow_control::{Found, Lookup};
use wow_overlay::node::{ResolveError, Target};
use wow_overlay::wire::record::Key;

use crate::daemon::command::Command;
use crate::ipc::Operator;

/// Who has the name or the address, or offers the service.
pub async fn look_up(operator: &Operator, lookup: Lookup) -> Found {
    match lookup {
        Lookup::Name(name) => node(operator, Target::Name(name), None).await,
        Lookup::V4(v4) => node(operator, Target::V4(v4), None).await,
        Lookup::V6(v6) => node(operator, Target::V6(v6), None).await,
        Lookup::Service(name) => {
            let key = Key::Service(name);
            match operator.ask(|asker| Command::LookUp(key, asker)).await {
                Ok(Ok(record)) => match record.owner.parse() {
                    Ok(id) => node(operator, Target::Id(id), port(&record.value)).await,
                    Err(_) => Found::Nothing,
                },
                Ok(Err(ResolveError::Unknown)) => Found::Nothing,
                Ok(Err(_)) | Err(_) => Found::Unavailable,
            }
        }
    }
}

async fn node(operator: &Operator, target: Target, port: Option<u16>) -> Found {
    match operator.ask(|asker| Command::Resolve(target, asker)).await {
        Ok(Ok(found)) => Found::Node {
            name: found.name,
            v4: found.v4,
            v6: found.v6,
            port,
        },
        Ok(Err(ResolveError::Unknown)) => Found::Nothing,
        Ok(Err(_)) | Err(_) => Found::Unavailable,
    }
}

/// The port that a service's value tells: `PORT`, or what ends in `:PORT`.
fn port(value: &str) -> Option<u16> {
    let last = value.rsplit(':').next()?.trim();
    last.parse().ok().filter(|&port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_services_value_may_tell_its_port() {
        for value in ["8080", "tcp:8080", "10.128.0.9:8080", "[fd00::1]:8080"] {
            assert_eq!(port(value), Some(8080), "{value}");
        }
        for value in ["", "here", "0", "70000", "8080 or so"] {
            assert_eq!(port(value), None, "{value}");
        }
    }
}
