//! The outer datagram.
