//! The daemon's configuration out of the machine's own sources: the kernel's command line, fw_cfg, a
//! file of the image. For the appliance's process 1, and for a service of another system's.

use std::fmt::Display;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Result;
use wow_guest::virtio;
use wow_init::clock;
use wow_init::config::{Merged, Sources};
use wow_init::network::SECOND_CARD;
use wow_overlay::membership::{SeedAddr, Ticket};

use crate::config::{
    Config, GuestArg, GuestKind, WorkstationRole, check_dns, check_ports, dns_server,
};
use crate::keeper::Files;
use crate::logging::Logging;
use crate::services::GatewayPlan;
use crate::timekeeping::{GiveTime, Keeping, Timekeeping};
use crate::{ipc, run, wall_clock};

/// Where appliances listen, by IPv4 and IPv6, so that one with a known address can be a seed for the others.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 4001);

/// Runs `wow run --from-machine` until SIGTERM or SIGINT: as the appliance's node does, but with a
/// state on the disk, and the machine is another's to boot and to end.
pub fn run(state: Option<PathBuf>, socket: Option<PathBuf>, logging: &Logging) -> Result<()> {
    run::until_told(async |mut stop| {
        let sources = Sources::default();
        if let Some(setting) = sources.read().get("log")
            && let Err(error) = logging.change(setting.value())
        {
            tracing::error!("{}: {error:#}", setting.origin());
        }
        let config = tokio::select! {
            config = sources.until("configuration", configuration) => config,
            () = &mut stop => return Ok(()),
        };
        let config = Config {
            state: Files::In(state.map_or_else(crate::config::default_state, Ok)?),
            socket: socket.unwrap_or(config.socket),
            // The system's own NTP daemon gives time where it has some, and others take theirs from it.
            clock: Timekeeping::new(Keeping::Host(GiveTime::Never)),
            ..config
        };
        run::serve(config, Box::new(|| {}), stop).await
    })
}

/// The daemon's configuration from the machine's, or a message for whoever looks at the console.
pub fn configuration(merged: &Merged) -> Result<Config, String> {
    let setting = merged.require("ticket")?;
    let refuse = |error: &dyn Display| wrong(merged, "ticket", "refused", error);
    let ticket = Ticket::parse(setting.value()).map_err(|error| refuse(&error))?;
    // A machine without a clock knows by its ticket that it is at least this late.
    if clock::raise_to(ticket.not_before().0) {
        tracing::warn!("the machine has no clock: set to the beginning of its ticket");
    }
    ticket
        .check(wall_clock::now())
        .map_err(|error| refuse(&error))?;
    let guest = parsed(merged, "guest")?.unwrap_or(GuestArg::Tun);
    let gateway = gateway(merged, &guest)?;
    let guest = match guest {
        GuestArg::Tun => GuestKind::Tun("wow0".into()),
        GuestArg::Packet(name) => GuestKind::Packet(name.unwrap_or_else(|| SECOND_CARD.into())),
        GuestArg::Virtio(card) => {
            GuestKind::Virtio(card.unwrap_or_else(|| virtio::Choice::Interface(SECOND_CARD.into())))
        }
        GuestArg::Tap(name) => GuestKind::Tap(name),
        GuestArg::None => GuestKind::None,
    };
    Ok(Config {
        ticket,
        // Without a disk of its own each boot is a new node.
        state: Files::Nowhere,
        name: parsed(merged, "name")?,
        role: parsed(merged, "role")?.map(WorkstationRole::role),
        listen: parsed(merged, "listen")?.unwrap_or(DEFAULT_LISTEN),
        tcp_listen: tcp_ports(merged)?,
        seeds: seeds(merged)?,
        guest,
        mtu: parsed(merged, "mtu")?.unwrap_or_default(),
        address: parsed(merged, "address")?,
        socket: ipc::default_socket(),
        lan: switch(merged, "lan", true)?,
        port_mapping: switch(merged, "port-mapping", true)?,
        offload: switch(merged, "offload", true)?,
        dns: dns_servers(merged)?,
        clock: Timekeeping::new(Keeping::Pool),
        gateway,
        // Nobody else uses this machine's routes, and those it has lead to the underlay.
        allow_overlap: true,
        booted: true,
        syslog: parsed(merged, "syslog")?,
        updates: None,
        sources: Some(crate::configuration::report(merged)),
    })
}

