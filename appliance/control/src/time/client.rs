//! Questions to members by the stack's socket. Only what answers one of them is handed on.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use super::{TIME_PACKET_BYTES, TIME_PORT, field};
use crate::flag::Flag;

/// Questions without an answer yet; the oldest is given up for a further one.
const PENDING_MAX: usize = 32;

/// A question or an answer.
type Packet = [u8; TIME_PACKET_BYTES];

/// Asks members for their time from the stack's own address, at those that follow from their ids.
#[derive(Clone)]
pub struct TimeClient(Rc<Shared>);

pub(super) struct Shared {
    flag: Arc<Flag>,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Questions that wait to leave.
    asked: VecDeque<(Ipv6Addr, Packet)>,
    /// Those that wait for their answers: who was asked, and with which number.
    pending: VecDeque<(IpAddr, [u8; 8])>,
    answers: VecDeque<(IpAddr, Packet)>,
    reader: Option<Waker>,
}

impl TimeClient {
    pub(super) fn new(shared: &Rc<Shared>) -> Self {
        TimeClient(Rc::clone(shared))
    }

    /// Sends a question; its last eight bytes must be a random number.
    pub fn send(&self, to: Ipv6Addr, question: Packet) {
        let mut state = self.0.state.borrow_mut();
        if state.pending.len() == PENDING_MAX {
            state.pending.pop_front();
        }
        state.pending.push_back((to.into(), field(&question, 40)));
        if state.asked.len() == PENDING_MAX {
            state.asked.pop_front();
        }
        state.asked.push_back((to, question));
        self.0.flag.raise();
    }

    /// The next answer to one of the questions, and whose it is.
    pub async fn receive(&self) -> (IpAddr, Packet) {
        poll_fn(|cx| {
            let mut state = self.0.state.borrow_mut();
            match state.answers.pop_front() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    state.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Shared {
    pub(super) fn new(flag: &Arc<Flag>) -> Self {
        Shared {
            flag: Arc::clone(flag),
            state: RefCell::default(),
        }
    }

    /// The next question to send.
    pub(super) fn next(&self) -> Option<(Ipv6Addr, Packet)> {
        self.state.borrow_mut().asked.pop_front()
    }

    /// Takes a packet that answers a question; whether it does.
    pub(super) fn take(&self, from: (IpAddr, u16), packet: &[u8]) -> bool {
        let Some(packet) = packet.first_chunk::<TIME_PACKET_BYTES>() else {
            return false;
        };
        let mut state = self.state.borrow_mut();
        let answered = (from.0, field(packet, 24));
        let index = state.pending.iter().position(|asked| *asked == answered);
        let Some(index) = index.filter(|_| from.1 == TIME_PORT && is_answer(packet)) else {
            return false;
        };
        // So there are no more answers than there were questions.
        state.pending.remove(index);
        if state.answers.len() < PENDING_MAX {
            state.answers.push_back((from.0, *packet));
        }
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
        true
    }
}

fn is_answer(packet: &Packet) -> bool {
    const SERVER: u8 = 4;
    packet[0] & 7 == SERVER
}
