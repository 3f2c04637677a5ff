//! The ICMP errors of a gateway: where they go, from which address, and how many.

use std::{net::Ipv4Addr, time::Duration};

use super::Gateway;
use crate::{
    counters::DropReason,
    nat::translate::Translator,
    time::Instant,
    wire::{
        ETHERNET_HEADER, Ipv4Header,
        icmp::{self, Error},
    },
    world::Shared,
};

/// Mean time between ICMP errors of one gateway.
const ERROR_INTERVAL: Duration = Duration::from_millis(5);
/// ICMP errors that may come at once.
const ERROR_BURST: u32 = 100;

impl Gateway {
    /// Reports an error about a packet as hosts inside know it; if it goes outside, the NAT
    /// translates it.
    pub(super) fn report_inside(
        &mut self,
        now: Instant,
        error: Error,
        about: &[u8],
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let Some((to, frame)) = self.error(now, error, self.ip, about, shared)? else {
            return Ok(());
        };
        if self.subnet.contains(&to) {
            self.deliver(now, to, frame, shared)
        } else {
            self.send_outward(now, frame, shared)
        }
    }

    /// Reports an error about a packet as the outside knows it.
    pub(super) fn report_outside(
        &mut self,
        now: Instant,
        error: Error,
        about: &[u8],
        shared: &mut Shared,
    ) -> Result<(), DropReason> {
        let from = self.nat.as_ref().map_or(self.ip, Translator::public_ip);
        match self.error(now, error, from, about, shared)? {
            Some((_, frame)) => self.send_to_core(now, frame, shared),
            None => Ok(()),
        }
    }

    fn error(
        &mut self,
        now: Instant,
        error: Error,
        from: Ipv4Addr,
        about: &[u8],
        shared: &mut Shared,
    ) -> Result<Option<(Ipv4Addr, Vec<u8>)>, DropReason> {
        let header = Ipv4Header::parse(about)?;
        if !icmp::deserves_error(&header, about) {
            return Ok(None);
        }
        let due = self.next_error.max(now);
        if due - now > ERROR_INTERVAL * ERROR_BURST {
            return Err(DropReason::ErrorLimit);
        }
        self.next_error = due + ERROR_INTERVAL;
        self.counters.icmp_errors += 1;
        let mut frame = shared.buffer();
        frame.resize(ETHERNET_HEADER, 0);
        icmp::write_error(&mut frame, error, from, header.source, about);
        Ok(Some((header.source, frame)))
    }
}
