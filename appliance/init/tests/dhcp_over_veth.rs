//! The network for real: a veth pair in a network namespace of its own, a DHCP server on one end, the
//! manager on the other. The namespace ends with the process, whatever happens.

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::process::{Command, Output};
use std::time::Duration;

use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr};
use wow_init::network::{Network, Plan};

const INSIDE: &str = "WOW_INIT_TEST_INSIDE";
const LIMIT: Duration = Duration::from_secs(60);
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 1);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 20);

fn ip(arguments: &str) -> Output {
    Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip (Debian: iproute2) runs")
}

fn ip_ok(arguments: &str) -> String {
    let output = ip(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs this test again inside of new user and network namespaces; `false` when already there.
fn moved_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let unshare = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--net"])
            .arg(program);
        command
    };
    let probe = unshare("ip".as_ref())
        .args(["link", "add", "v0", "type", "veth"])
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let reason = String::from_utf8_lossy(&output.stderr);
            eprintln!("skipped: no veth in namespaces of this user: {reason}");
            return true;
        }
        Err(error) => {
            eprintln!("skipped: no unshare: {error}");
            return true;
        }
    }
    let own = std::env::current_exe().expect("a running test has a path");
    let output = unshare(own.as_os_str())
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare ran a moment ago");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    let passed = output.status.success() && said.contains("1 passed");
    assert!(
        passed,
        "inside of the namespace:
{said}
{error}"
    );
    true
}

/// Answers with fixed terms until the test ends.
fn serve(socket: UdpSocket) {
    let mut buffer = [0; 1500];
    while let Ok((length, _)) = socket.recv_from(&mut buffer) {
        let Ok(packet) = DhcpPacket::new_checked(&buffer[..length]) else {
            continue;
        };
        let Ok(asked) = DhcpRepr::parse(&packet) else {
            continue;
        };
        let message_type = match asked.message_type {
            DhcpMessageType::Discover => DhcpMessageType::Offer,
            _ => DhcpMessageType::Ack,
        };
        let answer = DhcpRepr {
            message_type,
            your_ip: ADDRESS,
            server_ip: SERVER,
            router: Some(SERVER),
            subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
            requested_ip: None,
            client_identifier: None,
            server_identifier: Some(SERVER),
            parameter_request_list: None,
            dns_servers: Some([SERVER].into_iter().collect()),
            max_size: None,
            lease_duration: Some(600),
            additional_options: &[],
            ..asked
        };
        let mut bytes = vec![0; answer.buffer_len()];
        answer
            .emit(&mut DhcpPacket::new_unchecked(&mut bytes[..]))
            .expect("it has room");
        let everybody = SocketAddrV4::new(Ipv4Addr::new(192, 168, 7, 255), 68);
        // The last answers may find the wire unplugged.
        let _ = socket.send_to(&bytes, everybody);
    }
}

#[test]
fn a_lease_is_taken_configured_and_given_up_with_the_interface() {
    if moved_inside("a_lease_is_taken_configured_and_given_up_with_the_interface") {
        return;
    }
    ip_ok("link add wan0 type veth peer name lan0");
    ip_ok("addr add 192.168.7.1/24 dev lan0");
    ip_ok("link set lan0 up");
    ip_ok("link add eth1 type veth peer name far1");
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 67)).expect("port 67 is ours in here");
    socket
        .set_broadcast(true)
        .expect("a UDP socket can broadcast");
    std::thread::spawn(move || serve(socket));

    let directory = tempfile::tempdir().expect("a temporary directory");
    let resolv = directory.path().join("resolv.conf");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let guests = Some("eth1".to_owned());
        let network = Network::start_writing(Plan::Dhcp, guests, &resolv).expect("netlink works");
        let underlay = tokio::time::timeout(LIMIT, network.underlay())
            .await
            .expect("a lease in time")
            .expect("the manager runs");
        assert_eq!(
            (underlay.interface.as_str(), underlay.address),
            ("wan0", ADDRESS)
        );
        assert_eq!((underlay.prefix, underlay.gateway), (24, Some(SERVER)));
        assert_eq!(underlay.lease, Some((SERVER, Duration::from_secs(600))));
        assert!(ip_ok("-4 addr show dev wan0").contains("192.168.7.20/24"));
        let route = ip_ok("-4 route show default");
        assert!(route.contains("via 192.168.7.1 dev wan0"), "{route}");
        let servers = std::fs::read_to_string(&resolv).expect("it is written before the status");
        assert_eq!(servers, "nameserver 192.168.7.1\n");

        // Guests are behind this one: it was not even brought up.
        assert!(ip_ok("-o link show dev eth1").contains("state DOWN"));
        let interfaces = network.status().borrow().interfaces.clone();
        assert!(!interfaces.contains(&"eth1".to_owned()), "{interfaces:?}");

        ip_ok("link del wan0");
        let mut status = network.status();
        let gone = status.wait_for(|status| status.underlay.is_none());
        tokio::time::timeout(LIMIT, gone)
            .await
            .expect("noticed in time")
            .expect("it still runs");

        // Plugged in again, it is used again.
        ip_ok("link add wan0 type veth peer name lan1");
        let found = status.wait_for(|status| status.interfaces.contains(&"wan0".to_owned()));
        tokio::time::timeout(LIMIT, found)
            .await
            .expect("noticed in time")
            .expect("it still runs");
    });
}
