//! One conversation: requests in, replies out, several at once and in any order.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, JoinSet};

use super::lines::{Line, Lines};
use super::operator::Operator;
use crate::api::{REQUEST_BYTES_MAX, Reply, Request};

/// Requests of one client at work. Beyond it the oldest gives way: on a serial port it may be that
/// of a client that has long gone.
const REQUESTS_MAX: usize = 8;

/// A client that does not read for so long is given up.
const WRITE_MAX: Duration = Duration::from_secs(10);

/// After the last request, what is nearly done may finish.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// Serves one client until its stream ends, or until nothing was asked and nothing at work for `idle_max`.
pub async fn serve(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    operator: Operator,
    idle_max: Option<Duration>,
) -> io::Result<()> {
    let mut lines = Lines::new(REQUEST_BYTES_MAX);
    let mut work = JoinSet::new();
    let mut order: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        tokio::select! {
            line = lines.next(&mut reader) => {
                let Some(line) = line? else { break };
                match request(line) {
                    Ok(None) => {}
                    Ok(Some(request)) => {
                        order.retain(|task| !task.is_finished());
                        if order.len() >= REQUESTS_MAX
                            && let Some(oldest) = order.pop_front()
                        {
                            oldest.abort();
                        }
                        let operator = operator.clone();
                        order.push_back(work.spawn(async move {
                            let result = operator.execute(request.op).await;
                            reply(request.id, result)
                        }));
                    }
                    Err(error) => write(&mut writer, &reply(0, Err(error))).await?,
                }
            }
            Some(done) = work.join_next(), if !work.is_empty() => {
                // A task that gave way has no reply.
                if let Ok(reply) = done {
                    write(&mut writer, &reply).await?;
                }
            }
            () = idle(idle_max), if work.is_empty() => return Ok(()),
        }
    }
    let finish = async {
        while let Some(done) = work.join_next().await {
            if let Ok(reply) = done {
                write(&mut writer, &reply).await?;
            }
        }
        Ok(())
    };
    tokio::time::timeout(FINISH_MAX, finish)
        .await
        .unwrap_or(Ok(()))
}

async fn idle(most: Option<Duration>) {
    match most {
        Some(most) => tokio::time::sleep(most).await,
        None => std::future::pending().await,
    }
}

pub(super) fn request(line: Line) -> Result<Option<Request>, String> {
    let Line::Text(text) = line else {
        return Err(format!(
            "the request is longer than {REQUEST_BYTES_MAX} bytes"
        ));
    };
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| format!("no request: {error}"))
}

fn reply(id: u64, result: Result<serde_json::Value, String>) -> Reply {
    match result {
        Ok(value) => Reply {
            id,
            ok: Some(value),
            error: None,
        },
        Err(error) => Reply {
            id,
            ok: None,
            error: Some(error),
        },
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply).map_err(io::Error::other)?;
    line.push(b'\n');
    let written = async {
        writer.write_all(&line).await?;
        writer.flush().await
    };
    tokio::time::timeout(WRITE_MAX, written)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::daemon::command::Command;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_asks_nothing_more_makes_room_and_one_that_waits_is_answered() {
        const IDLE_MAX: Duration = Duration::from_secs(60);
        let (commands, mut asked) = mpsc::channel(1);
        let (mut client, ours) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(ours);
        let operator = Operator::new(commands, None);
        let session = tokio::spawn(serve(reader, writer, operator, Some(IDLE_MAX)));
        let request = r#"{"id": 5, "op": "wait", "joined": true, "timeout_ms": 600000}"#;
        client.write_all(request.as_bytes()).await.unwrap();
        client.write_all(b"\n").await.unwrap();
        let Some(Command::Joined(asker)) = asked.recv().await else {
            panic!("it was asked whether the node has joined");
        };
        tokio::time::sleep(IDLE_MAX * 5).await;
        drop(asker);
        let answered = tokio::time::Instant::now();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(
            text,
            "{\"id\":5,\"error\":\"the node is busy or stopping; try again\"}\n"
        );
        assert_eq!(answered.elapsed(), IDLE_MAX);
        session.await.unwrap().unwrap();
    }
}
