//! What reaches the guest and the control stack, and what the stack sends.

use wow_control::Control;
use wow_dataplane::segment;
use wow_guest::{Offload, WriteError};
use wow_overlay::node::GuestPacket;
use wow_overlay::time::Instant;

use super::Core;

impl Core {
    /// Has the LAN's services do what is to be done, and the node what they want of it.
    pub(super) fn drain_guests(&mut self) {
        let now = self.now();
        if let Some(guests) = &mut self.guests
            && guests.drive(now, &mut *self.guest, &mut self.node, &self.settings.state)
        {
            self.drain_node();
        }
    }

    pub(super) fn deliver_queued(&mut self) {
        while let Some(GuestPacket {
            bytes,
            lacks_checksum,
        }) = self.node.poll_guest_packet()
        {
            self.deliver(&bytes, lacks_checksum);
            self.node.recycle(bytes);
        }
    }

    pub(super) fn drain_control(&mut self) {
        while let Some(question) = self.control.as_mut().and_then(Control::poll_question) {
            self.answers.answer(question);
        }
        let mut asked = false;
        while let Some(packet) = self.control.as_mut().and_then(Control::poll_packet) {
            asked |= self.send_from_stack(&packet);
        }
        self.guest.flush();
        if asked {
            self.drain_node();
        }
    }

    /// Hands a packet of the stack to the guest it is for, or, if it comes from the node's own address, to the pool;
    /// whether the node has it.
    fn send_from_stack(&mut self, packet: &[u8]) -> bool {
        let is_own = self
            .control
            .as_ref()
            .is_some_and(|control| control.is_from_own(packet));
        match self.guest.write(Offload::default(), packet) {
            Err(WriteError::NoNeighbour) if is_own => {
                let now = self.now();
                self.node.handle_guest_packet(now, packet);
                return true;
            }
            Err(error) => self.count_unwritten(&error),
            Ok(()) => {}
        }
        false
    }

    /// Gives the stack a packet of a peer's that is for the node's own address, where that lives there; whether it
    /// was one.
    fn deliver_to_stack(&mut self, packet: &[u8], lacks_checksum: bool) -> bool {
        let now = self.now() - Instant::ZERO;
        let Some(control) = &mut self.control else {
            return false;
        };
        if !control.is_for_own(packet) {
            return false;
        }
        let mut packet = packet.to_vec();
        if lacks_checksum && segment::fill_checksum(&mut packet).is_err() {
            *self.lost.entry("drop_peer_malformed").or_default() += 1;
            return true;
        }
        control.handle_packet(now, &packet);
        self.stack_has_news = true;
        true
    }

    /// Hands a packet from a peer to the guest: soon, where it may be joined with the next ones.
    pub(super) fn deliver(&mut self, packet: &[u8], lacks_checksum: bool) {
        if self.guests.is_some() && self.deliver_to_stack(packet, lacks_checksum) {
            return;
        }
        let malformed = if self.joins_for_guest {
            if self.coalescer.is_full() {
                self.flush_guest();
            }
            self.coalescer.push(packet, lacks_checksum).is_err()
        } else if lacks_checksum {
            let mut packet = packet.to_vec();
            let filled = segment::fill_checksum(&mut packet);
            if filled.is_ok() {
                self.write_guest(Offload::default(), &packet);
            }
            filled.is_err()
        } else {
            self.write_guest(Offload::default(), packet);
            false
        };
        if malformed {
            *self.lost.entry("drop_peer_malformed").or_default() += 1;
        }
    }

    /// Hands over what was joined.
    pub(super) fn flush_guest(&mut self) {
        if self.hands_over() {
            let packets = self.coalescer.drain().collect();
            if let Some(second) = &mut self.second {
                second.hand(packets);
            }
            return;
        }
        if !self.coalescer.is_empty() {
            let mut coalescer = std::mem::take(&mut self.coalescer);
            coalescer.take(|offload, packet| self.write_guest(offload, packet));
            self.coalescer = coalescer;
        }
        self.guest.flush();
    }

    /// Whether the second thread is to write what was joined: the loop is behind, or what came before is still
    /// under way there.
    fn hands_over(&mut self) -> bool {
        let Some(second) = &mut self.second else {
            return false;
        };
        if !self.is_behind && !second.is_busy() {
            return false;
        }
        let mut errors = Vec::new();
        while let Some(written) = second.poll_written() {
            errors.extend(written.errors);
            for (_, buffer) in written.packets {
                self.coalescer.reuse(buffer);
            }
        }
        let is_busy = second.is_busy();
        for error in errors {
            self.count_unwritten(&error);
        }
        (self.is_behind || is_busy) && !self.coalescer.is_empty()
    }

    fn write_guest(&mut self, offload: Offload, packet: &[u8]) {
        if let Err(error) = self.guest.write(offload, packet) {
            self.count_unwritten(&error);
        }
    }

    fn count_unwritten(&mut self, error: &WriteError) {
        let reason = match error.reason() {
            "full" => "drop_guest_full",
            "no_guest" => "drop_no_guest",
            "no_neighbour" => "drop_guest_unknown",
            _ => "drop_guest_refused",
        };
        tracing::trace!(%error, "packet not written to the guest");
        *self.lost.entry(reason).or_default() += 1;
    }
}
