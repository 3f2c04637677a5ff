//! SOCKS5 (RFC 1928) as far as it takes to connect: no authentication, no listening, no UDP.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const NO_METHOD: u8 = 0xff;
const CONNECT: u8 = 1;

/// A client says what it wants within this.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// Where a client wants to go.
#[derive(Debug, PartialEq, Eq)]
pub struct Destination {
    /// A name, or an address as text.
    pub host: String,
    pub port: u16,
}

/// Why not, in SOCKS' numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no room, or no way")]
    Failure = 1,
    #[error("it is not in the pool")]
    NotAllowed = 2,
    #[error("no such node, or it does not answer")]
    Unreachable = 4,
    #[error("the node refuses the connection")]
    Refused = 5,
    #[error("only CONNECT is served")]
    NoCommand = 7,
    #[error("an unknown kind of address")]
    NoAddress = 8,
}

/// Reads what a client wants.
///
/// # Errors
/// It speaks something else, or is too slow.
pub async fn listen_to<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut S,
) -> io::Result<Result<Destination, Refusal>> {
    tokio::time::timeout(GREETING_MAX, greet(client)).await?
}

async fn greet<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut S,
) -> io::Result<Result<Destination, Refusal>> {
    if client.read_u8().await? != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut methods = vec![0; client.read_u8().await?.into()];
    client.read_exact(&mut methods).await?;
    if !methods.contains(&NO_AUTHENTICATION) {
        client.write_all(&[VERSION, NO_METHOD]).await?;
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    client.write_all(&[VERSION, NO_AUTHENTICATION]).await?;

    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let [version, command, _, kind] = head;
    if version != VERSION {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let host = match kind {
        1 => {
            let mut octets = [0; 4];
            client.read_exact(&mut octets).await?;
            std::net::Ipv4Addr::from(octets).to_string()
        }
        3 => {
            let mut name = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut name).await?;
            String::from_utf8_lossy(&name).into_owned()
        }
        4 => {
            let mut octets = [0; 16];
            client.read_exact(&mut octets).await?;
            std::net::Ipv6Addr::from(octets).to_string()
        }
        _ => return Ok(Err(Refusal::NoAddress)),
    };
    let port = client.read_u16().await?;
    Ok(match command {
        CONNECT => Ok(Destination { host, port }),
        _ => Err(Refusal::NoCommand),
    })
}

/// Says that the connection is there.
pub async fn accept<S: AsyncWrite + Unpin>(client: &mut S) -> io::Result<()> {
    reply(client, 0).await
}

/// Says why it is not.
pub async fn refuse<S: AsyncWrite + Unpin>(client: &mut S, refusal: Refusal) -> io::Result<()> {
    reply(client, refusal as u8).await?;
    client.shutdown().await
}

/// Which address the connection goes out from concerns nobody.
async fn reply<S: AsyncWrite + Unpin>(client: &mut S, code: u8) -> io::Result<()> {
    let reply = [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0];
    client.write_all(&reply).await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn say(bytes: &[u8]) -> (io::Result<Result<Destination, Refusal>>, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(1024);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let heard = listen_to(&mut server).await;
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        (heard, answer)
    }

    #[tokio::test]
    async fn addresses_and_names_are_read() {
        let check = async |request: &[u8], host: &str| {
            let (heard, answer) = say(&[&[5, 2, 2, 0], request].concat()).await;
            let wanted = heard.unwrap().unwrap();
            assert_eq!((&*wanted.host, wanted.port), (host, 80));
            assert_eq!(answer, [5, 0]);
        };
        check(&[5, 1, 0, 1, 10, 128, 0, 9, 0, 80], "10.128.0.9").await;
        check(b"\x05\x01\0\x03\x04head\0\x50", "head").await;
        let mut v6 = vec![5, 1, 0, 4];
        v6.extend([0; 15]);
        v6.extend([1, 0, 80]);
        check(&v6, "::1").await;
    }

    #[tokio::test]
    async fn what_is_not_served_is_refused_by_its_number() {
        let (heard, _) = say(&[5, 1, 0, 5, 2, 0, 1, 10, 128, 0, 9, 0, 80]).await;
        assert_eq!(heard.unwrap(), Err(Refusal::NoCommand));
        let (heard, _) = say(&[5, 1, 0, 5, 1, 0, 9]).await;
        assert_eq!(heard.unwrap(), Err(Refusal::NoAddress));
        let (heard, answer) = say(&[5, 1, 2]).await;
        assert!(heard.is_err());
        assert_eq!(answer, [5, 0xff]);
        for rubbish in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[4, 1, 0, 80], &[5], &[]] {
            assert!(say(rubbish).await.0.is_err(), "{rubbish:?}");
        }
    }
}
