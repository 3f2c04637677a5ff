//! A NAT's memory: which ports are shared, whom filters admit, and when entries end.

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;

const S: Duration = Duration::from_secs(1);

fn table(behaviour: Behaviour, allocation: PortAllocation) -> Table {
    Table::new(
        behaviour,
        allocation,
        Timeouts::default(),
        ChaCha12Rng::seed_from_u64(1),
    )
}

fn at(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, host), port)
}

fn inner(host: u8, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), port)
}

/// Sends from one inner endpoint to two ports of one host and to another host. Checks which share
/// an external port, and which of the same three may answer on the first one, when only the first
/// was sent to.
fn check(behaviour: Behaviour, shares: [bool; 3], admits: [bool; 3]) {
    let remotes = [at(1, 10), at(1, 11), at(2, 10)];
    let mut nat = table(behaviour, PortAllocation::Random);
    let now = Instant::ZERO;
    let out = |nat: &mut Table, remote| {
        nat.outbound(now, Protocol::Udp, inner(9, 5000), remote, 0)
            .unwrap()
    };
    let first = out(&mut nat, remotes[0]);
    for (remote, admitted) in remotes.into_iter().zip(admits) {
        let expected = if admitted {
            Ok(inner(9, 5000))
        } else {
            Err(Refusal::Filtered)
        };
        assert_eq!(
            nat.inbound(now, Protocol::Udp, first, remote, 0),
            expected,
            "{behaviour:?}"
        );
    }
    for (remote, shared) in remotes.into_iter().zip(shares) {
        assert_eq!(
            out(&mut nat, remote) == first,
            shared,
            "{behaviour:?} {remote}"
        );
    }
}

#[test]
fn behaviours_share_ports_and_admit_answers_as_their_names_say() {
    check(Behaviour::FULL_CONE, [true; 3], [true; 3]);
    check(Behaviour::RESTRICTED, [true; 3], [true, true, false]);
    check(Behaviour::PORT_RESTRICTED, [true; 3], [true, false, false]);
    check(
        Behaviour::SYMMETRIC,
        [true, false, false],
        [true, false, false],
    );
    let by_address = Behaviour {
        mapping: Dependence::AddressDependent,
        filtering: Dependence::AddressDependent,
    };
    check(by_address, [true, true, false], [true, true, false]);
}

#[test]
fn udp_ends_after_its_timeout_and_only_packets_from_inside_prolong_it() {
    let mut nat = table(Behaviour::PORT_RESTRICTED, PortAllocation::Random);
    let start = Instant::ZERO;
    let send = |nat: &mut Table, now| {
        nat.outbound(now, Protocol::Udp, inner(9, 5000), at(1, 10), 0)
            .unwrap()
    };
    let receive = |nat: &mut Table, now, port| nat.inbound(now, Protocol::Udp, port, at(1, 10), 0);
    let port = send(&mut nat, start);
    assert_eq!(send(&mut nat, start + 100 * S), port);
    assert!(receive(&mut nat, start + 219 * S, port).is_ok());
    assert_eq!(
        receive(&mut nat, start + 220 * S, port),
        Err(Refusal::Unmapped)
    );
    nat.sweep(start + 220 * S);
    assert_eq!((nat.mappings(), nat.sessions()), (0, 0));
    // With a session of its own that lives on, a mapping stays while another's filter entry ends.
    let port = send(&mut nat, start + 300 * S);
    nat.outbound(start + 400 * S, Protocol::Udp, inner(9, 5000), at(2, 10), 0)
        .unwrap();
    assert_eq!(
        receive(&mut nat, start + 430 * S, port),
        Err(Refusal::Filtered)
    );
}

#[test]
fn tcp_lives_long_once_answered_and_briefly_once_closed() {
    let mut nat = table(Behaviour::SYMMETRIC, PortAllocation::Random);
    let out = |nat: &mut Table, now, flags| {
        nat.outbound(now, Protocol::Tcp, inner(9, 5000), at(1, 80), flags)
            .unwrap()
    };
    let back =
        |nat: &mut Table, now, port, flags| nat.inbound(now, Protocol::Tcp, port, at(1, 80), flags);
    let mut now = Instant::ZERO;
    let port = out(&mut nat, now, TCP_SYN);
    assert_eq!(
        back(&mut nat, now + 240 * S, port, 0),
        Err(Refusal::Unmapped)
    );

    let port = out(&mut nat, now, TCP_SYN);
    back(&mut nat, now, port, TCP_SYN).unwrap();
    out(&mut nat, now, 0);
    now = now + 7000 * S;
    back(&mut nat, now, port, TCP_FIN).unwrap();
    out(&mut nat, now, TCP_FIN);
    back(&mut nat, now + 239 * S, port, 0).unwrap();
    assert_eq!(
        back(&mut nat, now + 240 * S, port, 0),
        Err(Refusal::Unmapped)
    );
}

