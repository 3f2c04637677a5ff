//! What the node's control stack serves, and the stack in the place of a guest: documents for its HTTP
//! server, names for its DNS server, and programs of this machine that reach the pool through it.

pub mod documents;
mod forwarder;
mod gateway;
mod metrics;
mod names;
mod socks;
mod stack_guest;

use std::net::SocketAddr;

use tokio::sync::mpsc;
use wow_control::{Answer, Question};

use crate::daemon::command::Command;
use crate::ipc::Operator;
use forwarder::Forwarder;

pub use forwarder::SERVERS_MAX as DNS_SERVERS_MAX;
pub use gateway::{Forward, Gateway, GatewayPlan};
pub use stack_guest::StackGuest;

/// Answers the stack's questions, each in a task of its own. The stack bounds how many there are.
pub struct Services {
    commands: mpsc::Sender<Command>,
    forwarder: Forwarder,
}

impl Services {
    /// By asking the daemon's loop, and these DNS servers about names that are not the pool's.
    pub fn new(commands: mpsc::Sender<Command>, dns_servers: &[SocketAddr]) -> Self {
        Services {
            commands,
            forwarder: Forwarder::new(dns_servers),
        }
    }

    /// Answers soon. Must be called inside a tokio runtime.
    pub fn answer(&self, question: Question) {
        let operator = Operator::new(self.commands.clone(), None);
        // Who asked may have gone; then the answer is nobody's loss.
        match question {
            Question::Document(document, asker) => {
                tokio::spawn(async move {
                    match documents::make(&operator, document).await {
                        Ok(bytes) => drop(asker.send(Answer(bytes))),
                        Err(error) => tracing::debug!(error, "no answer for an HTTP client"),
                    }
                });
            }
            Question::LookUp(lookup, asker) => {
                tokio::spawn(async move { asker.send(names::look_up(&operator, lookup).await) });
            }
            Question::Forward(query, tcp, asker) => {
                let forwarder = self.forwarder.clone();
                tokio::spawn(async move {
                    if let Some(answer) = forwarder.ask(query, tcp).await {
                        drop(asker.send(answer));
                    }
                });
            }
        }
    }
}
