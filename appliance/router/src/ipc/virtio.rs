//! The control protocol on a virtual machine's serial port, so that its host can ask.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wow_init::backoff::Backoff;

use super::operator::Operator;
use super::port::Port;
use super::session;

/// The port's name, as given to QEMU's `-device virtserialport,name=…`.
const PORT: &str = "wow.control";

/// Buffered between the port and the conversation.
const BUFFER_BYTES: usize = 16 * 1024;

/// How often it is looked for a port: the kernel learns a port's name some time after the port, and a port may be
/// attached to a machine that runs.
const LOOK: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// Serves the machine's control port for ever, once there is one.
pub async fn serve_port(operator: Operator) {
    let mut look = LOOK;
    loop {
        let Some(device) = find(Path::new("/sys/class/virtio-ports")) else {
            tokio::time::sleep(look.pause()).await;
            continue;
        };
        look = LOOK;
        tracing::info!(port = %device.display(), "control port");
        if let Err(error) = converse(&device, operator.clone()).await {
            tracing::warn!(%error, port = %device.display(), "control port");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn find(ports: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(ports).ok()?;
    entries.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim() == PORT).then(|| Path::new("/dev").join(entry.file_name()))
    })
}

/// One conversation on the port; ends only by an error of the port, or of a host that does not
/// read.
async fn converse(device: &Path, operator: Operator) -> io::Result<()> {
    let port = Port::open(device)?;
    let (ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
    let (reader, writer) = tokio::io::split(theirs);
    tokio::select! {
        ended = session::serve(reader, writer, operator, None) => ended,
        ended = pump(&port, ours) => ended,
    }
}

async fn pump(port: &Port, conversation: tokio::io::DuplexStream) -> io::Result<()> {
    let (mut from_session, mut to_session) = tokio::io::split(conversation);
    let inward = async {
        let mut buffer = [0; 4096];
        loop {
            let length = port.read(&mut buffer).await?;
            to_session.write_all(&buffer[..length]).await?;
        }
    };
    let outward = async {
        let mut buffer = [0; 4096];
        loop {
            let length = from_session.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            port.write_all(&buffer[..length]).await?;
        }
    };
    tokio::select! {
        ended = inward => ended,
        ended = outward => ended,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal stands in for the port: a character device with a reader on its other side.
    #[tokio::test]
    async fn a_long_answer_reaches_a_slow_host() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        const BYTES: usize = 256 * 1024;
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let port = Port::open(Path::new(name.to_str().unwrap())).unwrap();

        let (mut session, ours) = tokio::io::duplex(BUFFER_BYTES);
        tokio::spawn(async move { pump(&port, ours).await });
        // No blocking task, whose end the runtime would wait for when the test fails.
        let (all_there, host) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut host = std::fs::File::from(master);
            let (mut got, mut buffer) = (0, [0; 512]);
            while got < BYTES {
                std::thread::sleep(std::time::Duration::from_micros(200));
                got += std::io::Read::read(&mut host, &mut buffer).unwrap();
            }
            all_there.send(()).unwrap();
        });
        let answer = async {
            session.write_all(&vec![b'x'; BYTES]).await.unwrap();
            host.await.unwrap();
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), answer)
            .await
            .expect("everything arrives");
    }

    #[test]
    fn the_port_is_found_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        for (port, name) in [("vport1p1", "other"), ("vport2p3", "wow.control\n")] {
            std::fs::create_dir(dir.path().join(port)).unwrap();
            std::fs::write(dir.path().join(port).join("name"), name).unwrap();
        }
        assert_eq!(find(dir.path()), Some(PathBuf::from("/dev/vport2p3")));
        assert_eq!(find(&dir.path().join("missing")), None);
    }
}
