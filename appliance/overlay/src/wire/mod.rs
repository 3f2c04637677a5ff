//! Wire formats: the outer datagram and the frames inside a session.

pub mod outer;
