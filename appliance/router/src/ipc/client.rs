//! The other end of the control socket: a request and its reply, once or several times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::lines::{Line, Lines};
use crate::api::{Op, REPLY_BYTES_MAX, Reply, Request};
use crate::random;

/// Asks and waits for the answer for at most `limit`.
pub async fn ask<T: DeserializeOwned>(socket: &Path, op: Op, limit: Duration) -> Result<T> {
    let once = async { Conversation::open(socket).await?.converse(op).await };
    let reply = tokio::time::timeout(limit, once).await;
    outcome(reply.with_context(|| late(socket, limit))??)
}

/// A connection for several questions, one after the other.
pub struct Conversation {
    socket: PathBuf,
    stream: UnixStream,
    lines: Lines,
}

impl Conversation {
    /// Connects.
    pub async fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).await.with_context(|| {
            format!(
                "no node answers at {}; start one with `wow run`, or name its socket with --socket",
                socket.display()
            )
        })?;
        Ok(Self {
            socket: socket.to_owned(),
            stream,
            lines: Lines::new(REPLY_BYTES_MAX),
        })
    }

    /// Asks and waits for the answer for at most `limit`.
    pub async fn ask<T: DeserializeOwned>(&mut self, op: Op, limit: Duration) -> Result<T> {
        let reply = tokio::time::timeout(limit, self.converse(op)).await;
        outcome(reply.with_context(|| late(&self.socket, limit))??)
    }

    async fn converse(&mut self, op: Op) -> Result<Reply> {
        // Ids of earlier conversations on a serial port must not match.
        let id = random::number() >> 11;
        let request =
            serde_json::to_string(&Request { id, op }).context("cannot write the request")?;
        let lost = || format!("the node at {} hung up", self.socket.display());
        self.stream
            .write_all(format!("\n{request}\n").as_bytes())
            .await
            .with_context(lost)?;
        while let Some(line) = self.lines.next(&mut self.stream).await.with_context(lost)? {
            let Line::Text(text) = line else { continue };
            match serde_json::from_slice::<Reply>(&text) {
                Ok(reply) if reply.id == id => return Ok(reply),
                // The end of somebody else's conversation.
                _ => {}
            }
        }
        bail!("{} without an answer", lost())
    }
}

fn late(socket: &Path, limit: Duration) -> String {
    format!(
        "no answer from the node at {} within {}",
        socket.display(),
        humantime::format_duration(limit)
    )
}

fn outcome<T: DeserializeOwned>(reply: Reply) -> Result<T> {
    match (reply.ok, reply.error) {
        (Some(value), _) => {
            serde_json::from_value(value).context("the node's answer has an unknown form")
        }
        (None, Some(error)) => bail!("{error}"),
        (None, None) => bail!("the node's answer is empty"),
    }
}
