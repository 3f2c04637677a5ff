//! Bounded reading and writing on a connection: so many bytes, until then.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// One line of at most `bytes_max`, without its end.
pub fn read_line(
    stream: &mut TcpStream,
    bytes_max: usize,
    deadline: Instant,
) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut part = [0; 16 * 1024];
    loop {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        let count = match stream.read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(late(error)),
        };
        let end = part[..count].iter().position(|byte| *byte == b'\n');
        line.extend_from_slice(&part[..end.unwrap_or(count)]);
        if line.len() > bytes_max {
            return Err(io::Error::other(format!("more than {bytes_max} bytes")));
        }
        if end.is_some() {
            return Ok(line);
        }
    }
}

/// A line and its end.
pub fn write_line(stream: &mut TcpStream, line: &[u8], deadline: Instant) -> io::Result<()> {
    for mut part in [line, b"\n"] {
        while !part.is_empty() {
            stream.set_write_timeout(Some(remaining(deadline)?))?;
            match stream.write(part) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => part = &part[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(late(error)),
            }
        }
    }
    stream.flush()
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    match remaining.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(remaining),
    }
}

fn late(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (here, listener.accept().unwrap().0)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn a_line_arrives_whole_and_what_is_too_long_or_late_does_not() {
        let (mut a, mut b) = pair();
        let long = vec![b'x'; 100_000];
        let sent = std::thread::spawn(move || {
            write_line(&mut a, &long, soon()).unwrap();
            write_line(&mut a, b"short", soon()).unwrap();
            a
        });
        assert_eq!(read_line(&mut b, 100_000, soon()).unwrap().len(), 100_000);
        let a = sent.join().unwrap();
        drop(a);
        let (mut a, mut b) = pair();
        write_line(&mut a, &[b'y'; 20], soon()).unwrap();
        assert!(read_line(&mut b, 19, soon()).is_err());
        let (_a, mut b) = pair();
        let late = read_line(&mut b, 10, Instant::now() + Duration::from_millis(50));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