/// Time servers, `HOST` or `HOST:PORT`.
pub fn time_servers(merged: &Merged) -> Vec<String> {
    let servers = merged.get("time").map(|setting| setting.value());
    let servers = servers.into_iter().flat_map(|value| value.split(','));
    let servers = servers.map(|server| server.trim().to_owned());
    servers.filter(|server| !server.is_empty()).collect()
}

fn seeds(merged: &Merged) -> Result<Vec<SeedAddr>, String> {
    list(merged, "seeds")
}

/// None unless they are asked for: most appliances are where nobody could connect to them.
fn tcp_ports(merged: &Merged) -> Result<Vec<u16>, String> {
    check_ports(list(merged, "tcp-listen")?)
        .map_err(|error| malformed(merged, "tcp-listen", &error))
}

/// None unless they are asked for.
fn dns_servers(merged: &Merged) -> Result<Vec<SocketAddr>, String> {
    let servers: Vec<String> = list(merged, "dns")?;
    let servers = servers.iter().map(|server| dns_server(server));
    let servers = servers.collect::<Result<_, _>>();
    let servers = servers.map_err(|error| malformed(merged, "dns", &error))?;
    check_dns(servers).map_err(|error| malformed(merged, "dns", &error))
}

/// The ports that lead into the pool and out of it.
fn gateway(merged: &Merged, guest: &GuestArg) -> Result<GatewayPlan, String> {
    let plan = GatewayPlan {
        socks: parsed(merged, "socks")?,
        forwards: list(merged, "forward")?,
        for_all: switch(merged, "gateway-for-all", false)?,
    };
    let given = match plan.socks {
        Some(_) => "socks",
        None => "forward",
    };
    plan.check(guest)
        .map_err(|error| wrong(merged, given, "refused", &error))?;
    Ok(plan)
}

/// `on` or `off`, or what is the case without either.
fn switch(merged: &Merged, key: &str, without: bool) -> Result<bool, String> {
    match merged.get(key).map(|setting| setting.value()) {
        None => Ok(without),
        Some("on") => Ok(true),
        Some("off") => Ok(false),
        Some(other) => {
            let error = format!("{other:?} is neither on nor off");
            Err(malformed(merged, key, &error))
        }
    }
}

/// A setting of several values with commas between them.
fn list<T: FromStr>(merged: &Merged, key: &str) -> Result<Vec<T>, String>
where
    T::Err: Display,
{
    let Some(setting) = merged.get(key) else {
        return Ok(Vec::new());
    };
    setting
        .value()
        .split(',')
        .map(|item| {
            item.trim()
                .parse()
                .map_err(|error| malformed(merged, key, &error))
        })
        .collect()
}

fn parsed<T: FromStr>(merged: &Merged, key: &str) -> Result<Option<T>, String>
where
    T::Err: Display,
{
    merged
        .get(key)
        .map(|setting| {
            setting
                .value()
                .parse()
                .map_err(|error| malformed(merged, key, &format!("{:?}: {error}", setting.value())))
        })
        .transpose()
}

fn malformed(merged: &Merged, key: &str, error: &dyn Display) -> String {
    wrong(merged, key, "malformed", error)
}

