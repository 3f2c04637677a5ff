//! A packet socket on one interface that receives only what a DHCP client needs: datagrams to UDP
//! port 68 and ARP replies. Kept open only during an exchange, so the data path has no tap on it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::readable::Readable;

/// linux/if_ether.h: every protocol.
const ETH_P_ALL: u16 = 0x0003;

/// Accepts Ethernet frames that hold an ARP reply, or an unfragmented UDP datagram to port 68.
const FILTER: [libc::sock_filter; 14] = [
    load(libc::BPF_H | libc::BPF_ABS, 12), // EtherType
    jump(libc::BPF_JEQ, 0x0806, 8, 0),     // ARP: on to the operation
    jump(libc::BPF_JEQ, 0x0800, 0, 10),    // IPv4, or refused
    load(libc::BPF_B | libc::BPF_ABS, 23), // protocol
    jump(libc::BPF_JEQ, 17, 0, 8),         // UDP, or refused
    load(libc::BPF_H | libc::BPF_ABS, 20), // fragment offset
    jump(libc::BPF_JSET, 0x1fff, 6, 0),    // a later fragment is refused
    libc::sock_filter {
        code: (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16, // X = IP header length
        jt: 0,
        jf: 0,
        k: 14,
    },
    load(libc::BPF_H | libc::BPF_IND, 16), // destination port
    jump(libc::BPF_JEQ, 68, 2, 3),
    load(libc::BPF_H | libc::BPF_ABS, 20), // ARP operation
    jump(libc::BPF_JEQ, 2, 0, 1),
    verdict(0xffff),
    verdict(0),
];

const fn load(mode: u32, offset: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_LD | mode) as u16,
        jt: 0,
        jf: 0,
        k: offset,
    }
}

const fn jump(test: u32, value: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_JMP | test | libc::BPF_K) as u16,
        jt,
        jf,
        k: value,
    }
}

const fn verdict(bytes: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k: bytes,
    }
}

/// A packet socket bound to one interface, on the event loop; frames include their Ethernet header.
#[derive(Debug)]
pub struct PacketSocket(Readable);

impl PacketSocket {
    /// Opens it on the interface; needs CAP_NET_RAW and a kernel with CONFIG_PACKET.
    pub fn open(interface: u32) -> io::Result<Self> {
        // Protocol 0 receives nothing: no frame slips in before filter and bind.
        let socket = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        attach_filter(&socket)?;
        ignore_outgoing(&socket)?;
        bind(&socket, interface)?;
        Ok(Self(Readable::new(socket)?))
    }

    /// Sends one frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.0, frame, SendFlags::DONTWAIT)?;
        Ok(())
    }

    /// Waits for a frame and reads it into `buffer`, returning its length. Safe to cancel.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let receive = |socket: BorrowedFd<'_>| {
            let (length, _) = rustix::net::recv(socket, &mut *buffer, RecvFlags::DONTWAIT)?;
            Ok(length)
        };
        self.0.read(receive).await
    }
}

fn attach_filter(socket: &OwnedFd) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: FILTER.len() as u16,
        // The kernel only reads the program; the field is `*mut` for historical reasons.
        filter: FILTER.as_ptr().cast_mut(),
    };
    // SAFETY: the option value is a live `sock_fprog` of the given size; it points at `len` live
    // instructions, which the kernel copies and checks before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    check(result)
}

/// What this machine sends is no answer to it, also when it serves DHCP on the interface itself.
fn ignore_outgoing(socket: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option value is a live `c_int` of the given size; the call copies it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    check(result)
}

fn bind(socket: &OwnedFd, interface: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: i32::try_from(interface)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "interface index"))?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer is to a live `sockaddr_ll` and the length is its size; bind copies it.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    check(result)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Runs the filter as the kernel would; only the instructions it uses.
    fn accepts(frame: &[u8]) -> bool {
        let (mut a, mut x, mut at) = (0u32, 0usize, 0usize);
        let byte = |offset: usize| frame.get(offset).map(|b| u32::from(*b));
        let half = |offset: usize| Some(byte(offset)? << 8 | byte(offset + 1)?);
        loop {
            let now = FILTER[at];
            let (code, k) = (u32::from(now.code), now.k as usize);
            at += 1;
            let loaded = match code {
                c if c == libc::BPF_LD | libc::BPF_H | libc::BPF_ABS => half(k),
                c if c == libc::BPF_LD | libc::BPF_B | libc::BPF_ABS => byte(k),
                c if c == libc::BPF_LD | libc::BPF_H | libc::BPF_IND => half(x + k),
                c if c == libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH => {
                    x = byte(k).map_or(0, |b| 4 * (b as usize & 15));
                    Some(a)
                }
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => {
                    at += usize::from(if a == now.k { now.jt } else { now.jf });
                    Some(a)
                }
                c if c == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => {
                    at += usize::from(if a & now.k != 0 { now.jt } else { now.jf });
                    Some(a)
                }
                _ => return k != 0,
            };
            let Some(value) = loaded else { return false };
            a = value;
        }
    }

    fn ip(protocol: u8, fragment: u16, port: u16, header_words: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + usize::from(header_words) * 4 + 8];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame[14] = 0x40 | header_words;
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame[23] = protocol;
        let udp = 14 + usize::from(header_words) * 4;
        frame[udp + 2..udp + 4].copy_from_slice(&port.to_be_bytes());
        frame
    }

    fn arp(operation: u8) -> Vec<u8> {
        let mut frame = vec![0; 42];
        frame[12..14].copy_from_slice(&[8, 6]);
        frame[21] = operation;
        frame
    }

    #[test]
    fn the_filter_accepts_dhcp_answers_and_arp_replies_only() {
        assert!(accepts(&ip(17, 0, 68, 5)));
        assert!(
            accepts(&ip(17, 0x4000, 68, 6)),
            "don't fragment, IP options"
        );
        assert!(accepts(&arp(2)));
        assert!(!accepts(&arp(1)));
        assert!(!accepts(&ip(17, 0, 67, 5)));
        assert!(!accepts(&ip(17, 1, 68, 5)), "a later fragment");
        assert!(!accepts(&ip(6, 0, 68, 5)), "TCP");
        assert!(!accepts(&[0; 14]));
        assert!(!accepts(&[]));
    }

    #[tokio::test]
    async fn what_this_machine_sends_itself_is_not_received() {
        const LOOPBACK: u32 = 1;
        let socket = match PacketSocket::open(LOOPBACK) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: no CAP_NET_RAW: {error}");
                return;
            }
            socket => socket.expect("the loopback interface is there"),
        };
        // A tap on the loopback interface is shown a datagram when it is sent and when it arrives.
        let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        sender
            .send_to(b"once", "127.0.0.1:68")
            .expect("loopback takes it");
        let mut buffer = [0; 128];
        let arrived = tokio::time::timeout(Duration::from_secs(60), socket.receive(&mut buffer));
        let length = arrived.await.expect("in time").expect("a frame");
        assert!(buffer[..length].ends_with(b"once"));
        let again = rustix::net::recv(&socket.0, &mut buffer[..], RecvFlags::DONTWAIT);
        assert!(again.is_err(), "received twice");
    }
}
