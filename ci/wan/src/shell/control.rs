//! The control socket: clients send a JSON line and read one back.

use std::{
    cell::{Cell, RefCell},
    fs, io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

use rustix::{fs::Mode, process::umask};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::spawn_local,
};

use super::{Hub, ShellError};
use crate::control::{self, REQUEST_BYTES_MAX, Reply};

/// Clients at once; a further one is hung up on.
const CLIENTS_MAX: usize = 16;

/// Pause after a failure to accept, when descriptors have run out.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening socket. Dropping it removes its file.
pub(super) struct Server {
    listener: UnixListener,
    path: PathBuf,
    clients: Rc<Cell<usize>>,
}

impl Server {
    /// Opens the socket; what a dead emulator left behind is removed.
    pub(super) fn bind(path: &Path) -> Result<Server, ShellError> {
        let failed = |source, remedy| ShellError::Control {
            path: path.to_owned(),
            source,
            remedy,
        };
        let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
        if is_socket {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                let source = io::ErrorKind::AddrInUse.into();
                return Err(failed(source, "another emulator serves it; take another"));
            }
            fs::remove_file(path).map_err(|source| failed(source, "remove it by hand"))?;
        }
        // The mask is the whole process's; nothing else creates files meanwhile.
        let mask = umask(Mode::from_bits_retain(0o177));
        let bound = UnixListener::bind(path);
        umask(mask);
        let listener =
            bound.map_err(|source| failed(source, "take a path in a directory of yours"))?;
        Ok(Server {
            listener,
            path: path.to_owned(),
            clients: Rc::default(),
        })
    }

    /// Serves clients for ever.
    pub(super) async fn serve(self, hub: Rc<RefCell<Hub>>) {
        loop {
            match self.listener.accept().await {
                Ok((client, _)) if self.clients.get() < CLIENTS_MAX => {
                    let (hub, place) = (hub.clone(), Place::take(&self.clients));
                    spawn_local(async move {
                        if let Err(error) = converse(client, &hub).await {
                            tracing::debug!(%error, "control client");
                        }
                        drop(place);
                    });
                }
                Ok(_) => tracing::warn!("more than {CLIENTS_MAX} control clients"),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control client");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Whoever removed it before us did the same.
        let _ = fs::remove_file(&self.path);
    }
}

/// One of the clients there may be.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(clients: &Rc<Cell<usize>>) -> Place {
        clients.set(clients.get() + 1);
        Place(clients.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn converse(client: UnixStream, hub: &Rc<RefCell<Hub>>) -> io::Result<()> {
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = REQUEST_BYTES_MAX as u64 + 1;
        (&mut reader)
            .take(limit)
            .read_until(b'\n', &mut line)
            .await?;
        let whole = line.last() == Some(&b'\n');
        let reply = if line.is_empty() {
            return Ok(());
        } else if !whole && line.len() > REQUEST_BYTES_MAX {
            Reply::error(
                0,
                format!("a request has at most {REQUEST_BYTES_MAX} bytes"),
            )
        } else {
            carry_out(hub, &line)
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
        if !whole {
            return Ok(());
        }
    }
}

fn carry_out(hub: &Rc<RefCell<Hub>>, line: &[u8]) -> Reply {
    let mut hub = hub.borrow_mut();
    let Hub {
        world,
        links,
        clock,
        ..
    } = &mut *hub;
    let reply = control::handle(world, line, |world| {
        serde_json::to_value(super::report(world, links, *clock))
            .expect("strings, numbers and lists: always expressible in JSON")
    });
    match &reply.error {
        None => tracing::info!(request = %String::from_utf8_lossy(line).trim_end(), "done"),
        Some(error) => tracing::info!(error, "refused"),
    }
    hub.pump();
    reply
}
