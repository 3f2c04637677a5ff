//! What the node sends: by UDP, by a lane of its own, over TCP; and what is counted where that fails.

use wow_overlay::node::Transmit;
use wow_overlay::wire::Remote;
use wow_underlay::tcp::Refusal;
use wow_underlay::{Outgoing, SendError};

use super::Core;

impl Core {
    /// Offers the waiting datagrams to the underlay; whether all are gone.
    pub fn flush(&mut self) -> bool {
        while !self.outbox.is_empty() {
            let waiting = self.outbox.waiting();
            let sent = self.underlay.send(waiting);
            let failed = sent.failures.into_iter();
            let failed: Vec<_> = failed
                .map(|(index, error)| (waiting[index].to, waiting[index].datagram_bytes, error))
                .collect();
            for (to, length, error) in failed {
                self.count_unsent(Remote::udp(to), length, &error);
            }
            if sent.taken == 0 {
                return false;
            }
            for buffer in self.outbox.remove(sent.taken) {
                self.node.recycle(buffer);
            }
        }
        true
    }

    fn count_unsent(&mut self, to: Remote, length: usize, error: &SendError) {
        tracing::debug!(%to, length, %error, "datagram not sent");
        if let SendError::TooBig = error {
            self.node.handle_too_long(self.now(), to, length);
        }
        let reason = match error.reason() {
            "unreachable" => "drop_send_unreachable",
            "too_big" => "drop_send_too_big",
            "no_socket" => "drop_send_no_socket",
            "forbidden" => "drop_send_forbidden",
            _ => "drop_send_other",
        };
        *self.lost.entry(reason).or_default() += 1;
    }

    pub(super) fn send_udp(&mut self, transmit: Transmit) {
        let queued = self.outbox.push(Outgoing {
            to: transmit.to.address(),
            payload: transmit.datagram,
            datagram_bytes: transmit.datagram_bytes,
        });
        if let Err(lost) = queued {
            let count = lost.payload.len().div_ceil(lost.datagram_bytes.max(1)) as u64;
            *self.lost.entry("drop_send_full").or_default() += count;
            self.node.recycle(lost.payload);
        }
    }

    pub(super) fn send_on_lane(&mut self, transmit: Transmit) {
        let (to, lane) = (transmit.to.address(), transmit.to.lane());
        if let Err(error) = self.lanes.send(lane, to, &transmit.datagram) {
            self.count_unsent(transmit.to, transmit.datagram.len(), &error);
        }
        self.node.recycle(transmit.datagram);
    }

    pub(super) fn send_tcp(&mut self, transmit: Transmit) {
        let Some(tcp) = &self.tcp else {
            return self.node.recycle(transmit.datagram);
        };
        let Transmit {
            to,
            datagram,
            datagram_bytes,
            ..
        } = transmit;
        if let Err(refusal) = tcp.send(to.address(), &datagram, datagram_bytes) {
            let lost = match refusal {
                Refusal::Full { lost } => lost,
                _ => datagram.len().div_ceil(datagram_bytes.max(1)),
            };
            let reason = match refusal.reason() {
                "full" => "drop_tcp_full",
                "too_many" => "drop_tcp_too_many",
                "too_big" => "drop_tcp_too_big",
                _ => "drop_tcp_failed",
            };
            *self.lost.entry(reason).or_default() += lost as u64;
        }
        self.node.recycle(datagram);
    }
}
