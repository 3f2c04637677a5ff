//! How failures end the program: what is said, and with which exit code.

use std::process::ExitCode;

use wow_overlay::membership::{CertificateError, TicketError};

/// Something failed.
const FAILED: u8 = 1;

/// The ticket or the certificate was refused: trying again with the same one is useless.
const REFUSED: u8 = 3;

/// A client verb that ran as asked, with a negative outcome that it has printed itself.
#[derive(Debug, thiserror::Error)]
#[error("the outcome is negative")]
pub struct Negative;

/// Says what went wrong and chooses the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if error.is::<Negative>() {
        return ExitCode::from(FAILED);
    }
    eprintln!("wow: {error:#}");
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    let refused = error.chain().any(|cause| {
        cause.downcast_ref::<TicketError>().is_some()
            || cause.downcast_ref::<CertificateError>().is_some()
    });
    if refused { REFUSED } else { FAILED }
}
