use std::num::NonZeroU16;

use super::fake::{FakeIgd, description};
use super::*;

const UDP: Wanted = Wanted {
    transport: Transport::Udp,
    port: NonZeroU16::new(4001).unwrap(),
};

fn external(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 5), port)
}

#[tokio::test]
async fn a_port_is_mapped_renewed_and_given_back() {
    let fake = FakeIgd::start(1).await;
    let igd = Igd::find(fake.gateway).await.unwrap();
    for _ in 0..2 {
        let granted = igd.map(UDP, UDP.port).await.unwrap();
        assert_eq!(granted.external, external(4001));
        assert_eq!(granted.lifetime, Duration::from_secs(LIFETIME_S.into()));
        let held = [(("UDP".into(), 4001), (4001, LIFETIME_S))];
        assert_eq!(fake.table().mappings, held.into());
    }
    igd.unmap(Transport::Udp, 4001).await.unwrap();
    assert!(fake.table().mappings.is_empty());
    let again = igd.unmap(Transport::Udp, 4001).await;
    assert!(matches!(again, Err(IgdError::Refused(714))), "{again:?}");
}

#[tokio::test]
async fn a_gateway_that_knows_only_permanent_leases_is_asked_for_one() {
    let fake = FakeIgd::start(2).await;
    fake.table().permanent_only = true;
    let igd = Igd::find(fake.gateway).await.unwrap();
    let granted = igd.map(UDP, UDP.port).await.unwrap();
    assert_eq!(granted.external, external(4001));
    assert_eq!(fake.table().mappings[&("UDP".into(), 4001)], (4001, 0));
    assert!(granted.lifetime <= PERMANENT, "{granted:?}");
}

#[tokio::test]
async fn a_taken_port_is_replaced_by_another_but_not_without_end() {
    let fake = FakeIgd::start(3).await;
    fake.table().taken = vec![4001];
    fake.table().permanent_only = true;
    let igd = Igd::find(fake.gateway).await.unwrap();
    let granted = igd.map(UDP, UDP.port).await.unwrap();
    let port = granted.external.port();
    assert!(DRAWN.contains(&port), "{granted:?}");
    assert_eq!(fake.table().mappings[&("UDP".into(), port)], (4001, 0));

    fake.table().taken = (1..=u16::MAX).collect();
    let none = igd.map(UDP, UDP.port).await;
    assert!(matches!(none, Err(IgdError::Refused(718))), "{none:?}");
}

#[tokio::test]
async fn a_gateway_without_an_outside_address_maps_nothing() {
    let fake = FakeIgd::start(4).await;
    let igd = Igd::find(fake.gateway).await.unwrap();
    for ip in [
        "0.0.0.0",
        "192.168.178.20",
        "100.64.3.4",
        "127.0.0.1",
        "",
        "fe80::1",
    ] {
        fake.table().external_ip = ip.into();
        let refused = igd.map(UDP, UDP.port).await;
        assert!(
            matches!(refused, Err(IgdError::NotOutside(_))),
            "{ip}: {refused:?}"
        );
    }
    let refused = Igd::find(fake.gateway).await;
    assert!(
        matches!(refused, Err(IgdError::NotOutside(_))),
        "{refused:?}"
    );
    assert_eq!(fake.table().granted, 0);
}

#[tokio::test]
async fn descriptions_elsewhere_or_too_long_are_not_fetched() {
    let fake = FakeIgd::start(5).await;
    fake.table().description = Some(description("ctl/IPConn") + &" ".repeat(100_000));
    let found = Igd::find(fake.gateway).await;
    assert!(matches!(found, Err(IgdError::Malformed)), "{found:?}");

    let elsewhere = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let elsewhere = elsewhere.await.unwrap();
    let url = format!("http://{}/igd/root.xml", elsewhere.local_addr().unwrap());
    fake.table().location = Some(url);
    let found = Igd::find(fake.gateway).await;
    assert!(matches!(found, Err(IgdError::NotFound)), "{found:?}");
    let visit = tokio::time::timeout(Duration::from_millis(1), elsewhere.accept()).await;
    assert!(visit.is_err(), "somebody else was asked");
}

#[tokio::test]
async fn an_answer_without_end_is_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let fake = FakeIgd::start(6).await;
    let web = tokio::net::TcpListener::bind((fake.gateway.router, 0))
        .await
        .unwrap();
    fake.table().location = Some(format!("http://{}/", web.local_addr().unwrap()));
    let endless = tokio::spawn(async move {
        let (mut stream, _) = web.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let mut sent = 0;
        while stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.is_ok()
            && stream.write_all(&[b' '; 4096]).await.is_ok()
        {
            sent += 4096;
        }
        sent
    });
    assert!(Igd::find(fake.gateway).await.is_err());
    // What the sockets hold comes on top of what was read.
    let sent = endless.await.unwrap();
    assert!(sent < 16 << 20, "{sent}");
}