#[test]
fn ports_are_allocated_as_configured_and_by_the_seed() {
    let ports = |allocation, seed| -> Vec<u16> {
        let mut nat = Table::new(
            Behaviour::SYMMETRIC,
            allocation,
            Timeouts::default(),
            ChaCha12Rng::seed_from_u64(seed),
        );
        (0..4)
            .map(|n| {
                nat.outbound(Instant::ZERO, Protocol::Udp, inner(9, 5000), at(n, 1), 0)
                    .unwrap()
            })
            .collect()
    };
    assert_eq!(
        ports(PortAllocation::Sequential, 1),
        [1024, 1025, 1026, 1027]
    );
    let preserved = ports(PortAllocation::Preserve, 1);
    assert_eq!(preserved[0], 5000);
    assert!(preserved[1..].iter().all(|port| *port != 5000));
    assert_eq!(
        ports(PortAllocation::Random, 1),
        ports(PortAllocation::Random, 1)
    );
    assert_ne!(
        ports(PortAllocation::Random, 1),
        ports(PortAllocation::Random, 2)
    );
}

#[test]
fn a_full_table_refuses_new_mappings_and_recovers_when_old_ones_expire() {
    let mut nat = table(Behaviour::SYMMETRIC, PortAllocation::Random);
    let send = |nat: &mut Table, now, n: usize| {
        let remote = SocketAddrV4::new(Ipv4Addr::from(n as u32), 7);
        nat.outbound(now, Protocol::Udp, inner(9, 5000), remote, 0)
    };
    for n in 0..MAX_MAPPINGS {
        send(&mut nat, Instant::ZERO, n).unwrap();
    }
    assert_eq!(
        send(&mut nat, Instant::ZERO, MAX_MAPPINGS),
        Err(Refusal::Full)
    );
    assert!(send(&mut nat, Instant::ZERO, 0).is_ok());
    assert!(send(&mut nat, Instant::ZERO + 121 * S, MAX_MAPPINGS).is_ok());
    assert_eq!((nat.mappings(), nat.sessions()), (1, 1));
}

proptest! {
    /// Whatever is sent, sessions are counted right, no two live mappings share a port, and what
    /// went out may be answered at once.
    #[test]
    fn traffic_in_any_order_keeps_the_table_consistent(
        mapping in 0..3usize,
        filtering in 0..3usize,
        steps in prop::collection::vec((0..4u8, 0..4u16, 0..4u8, 0..4u16, 0..8u8, 0..100u32), 1..200),
    ) {
        const ALL: [Dependence; 3] = [
            Dependence::EndpointIndependent,
            Dependence::AddressDependent,
            Dependence::AddressAndPortDependent,
        ];
        let behaviour = Behaviour { mapping: ALL[mapping], filtering: ALL[filtering] };
        let mut nat = table(behaviour, PortAllocation::Preserve);
        let mut now = Instant::ZERO;
        for (host, port, remote, remote_port, flags, pause) in steps {
            now = now + pause * S;
            let protocol = if flags & 1 == 0 { Protocol::Udp } else { Protocol::Tcp };
            let (from, to) = (inner(host, 5000 + port), at(remote, 80 + remote_port));
            let external = nat.outbound(now, protocol, from, to, flags).unwrap();
            prop_assert_eq!(nat.inbound(now, protocol, external, to, 0), Ok(from));
            let counted: usize = nat.by_external.values().map(|m| m.sessions.len()).sum();
            prop_assert_eq!(counted, nat.sessions);
            prop_assert_eq!(nat.by_inner.len(), nat.by_external.len());
            for (key, external) in &nat.by_inner {
                prop_assert_eq!(nat.by_external[&(key.protocol, *external)].key, *key);
            }
        }
        nat.sweep(now + 100_000 * S);
        prop_assert_eq!((nat.by_inner.len(), nat.by_external.len(), nat.sessions), (0, 0, 0));
    }
}
