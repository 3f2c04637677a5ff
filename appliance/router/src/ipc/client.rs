//! The other end of the control socket: one request, one reply.

use std::path::Path;
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
    let reply = tokio::time::timeout(limit, converse(socket, op))
        .await
        .with_context(|| {
            format!(
                "no answer from the node at {} within {}",
                socket.display(),
                humantime::format_duration(limit)
            )
        })??;
    match (reply.ok, reply.error) {
        (Some(value), _) => {
            serde_json::from_value(value).context("the node's answer has an unknown form")
        }
        (None, Some(error)) => bail!("{error}"),
        (None, None) => bail!("the node's answer is empty"),
    }
}

async fn converse(socket: &Path, op: Op) -> Result<Reply> {
    let mut stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no node answers at {}; start one with `wow run`, or name its socket with --socket",
            socket.display()
        )
    })?;
    // Ids of earlier conversations on a serial port must not match.
    let id = random::number() >> 11;
    let request = serde_json::to_string(&Request { id, op }).context("cannot write the request")?;
    let lost = || format!("the node at {} hung up", socket.display());
    stream
        .write_all(format!("\n{request}\n").as_bytes())
        .await
        .with_context(lost)?;
    let mut lines = Lines::new(REPLY_BYTES_MAX);
    while let Some(line) = lines.next(&mut stream).await.with_context(lost)? {
        let Line::Text(text) = line else { continue };
        match serde_json::from_slice::<Reply>(&text) {
            Ok(reply) if reply.id == id => return Ok(reply),
            // The end of somebody else's conversation.
            _ => {}
        }
    }
    bail!("{} without an answer", lost())
}
