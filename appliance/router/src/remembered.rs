//! Peers that a node remembers over restarts, so that it finds its pool again when no seed is there: the
//! addresses of those it has direct paths to, in a file of its state.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use wow_overlay::membership::SeedAddr;

use crate::api::Peer;
use crate::daemon::command::Command;
use crate::keeper::Files;

/// Peers kept; they are all asked at once when the node starts.
const PEERS_MAX: usize = 16;
/// When they are written first: what is known then is a neighbourhood and no longer only the seeds.
const FIRST: Duration = Duration::from_secs(60);
/// Then so often, if they have changed.
const INTERVAL: Duration = Duration::from_secs(600);

const FILE: &str = "peers";

/// The peers of an earlier run. What cannot be read is told and forgotten: nothing depends on it.
pub fn read(files: &Files) -> Vec<SeedAddr> {
    let kept = files.read(FILE).unwrap_or_else(|error| {
        tracing::info!("the peers of an earlier run are forgotten: {error:#}");
        None
    });
    let text = String::from_utf8_lossy(kept.as_deref().map_or(&[], Vec::as_slice)).into_owned();
    let peers = text.lines().filter_map(|line| line.trim().parse().ok());
    peers.take(PEERS_MAX).collect()
}

/// Keeps the file up to date for as long as the node's loop runs.
pub async fn follow(files: Files, commands: mpsc::Sender<Command>) {
    let mut pause = FIRST;
    let mut written = String::new();
    loop {
        tokio::time::sleep(pause).await;
        pause = INTERVAL;
        let (asker, answer) = oneshot::channel();
        if commands.send(Command::Peers(asker)).await.is_err() {
            return;
        }
        let Ok(peers) = answer.await else {
            continue;
        };
        let text = list(&peers);
        // A node that is cut off keeps what it knew.
        if text.is_empty() || text == written {
            continue;
        }
        match files.write(FILE, text.as_bytes()) {
            Ok(()) => written = text,
            Err(error) => tracing::warn!("peers cannot be remembered: {error:#}"),
        }
    }
}

/// The peers with direct paths, those with the oldest sessions first, one a line.
fn list(peers: &[Peer]) -> String {
    let mut peers: Vec<&Peer> = peers.iter().collect();
    peers.sort_by_key(|peer| std::cmp::Reverse(peer.age_ms));
    let addresses = peers.iter().filter_map(|peer| {
        let remote = peer.path.remote?;
        match &*peer.path.kind {
            "udp" => Some(format!("{remote}\n")),
            "tcp" => Some(format!("tcp:{remote}\n")),
            _ => None,
        }
    });
    addresses.take(PEERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: usize, kind: &str) -> Peer {
        let nothing = serde_json::json!({"packets": 0, "bytes": 0});
        let peer = serde_json::json!({
            "id": "a", "name": "a", "v4": "10.128.0.9", "v6": "fd00::9", "roles": "router",
            "kind": "near", "path": {"kind": kind, "remote": format!("192.0.2.1:{number}")},
            "rtt_ms": null, "mtu_bytes": 1400, "age_ms": number, "sent": nothing, "received": nothing,
        });
        serde_json::from_value(peer).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn peers_with_direct_paths_are_found_again_oldest_first() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::In(directory.path().to_owned());
        assert!(read(&files).is_empty());
        let mut peers = vec![peer(1, "udp"), peer(2, "tcp"), peer(3, "relay")];
        let (sender, mut commands) = mpsc::channel(1);
        let loops = async {
            for answer in [peers.clone(), Vec::new()] {
                match commands.recv().await {
                    Some(Command::Peers(asker)) => asker.send(answer).unwrap(),
                    other => panic!("{other:?}"),
                }
            }
            drop(commands);
        };
        tokio::join!(follow(files.clone(), sender), loops);
        let texts: Vec<String> = read(&files).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["tcp:192.0.2.1:2", "192.0.2.1:1"]);

        peers.extend((10..100).map(|number| peer(number, "udp")));
        assert_eq!(list(&peers).lines().count(), PEERS_MAX);
        files.write(FILE, b"rubbish\n192.0.2.1:7\n").unwrap();
        assert_eq!(read(&files).len(), 1);
    }
}
