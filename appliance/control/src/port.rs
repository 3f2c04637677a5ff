//! A way to the stack's packets for somebody who does not drive it.

use std::cell::{Cell, RefCell};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::device::Queues;
use crate::flag::Flag;

/// See the module.
pub struct PacketPort {
    queues: Rc<RefCell<Queues>>,
    flag: Arc<Flag>,
    address: Rc<Cell<Option<Ipv4Addr>>>,
}

impl PacketPort {
    pub(crate) fn new(
        queues: &Rc<RefCell<Queues>>,
        flag: &Arc<Flag>,
        address: &Rc<Cell<Option<Ipv4Addr>>>,
    ) -> Self {
        PacketPort {
            queues: Rc::clone(queues),
            flag: Arc::clone(flag),
            address: Rc::clone(address),
        }
    }

    /// Hands a packet in, which the stack takes when it is driven next.
    pub fn push(&self, packet: &[u8]) {
        self.queues.borrow_mut().push(packet);
        self.flag.raise();
    }

    /// The next packet that leaves.
    pub fn poll_packet(&self, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        let mut queues = self.queues.borrow_mut();
        match queues.pop() {
            Some(packet) => {
                drop(queues);
                // There is room for the next one again.
                self.flag.raise();
                Poll::Ready(packet)
            }
            None => {
                queues.tell(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Gives the stack another IPv4 address.
    pub fn set_v4(&self, v4: Ipv4Addr) {
        self.address.set(Some(v4));
        self.flag.raise();
    }
}