fn wrong(merged: &Merged, key: &str, how: &str, error: &dyn Display) -> String {
    match merged.get(key) {
        Some(setting) => format!("{key} from {} is {how}: {error}", setting.origin()),
        None => format!("{key} is {how}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;
    use wow_init::config::{Origin, Rank, Reading, Setting, Source};
    use wow_overlay::membership::{PoolAuthority, PoolName, Roles};

    struct Fixed(Vec<(&'static str, String)>);

    impl Source for Fixed {
        fn rank(&self) -> Rank {
            Rank::Image
        }

        fn read(&self) -> Reading {
            let origin = || Origin::new("test", "here");
            let entries = self.0.iter();
            Reading {
                entries: entries
                    .map(|(key, value)| Setting::new(key, value, origin()).unwrap())
                    .collect(),
                ..Reading::default()
            }
        }

        fn example(&self, key: &str) -> String {
            key.to_owned()
        }
    }

    fn configured(more: &[(&'static str, &str)]) -> Result<Config, String> {
        let range = wow_overlay::membership::pool::DEFAULT_RANGE;
        let name = PoolName::new("lab").unwrap();
        let pool = PoolAuthority::create(name, range, vec![], &mut random::rng()).unwrap();
        let now = wall_clock::now();
        let until = now + std::time::Duration::from_secs(3600);
        let ticket = pool.issue_ticket(Roles::ROUTER, now, until, None, &mut random::rng());
        let ticket = ticket.unwrap().encode();
        let mut values = vec![("ticket", ticket)];
        values.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        configuration(&Sources::new(vec![Box::new(Fixed(values))]).read())
    }

    #[test]
    fn the_machines_values_become_a_configuration() {
        let config = configured(&[("name", "w1"), ("seeds", "h.test:1,tcp:h.test:2")]).unwrap();
        assert_eq!(config.name.unwrap().as_str(), "w1");
        assert_eq!(config.seeds.len(), 2);
        assert_eq!(config.guest, GuestKind::Tun("wow0".into()));
        assert!(config.booted && config.lan && config.dns.is_empty());
        assert!(config.gateway.is_empty());
        let config = configured(&[("dns", "192.0.2.53, [2001:db8::1]:5353")]).unwrap();
        assert_eq!(
            config.dns,
            [
                "192.0.2.53:53".parse().unwrap(),
                "[2001:db8::1]:5353".parse().unwrap()
            ]
        );
    }

    #[test]
    fn a_gateway_is_open_to_others_only_where_that_is_said() {
        let out = ("forward", "pool:8022=192.0.2.1:22, pool:8080=192.0.2.2:80");
        let none = ("guest", "none");
        let config = configured(&[none, out]).unwrap();
        assert_eq!(config.gateway.forwards.len(), 2);
        let open = ("socks", "0.0.0.0:1080");
        let error = configured(&[none, open]).unwrap_err();
        assert!(error.starts_with("socks from test"), "{error}");
        assert!(error.contains("gateway-for-all"), "{error}");
        let config = configured(&[none, open, out, ("gateway-for-all", "on")]).unwrap();
        assert_eq!(config.gateway.socks, Some("0.0.0.0:1080".parse().unwrap()));
        // Programs of a machine that takes part itself need no gateway.
        let error = configured(&[out]).unwrap_err();
        assert!(error.contains("guest none"), "{error}");
    }

    #[test]
    fn a_malformed_value_is_told_with_its_place() {
        let error = configured(&[("guest", "tap")]).unwrap_err();
        assert!(error.contains("test") && error.contains("tap"), "{error}");
        for (text, guest) in [
            ("packet", GuestKind::Packet("eth1".into())),
            ("packet:eth7", GuestKind::Packet("eth7".into())),
            (
                "virtio",
                GuestKind::Virtio(virtio::Choice::Interface("eth1".into())),
            ),
            ("tap:lan", GuestKind::Tap("lan".into())),
        ] {
            assert_eq!(configured(&[("guest", text)]).unwrap().guest, guest);
        }
        assert!(configured(&[("listen", "4001")]).is_err());
        assert!(configured(&[("dns", "192.0.2.53,no.address")]).is_err());
        assert!(configured(&[("syslog", "h:0")]).is_err());
    }
}
