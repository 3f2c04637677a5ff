//! The Unix socket that clients on this machine connect to.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Uid, geteuid, umask};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::operator::Operator;
use super::session;

/// The owner's clients at once; further ones wait to be accepted.
const CLIENTS_MAX: usize = 32;

/// Other users' clients at once; further ones are turned away.
const OTHERS_MAX: usize = 16;

/// A client that asks nothing for so long makes room for others.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// The listening socket. Dropping it removes its file.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another node serves it.
    #[error(
        "the control socket {} is served by a running node; stop that node, or give this one its own \
         with --socket", .0.display()
    )]
    Served(PathBuf),
    /// There is something else in its place.
    #[error("{} is there and is no socket; move it away, or name another with --socket", .0.display())]
    NoSocket(PathBuf),
    /// Anything else.
    #[error("cannot open the control socket {}: {source}; name another with --socket", path.display())]
    Other {
        /// The path asked for.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Server {
    /// Opens the socket: root's for everybody, of whom others may only look, a user's for that user alone. What a
    /// dead node left behind is removed.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let other = |source| BindError::Other {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(other)?;
        }
        match std::fs::symlink_metadata(path) {
            Ok(metadata) => {
                use std::os::unix::fs::FileTypeExt;
                if !metadata.file_type().is_socket() {
                    return Err(BindError::NoSocket(path.to_owned()));
                }
                if std::os::unix::net::UnixStream::connect(path).is_ok() {
                    return Err(BindError::Served(path.to_owned()));
                }
                std::fs::remove_file(path).map_err(other)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(other(error)),
        }
        // The mask is the whole process's; nothing else creates files meanwhile.
        let closed = if geteuid().is_root() { 0o111 } else { 0o177 };
        let mask = umask(Mode::from_bits_retain(closed));
        let bound = UnixListener::bind(path);
        umask(mask);
        Ok(Server {
            listener: bound.map_err(other)?,
            path: path.to_owned(),
        })
    }

    /// Serves clients for ever.
    pub async fn run(self, operator: Operator) {
        let room = Arc::new(Semaphore::new(CLIENTS_MAX));
        let others = Arc::new(Semaphore::new(OTHERS_MAX));
        loop {
            let Ok(own) = Arc::clone(&room).acquire_owned().await else {
                return;
            };
            match self.listener.accept().await {
                Ok((client, _)) => {
                    let (operator, place) = if is_owner(&client) {
                        (operator.clone(), own)
                    } else {
                        match Arc::clone(&others).try_acquire_owned() {
                            Ok(place) => (operator.for_others(), place),
                            Err(_) => continue,
                        }
                    };
                    tokio::spawn(async move {
                        serve(client, operator).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a client");
                    // Out of descriptors or memory: others' ends make room.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// Whether root or the daemon's own user connects.
fn is_owner(client: &UnixStream) -> bool {
    client.peer_cred().is_ok_and(|user| {
        let user = Uid::from_raw(user.uid());
        user.is_root() || user == geteuid()
    })
}

async fn serve(mut client: UnixStream, operator: Operator) {
    let (reader, writer) = client.split();
    if let Err(error) = session::serve(reader, writer, operator, Some(IDLE_MAX)).await {
        tracing::debug!(%error, "control client");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever removed it before us did the same.
        let _ = std::fs::remove_file(&self.path);
    }
}
