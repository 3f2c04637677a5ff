//! UDP sockets of the stack's services.

use smoltcp::socket::udp::{PacketBuffer, PacketMetadata, Socket};

/// A socket that listens on `port`, which is not zero, with room for so much either way.
pub fn listen(port: u16, packets: usize, bytes: usize) -> Socket<'static> {
    let queue = || PacketBuffer::new(vec![PacketMetadata::EMPTY; packets], vec![0; bytes]);
    let mut socket = Socket::new(queue(), queue());
    socket
        .bind(port)
        .expect("a fresh socket may have a port that is not zero");
    socket
}
