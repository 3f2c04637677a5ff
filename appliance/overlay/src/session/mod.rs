//! Secure sessions.
