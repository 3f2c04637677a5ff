//! What can go wrong with a datagram, told apart by what the sender should do about it.

use std::io;

/// Why a datagram was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// No route, or the network or the neighbour is down: another path, or the same one later.
    #[error("the destination cannot be reached: {0}")]
    Unreachable(io::Error),
    /// Larger than the path takes: smaller datagrams would get through.
    #[error("the datagram is larger than the path takes")]
    TooBig,
    /// No socket of this address family is open.
    #[error("no socket of this address family is open")]
    NoSocket,
    /// A packet filter or the lack of a privilege forbids it.
    #[error("sending is forbidden here: {0}")]
    Forbidden(io::Error),
    /// Anything else; the datagram is lost.
    #[error("{0}")]
    Other(io::Error),
}

/// A failed reception.
#[derive(Debug, thiserror::Error)]
#[error("cannot receive datagrams: {0}")]
pub struct ReceiveError(#[from] pub io::Error);

impl SendError {
    /// A short name for counters and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            SendError::Unreachable(_) => "unreachable",
            SendError::TooBig => "too_big",
            SendError::NoSocket => "no_socket",
            SendError::Forbidden(_) => "forbidden",
            SendError::Other(_) => "other",
        }
    }
}

/// The kernel's verdict on one datagram; `None` means "not now, try again".
pub(crate) fn classify(error: io::Error) -> Option<SendError> {
    Some(match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => return None,
        Some(
            libc::ENETUNREACH
            | libc::EHOSTUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::EADDRNOTAVAIL
            | libc::ECONNREFUSED
            | libc::ENODEV
            | libc::ENXIO,
        ) => SendError::Unreachable(error),
        Some(libc::EMSGSIZE) => SendError::TooBig,
        Some(libc::EPERM | libc::EACCES) => SendError::Forbidden(error),
        _ => SendError::Other(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(errno: i32, reason: Option<&str>) {
        let verdict = classify(io::Error::from_raw_os_error(errno));
        assert_eq!(verdict.as_ref().map(SendError::reason), reason);
    }

    #[test]
    fn verdicts_follow_the_remedy() {
        check(libc::EAGAIN, None);
        // No readiness event announces the end of this one: the datagram is lost, as in any queue.
        check(libc::ENOBUFS, Some("other"));
        check(libc::ENETUNREACH, Some("unreachable"));
        check(libc::EHOSTUNREACH, Some("unreachable"));
        check(libc::EMSGSIZE, Some("too_big"));
        check(libc::EPERM, Some("forbidden"));
        check(libc::EIO, Some("other"));
    }
}
