//! Drives the DHCP client of one interface: its packet socket, its timer, its reports.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::dhcp::{Client, Event};
use super::kernel::Link;
use crate::system::packet::PacketSocket;

/// Pause after the socket could not be opened (no CONFIG_PACKET, or the interface just went away).
const REOPEN: Duration = Duration::from_secs(2);
const FRAME_BYTES: usize = 2048;

/// What a client reports, and from which interface.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) index: u32,
    /// Which run of a client it was: reports of one that was stopped are stale.
    pub(crate) run: u64,
    pub(crate) event: Event,
}

/// Runs until aborted, or until nobody takes its reports.
pub(crate) async fn run(link: Link, hardware: [u8; 6], run: u64, reports: mpsc::Sender<Report>) {
    let start = Instant::now();
    let mut client = Client::new(hardware, transaction_seed(hardware), Duration::ZERO);
    let mut socket = None;
    let mut complained = false;
    let mut buffer = vec![0; FRAME_BYTES];
    loop {
        if socket.is_none() {
            socket = match PacketSocket::open(link.index) {
                Ok(opened) => Some(opened),
                Err(error) => {
                    if !complained {
                        tracing::error!(
                            interface = link.name,
                            "cannot open a packet socket for DHCP (does the kernel have \
                             CONFIG_PACKET?): {error}"
                        );
                        complained = true;
                    }
                    tokio::time::sleep(REOPEN).await;
                    continue;
                }
            };
        }
        client.handle_deadline(start.elapsed());
        while !client.is_settled() {
            let now = start.elapsed();
            let Some(open) = &socket else { break };
            transmit(&mut client, open, &link);
            if !report(&mut client, link.index, run, &reports).await {
                return;
            }
            let deadline = start + client.next_deadline(now);
            tokio::select! {
                received = open.receive(&mut buffer) => match received {
                    Ok(length) => client.handle_frame(start.elapsed(), &buffer[..length]),
                    Err(error) => {
                        // The interface is down or gone; a new socket finds out.
                        tracing::debug!(interface = link.name, "packet socket: {error}");
                        socket = None;
                        tokio::time::sleep(REOPEN).await;
                    }
                },
                () = tokio::time::sleep_until(deadline) => client.handle_deadline(start.elapsed()),
            }
        }
        if !report(&mut client, link.index, run, &reports).await {
            return;
        }
        if client.is_settled() {
            // Until the renewal no frame is for us: no tap on the interface meanwhile.
            socket = None;
            let deadline = client.next_deadline(start.elapsed());
            tokio::time::sleep_until(start + deadline).await;
        }
    }
}

fn transmit(client: &mut Client, socket: &PacketSocket, link: &Link) {
    while let Some(frame) = client.poll_transmit() {
        if let Err(error) = socket.send(&frame) {
            // As good as lost on the wire: the client repeats it.
            tracing::debug!(interface = link.name, "DHCP frame not sent: {error}");
        }
    }
}

/// Passes the client's events on; whether anybody takes them.
async fn report(client: &mut Client, index: u32, run: u64, reports: &mpsc::Sender<Report>) -> bool {
    while let Some(event) = client.poll_event() {
        if reports.send(Report { index, run, event }).await.is_err() {
            return false;
        }
    }
    true
}

/// Transaction ids that differ between machines and boots; a guess by another host of the LAN gains it
/// nothing that it could not do by answering first.
fn transaction_seed(hardware: [u8; 6]) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(hardware)
}
