//! What the loop waits for: packets, which it looks for at every turn, and all else, which it looks at when that has
//! rung.
//!
//! A lone packet finds its code in no cache: every source that is asked in vain costs it microseconds.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::Instant;
use wow_guest::GuestGone;
use wow_overlay::wire::Remote;
use wow_underlay::{ReceiveError, tcp};

use super::Daemon;
use super::command::Command;
use super::news::News;

/// While the guest sends, the alarm rings so often at least. Each packet sets a deadline for its path, and to set the
/// alarm to an earlier time costs a system call; and a processor that slept for longer takes longer to wake up, which a
/// conversation of lone packets would feel at every step. A deadline that is set when the alarm rings so soon waits for
/// that.
const BEAT: Duration = Duration::from_millis(5);

/// How long after its last packet the guest is taken to send.
const CONVERSATION: Duration = Duration::from_millis(25);

/// How many sources of seldom events there are.
const OTHERS: usize = 7;

/// What the loop woke up for.
pub enum Wake {
    Datagrams(Result<(), ReceiveError>),
    /// What came together on a TCP connection.
    Stream(tcp::Received),
    /// One by itself, on an extra socket.
    Datagram(Remote, Vec<u8>),
    Announcement(SocketAddr, Vec<u8>),
    Sendable,
    Packets(Result<(), GuestGone>),
    Deadline,
    /// The control stack has something to do.
    Control,
    Command(Command),
    News(News),
    Stop,
}

impl Daemon {
    /// Sets the alarm for what is due next, unless it rings before that anyway.
    pub(super) fn set_alarm(&mut self) {
        let has_rung = self.alarm.has_rung();
        let now = Instant::now();
        let beat = now + BEAT;
        if !has_rung && self.alarm.due() <= beat {
            return;
        }
        let mut due = self.core.next_deadline();
        if !has_rung && self.alarm.due() <= due {
            return;
        }
        if std::mem::take(&mut self.sends) {
            self.sent = Some(now);
        }
        if self.sent.is_some_and(|sent| now - sent < CONVERSATION) {
            due = due.min(beat);
        }
        self.alarm.set(due);
        self.looks_at_others = true;
    }

    /// The next thing to do, of the guest, the network and all else in turn.
    pub(super) fn poll_wake(
        &mut self,
        cx: &mut Context<'_>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Wake> {
        for _ in 0..3 {
            self.turn = (self.turn + 1) % 3;
            let wake = match self.turn {
                0 => self.poll_guest(cx),
                1 => self.poll_network(cx),
                _ => self.poll_others(cx, stop.as_mut()),
            };
            if wake.is_ready() {
                return wake;
            }
        }
        Poll::Pending
    }

    fn poll_guest(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        if !self.core.outbox.has_room() {
            return Poll::Pending;
        }
        let read = self.core.guest.poll_read(cx, &mut self.packets);
        read.map(Wake::Packets)
    }

    fn poll_network(&mut self, cx: &mut Context<'_>) -> Poll<Wake> {
        // Sockets among them may be new: nobody would ring for those.
        if let Poll::Ready((lane, from, datagram)) = self.core.lanes.poll_receive(cx) {
            let from = Remote::udp(from).on_lane(lane);
            return Poll::Ready(Wake::Datagram(from, datagram));
        }
        let underlay = &mut self.core.underlay;
        if !self.core.outbox.is_empty() && underlay.poll_sendable(cx).is_ready() {
            return Poll::Ready(Wake::Sendable);
        }
        let received = underlay.poll_receive(cx, &mut self.received);
        received.map(Wake::Datagrams)
    }

    /// Looks at what seldom happens, if any of it has.
    fn poll_others(
        &mut self,
        cx: &mut Context<'_>,
        mut stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Wake> {
        let has_rung = self.others.poll(cx).is_ready();
        if !std::mem::take(&mut self.looks_at_others) && !has_rung {
            return Poll::Pending;
        }
        self.others.lower();
        let waker = Waker::from(Arc::clone(&self.others));
        let cx = &mut Context::from_waker(&waker);
        for _ in 0..OTHERS {
            self.other = (self.other + 1) % OTHERS;
            let wake = self.poll_other(self.other, cx, stop.as_mut());
            if wake.is_ready() {
                // This one may have more, and not all were looked at.
                self.looks_at_others = true;
                return wake;
            }
        }
        Poll::Pending
    }

    fn poll_other(
        &mut self,
        number: usize,
        cx: &mut Context<'_>,
        stop: Pin<&mut impl Future<Output = ()>>,
    ) -> Poll<Wake> {
        let core = &mut self.core;
        match number {
            0 => return stop.poll(cx).map(|()| Wake::Stop),
            1 => return self.alarm.poll(cx).map(|()| Wake::Deadline),
            2 => {
                if let Some(control) = &core.control {
                    return control.poll_woken(cx).map(|()| Wake::Control);
                }
            }
            3 => {
                if let Some(command) = ready!(self.commands.poll_recv(cx)) {
                    return Poll::Ready(Wake::Command(command));
                }
            }
            4 => {
                if let Some(news) = ready!(self.news.poll_next_unpin(cx)) {
                    return Poll::Ready(Wake::News(news));
                }
            }
            5 => {
                if let Some(lan) = &mut core.lan {
                    let announcement = lan.poll_receive(cx);
                    return announcement.map(|(from, bytes)| Wake::Announcement(from, bytes));
                }
            }
            _ => {
                if let Some(streams) = &mut core.tcp {
                    return streams.poll_receive(cx).map(Wake::Stream);
                }
            }
        }
        Poll::Pending
    }
}
