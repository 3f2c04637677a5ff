//! The pool's control address: packets of a hostile guest, and whatever it says on a TCP connection.

use std::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};
use wow_control::{Answer, Control, Question};

use super::stack::{self, CONTROL, GUEST, MTU_BYTES};
use crate::Target;
use crate::script::{Script, Writer};

/// Longest segment of a script, within the MTU.
const SEGMENT_BYTES_MAX: usize = 1200;
/// Packets that one packet may set off: a window's worth of an answer.
const ANSWERS_MAX: usize = 256;

pub(super) const CONTROL_ADDRESS: Target = Target {
    name: "control-address",
    input_bytes_max: 4096,
    run: control_address,
    seeds: || {
        let say = |text: &[u8]| Writer::default().byte(1).slice(text);
        let echo = Icmpv4Repr::EchoRequest {
            ident: 1,
            seq_no: 1,
            data: b"ping",
        };
        let mut ping = vec![0; echo.buffer_len()];
        let checksums = ChecksumCapabilities::default();
        echo.emit(&mut Icmpv4Packet::new_unchecked(&mut ping), &checksums);
        vec![
            say(b"GET /api/v1/log?from=3 HTTP/1.1\r\nHost: 10.128.0.1\r\n\r\n")
                .byte(2)
                .byte(9)
                .0,
            say(b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody")
                .byte(3)
                .0,
            say(b"GET / HTTP/1.0\r\n")
                .byte(1)
                .slice(b"\r\n")
                .byte(2)
                .byte(255)
                .0,
            Writer::default()
                .byte(0)
                .slice(&stack::packet(IpProtocol::Icmp, &ping))
                .0,
        ]
    },
};

/// A guest's side of one connection, as little of TCP as it takes.
struct Guest {
    control: Control,
    now: Duration,
    next: TcpSeqNumber,
    expected: Option<TcpSeqNumber>,
}

/// Steps: a packet as it stands, bytes on the connection, a pause, or the connection's end.
fn control_address(input: &[u8]) {
    let mut script = Script::new(input);
    let mut guest = Guest {
        control: stack::control(false),
        now: Duration::ZERO,
        next: TcpSeqNumber(1000),
        expected: None,
    };
    guest.segment(TcpControl::Syn, &[]);
    guest.segment(TcpControl::None, &[]);
    while !script.is_empty() {
        match script.byte() % 4 {
            0 => {
                let packet = script.slice(MTU_BYTES.into());
                guest.hand_in(packet);
            }
            1 => guest.segment(TcpControl::Psh, script.slice(SEGMENT_BYTES_MAX)),
            2 => {
                guest.now += Duration::from_millis(100 * u64::from(script.byte()));
                guest.control.handle_deadline(guest.now);
            }
            _ => guest.segment(TcpControl::Fin, &[]),
        }
        guest.drain();
    }
}

impl Guest {
    fn segment(&mut self, control: TcpControl, payload: &[u8]) {
        let repr = TcpRepr {
            src_port: 40000,
            dst_port: 80,
            control,
            seq_number: self.next,
            ack_number: self.expected,
            window_len: u16::MAX,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let mut segment = vec![0; repr.buffer_len()];
        repr.emit(
            &mut TcpPacket::new_unchecked(&mut segment),
            &GUEST.into(),
            &CONTROL.into(),
            &ChecksumCapabilities::default(),
        );
        self.next += repr.segment_len();
        self.hand_in(&stack::packet(IpProtocol::Tcp, &segment));
        self.drain();
    }

    fn hand_in(&mut self, packet: &[u8]) {
        if self.control.wants(packet) {
            self.control.handle_packet(self.now, packet);
        }
    }

    fn drain(&mut self) {
        let mut packets = 0;
        loop {
            while let Some(question) = self.control.poll_question() {
                // Who asked may have hung up.
                if let Question::Document(_, asker) = question {
                    let _ = asker.send(Answer(b"{}".to_vec()));
                }
                self.control.handle_deadline(self.now);
            }
            let Some(packet) = self.control.poll_packet() else {
                break;
            };
            assert!(packet.len() <= usize::from(MTU_BYTES));
            packets += 1;
            assert!(packets <= ANSWERS_MAX, "one packet sets off a storm");
            self.take(&packet);
        }
    }

    /// Keeps up with what the connection's other side has sent.
    fn take(&mut self, packet: &[u8]) {
        let ip = Ipv4Packet::new_checked(packet).expect("the stack sends sound packets");
        if ip.next_header() != IpProtocol::Tcp {
            return;
        }
        let segment = TcpPacket::new_checked(ip.payload()).expect("the stack sends sound segments");
        if segment.dst_port() == 40000 && !segment.rst() {
            self.expected = Some(segment.seq_number() + segment.segment_len());
        }
    }
}
