//! Answers by the clause, and the stack's socket between two stacks.

use std::net::Ipv4Addr;

use super::*;
use crate::{Control, ControlConfig, Names};

const TIME: Duration = Duration::new(1_800_000_000, 500_000_000);
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 200, 3, 4));

fn good() -> Reading {
    Reading {
        time: TIME,
        standing: Some(Standing {
            stratum: 3,
            reference: [192, 0, 2, 1],
            compared: TIME - Duration::from_secs(60),
            error: Duration::from_millis(1500),
        }),
    }
}

fn unset() -> Reading {
    Reading {
        standing: None,
        ..good()
    }
}

fn question(version: u8, number: u64) -> [u8; TIME_PACKET_BYTES] {
    let mut packet = [0; TIME_PACKET_BYTES];
    packet[0] = version << 3 | 3;
    packet[2] = 6;
    packet[40..].copy_from_slice(&number.to_be_bytes());
    packet
}

/// The answer to one question of a fresh server.
fn answer(question: &[u8], reading: Reading) -> Option<[u8; TIME_PACKET_BYTES]> {
    TimeServer::default().answer(Duration::ZERO, CLIENT, question, || reading)
}

#[test]
fn an_answer_says_what_the_clock_is_worth() {
    let answered = answer(&question(4, 77), good()).unwrap();
    // No alarm, the question's version, server; its poll interval.
    assert_eq!(answered[..3], [4 << 3 | 4, 3, 6]);
    assert_eq!(answered[8..12], [0, 1, 0x80, 0]);
    assert_eq!(answered[12..16], [192, 0, 2, 1]);
    assert_eq!(answered[24..32], 77u64.to_be_bytes());
    let seconds = u32::try_from((1_800_000_000 + NTP_TO_UNIX) % (1 << 32)).unwrap();
    let time = (u64::from(seconds) << 32 | 1 << 31).to_be_bytes();
    assert_eq!((&answered[32..40], &answered[40..]), (&time[..], &time[..]));
    let compared = u32::from_be_bytes(answered[16..20].try_into().unwrap());
    assert_eq!(seconds.wrapping_sub(compared), 60);
}

#[test]
fn a_clock_that_nobody_has_set_gives_an_alarm_and_no_stratum() {
    let answered = answer(&question(3, 77), unset()).unwrap();
    assert_eq!(answered[..2], [3 << 6 | 3 << 3 | 4, 0]);
    assert_eq!(&answered[12..16], b"INIT");
    assert_eq!(answered[16..24], [0; 8]);
}

#[test]
fn only_whole_questions_of_clients_are_answered_and_never_with_more() {
    for kind in 0..=255 {
        let mut packet = question(4, 1);
        packet[0] = kind;
        let is_question = kind & 7 == 3 && (1..=4).contains(&(kind >> 3 & 7));
        assert_eq!(answer(&packet, good()).is_some(), is_question, "{kind:#x}");
    }
    let packet = question(4, 1);
    for length in 0..TIME_PACKET_BYTES {
        assert_eq!(answer(&packet[..length], good()), None);
    }
    let mut long = packet.to_vec();
    long.resize(1000, 0xff);
    assert!(answer(&long, good()).is_some());
}

#[test]
fn who_asks_too_often_gets_no_more_and_takes_nothing_from_others() {
    let mut server = TimeServer::default();
    let mut ask = |at: u64, who: u8| {
        let from = Ipv4Addr::new(10, 128, 1, who).into();
        let at = Duration::from_millis(at);
        server.answer(at, from, &question(4, 1), good).is_some()
    };
    assert_eq!((0..1000).filter(|_| ask(0, 1)).count(), 8);
    assert!(ask(0, 2) && !ask(0, 1) && ask(1000, 1) && !ask(1000, 1));
    // From many addresses: what all get together.
    let answered = (0..10_000).filter(|index| ask(60_000, (index % 200) as u8));
    assert_eq!(answered.count(), 256);
    assert_eq!(server.senders.len(), SENDERS_MAX);
    assert!(server.dropped() > 10_000);
}

fn stack(last: u16, reading: Reading) -> (Control, TimeClient) {
    let v6 = |last| Ipv6Addr::new(0xfd01, 0x203, 0x405, 0, 0, 0, 0, last);
    let config = ControlConfig {
        v4: Ipv4Addr::from(0x0a80_0000 + u32::from(last)),
        v6: v6(last),
        mtu_bytes: 1280,
        seed: 7,
        names: Names {
            suffix: "lab.internal".into(),
            v4: (Ipv4Addr::new(10, 128, 0, 0), 9),
            v6: (v6(0), 48),
            forwards: false,
        },
    };
    let mut control = Control::new(config, Duration::ZERO);
    let client = control.serve_time(Box::new(move || reading));
    (control, client)
}

fn carry(from: &mut Control, to: &mut Control) -> usize {
    let mut count = 0;
    while let Some(packet) = from.poll_packet() {
        assert!(to.wants(&packet));
        to.handle_packet(Duration::ZERO, &packet);
        count += 1;
    }
    count
}

fn received(client: &TimeClient) -> Option<(IpAddr, [u8; TIME_PACKET_BYTES])> {
    use std::task::{Context, Poll, Waker};
    let mut receive = std::pin::pin!(client.receive());
    match receive
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[test]
fn a_stack_asks_another_and_hears_answers_alone() {
    let (mut asker, client) = stack(2, unset());
    let (mut other, _) = stack(3, good());
    let IpAddr::V6(address) = other.addresses()[1] else {
        panic!("the second is IPv6's");
    };
    client.send(address, question(4, 55));
    asker.handle_deadline(Duration::ZERO);
    assert_eq!(carry(&mut asker, &mut other), 1);
    let packet = other.poll_packet().unwrap();
    // Neither another number nor another sender is an answer.
    let mut foreign = packet.clone();
    let at = foreign.len() - TIME_PACKET_BYTES + 24;
    foreign[at] ^= 1;
    // UDP's checksum over a word that is 256 more.
    let sum = u16::from_be_bytes([foreign[46], foreign[47]]);
    let (less, borrow) = sum.overflowing_sub(0x0100);
    foreign[46..48].copy_from_slice(&(less - u16::from(borrow)).to_be_bytes());
    for packet in [&foreign, &packet, &packet] {
        asker.handle_packet(Duration::ZERO, packet);
    }
    let (from, answer) = received(&client).unwrap();
    assert_eq!((from, answer[1]), (address.into(), 3));
    assert_eq!(received(&client), None);
    // What answers nothing is no question either.
    assert_eq!(asker.poll_packet(), None);
    let losses = asker.losses();
    assert!(losses.contains(&("drop_control_time", 2)), "{losses:?}");
}

#[test]
fn questions_without_answers_are_forgotten_one_for_another() {
    let (mut asker, client) = stack(2, unset());
    let (mut other, _) = stack(3, good());
    let IpAddr::V6(address) = other.addresses()[1] else {
        panic!("the second is IPv6's");
    };
    for number in 0..1000 {
        client.send(address, question(4, number));
    }
    asker.handle_deadline(Duration::ZERO);
    let sent = carry(&mut asker, &mut other);
    assert!(sent <= 32, "{sent}");
    assert!(carry(&mut other, &mut asker) <= 8);
}
