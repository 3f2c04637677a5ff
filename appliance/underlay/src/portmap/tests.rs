use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use tokio::net::UdpSocket;

use super::igd::fake::{FakeIgd, loopback};
use super::*;

fn wanted(transport: Transport) -> Wanted {
    Wanted {
        transport,
        port: NonZeroU16::new(4001).unwrap(),
    }
}

fn keeper() -> (Keeper, watch::Receiver<Vec<Mapped>>) {
    let (found, mapped) = watch::channel(Vec::new());
    let wanted = vec![wanted(Transport::Udp), wanted(Transport::Tcp)];
    (
        Keeper {
            wanted,
            held: Vec::new(),
            gateway: None,
            found,
        },
        mapped,
    )
}

fn both(port: u16) -> Vec<Mapped> {
    let external = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), port);
    [Transport::Udp, Transport::Tcp]
        .map(|transport| Mapped {
            transport,
            external,
        })
        .into()
}

/// A gateway that speaks NAT-PMP alone (RFC 6886).
async fn natpmp_gateway(socket: UdpSocket) {
    let mut room = [0; 1100];
    loop {
        let (length, from) = socket.recv_from(&mut room).await.unwrap();
        let answer = match room[..length] {
            // The external address.
            [0, 0] => vec![0, 128, 0, 0, 0, 0, 0, 9, 203, 0, 113, 5],
            // A mapping: granted on another port, for ten minutes; or ended.
            [0, operation, _, _, high, low, ref rest @ ..] => {
                let mut answer = vec![0, 128 + operation, 0, 0, 0, 0, 0, 9, high, low];
                let ended = rest[2..6] == [0; 4];
                answer.extend(if ended { 0u16 } else { 5000 }.to_be_bytes());
                answer.extend(if ended { 0u32 } else { 600 }.to_be_bytes());
                answer
            }
            // Anything newer: unsupported version.
            _ => vec![0, 128, 0, 1, 0, 0, 0, 9],
        };
        socket.send_to(&answer, from).await.unwrap();
    }
}

#[tokio::test]
async fn ports_are_mapped_by_a_gateway_that_speaks_natpmp_alone() {
    // The port is the protocol's; the address is nobody else's.
    let gateway = loopback(101);
    let socket = UdpSocket::bind((gateway.router, 5351)).await.unwrap();
    tokio::spawn(natpmp_gateway(socket));
    let (mut keeper, mapped) = keeper();
    let rest = keeper.round(Some(gateway)).await;
    assert_eq!(*mapped.borrow(), both(5000));
    assert_eq!(rest, Duration::from_secs(300));
}

/// A gateway that speaks PCP (RFC 6887) and lets a mapping be changed only under the nonce that it was
/// made under.
async fn pcp_gateway(socket: UdpSocket, mappings: Arc<Mutex<BTreeMap<u8, [u8; 12]>>>) {
    const NOT_AUTHORIZED: u8 = 2;
    let mut room = [0; 1100];
    loop {
        let (length, from) = socket.recv_from(&mut room).await.unwrap();
        let mut answer = room[..length].to_vec();
        if length != 60 || answer[..2] != [2, 1] {
            continue;
        }
        let nonce: [u8; 12] = answer[24..36].try_into().unwrap();
        let protocol = answer[36];
        let ends = answer[4..8] == [0; 4];
        let known = *mappings.lock().unwrap().entry(protocol).or_insert(nonce);
        if ends {
            mappings.lock().unwrap().remove(&protocol);
        }
        answer[1] |= 0x80;
        answer[3] = if known == nonce { 0 } else { NOT_AUTHORIZED };
        answer[8..24].fill(0);
        let external = Ipv4Addr::new(203, 0, 113, 5).to_ipv6_mapped();
        answer[44..60].copy_from_slice(&external.octets());
        socket.send_to(&answer, from).await.unwrap();
    }
}

#[tokio::test]
async fn mappings_by_pcp_are_renewed_under_their_nonce() {
    let gateway = loopback(105);
    let socket = UdpSocket::bind((gateway.router, 5351)).await.unwrap();
    let mappings = Arc::new(Mutex::new(BTreeMap::new()));
    tokio::spawn(pcp_gateway(socket, Arc::clone(&mappings)));
    let (mut keeper, mut mapped) = keeper();
    keeper.round(Some(gateway)).await;
    assert_eq!(*mapped.borrow_and_update(), both(4001));
    keeper.round(Some(gateway)).await;
    assert!(!mapped.has_changed().unwrap(), "{:?}", *mapped.borrow());
    keeper.give_back().await;
    assert!(mappings.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ports_are_mapped_by_a_gateway_that_speaks_upnp_alone_and_kept() {
    let fake = FakeIgd::start(102).await;
    let (mut keeper, mut mapped) = keeper();
    let rest = keeper.round(Some(fake.gateway)).await;
    assert_eq!(*mapped.borrow_and_update(), both(4001));
    assert!(rest <= Duration::from_secs(u64::from(LIFETIME_S) / 2));
    assert_eq!(fake.table().granted, 2);

    keeper.round(Some(fake.gateway)).await;
    assert_eq!(fake.table().granted, 4, "renewed");
    assert!(!mapped.has_changed().unwrap(), "and nothing is new");

    // It has forgotten everything, and somebody else was quicker.
    fake.table().mappings.clear();
    fake.table().taken = vec![4001];
    keeper.round(Some(fake.gateway)).await;
    let elsewhere = mapped.borrow_and_update().clone();
    assert!(
        elsewhere
            .iter()
            .all(|mapped| mapped.external.port() != 4001),
        "{elsewhere:?}"
    );
    assert_eq!(fake.table().mappings.len(), 2);

    // No longer behind it.
    keeper.round(None).await;
    assert_eq!(*mapped.borrow_and_update(), []);
}

#[tokio::test]
async fn mappings_are_given_back_at_the_end() {
    let fake = FakeIgd::start(103).await;
    let (mut keeper, mapped) = keeper();
    keeper.round(Some(fake.gateway)).await;
    assert_eq!(fake.table().mappings.len(), 2);
    keeper.give_back().await;
    assert!(fake.table().mappings.is_empty());
    drop(mapped);
}

#[tokio::test]
async fn a_gateway_that_is_silent_maps_nothing() {
    let gateway = loopback(104);
    // It is there and says nothing: neither by PCP and NAT-PMP nor by UPnP.
    let _pcp = UdpSocket::bind((gateway.router, 5351)).await.unwrap();
    let (mut keeper, mapped) = keeper();
    assert_eq!(keeper.round(Some(gateway)).await, RETRY);
    assert_eq!(*mapped.borrow(), []);
}
