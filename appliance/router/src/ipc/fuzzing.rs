//! An entrance for fuzzers: what a client may send down the control socket.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::lines::{Line, Lines};
use super::{operator, session};
use crate::api::{Op, REQUEST_BYTES_MAX};

/// Reads `stream` as requests.
pub fn requests(mut stream: &[u8]) {
    let mut lines = Lines::new(REQUEST_BYTES_MAX);
    while let Some(line) = next(&mut lines, &mut stream) {
        if let Line::Text(text) = &line {
            assert!(text.len() <= REQUEST_BYTES_MAX && !text.contains(&b'\n'));
        }
        if let Ok(Some(request)) = session::request(line)
            && let Op::Ping { target, .. } | Op::Resolve { target } | Op::Trace { target } =
                request.op
        {
            operator::target(&target);
        }
    }
}

/// A slice is always ready to be read.
fn next(lines: &mut Lines, stream: &mut &[u8]) -> Option<Line> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(lines.next(stream)).poll(&mut context) {
        Poll::Ready(line) => line.expect("a slice has no errors"),
        Poll::Pending => unreachable!("a slice never makes wait"),
    }
}
