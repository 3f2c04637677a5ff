//! Why a command failed: PBS's message and PBS's exit code.
//!
//! The codes are OpenPBS's error numbers (pbs_error.h) modulo 256, which is what its commands exit with.

/// The exit code of wrong usage.
pub const USAGE: u8 = 2;

/// PBS's errors that we have use for, by PBS's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Error {
    /// No such job.
    UnknownJob = 15001,
    /// The request makes no sense.
    InvalidRequest = 15004,
    /// Somebody else's.
    Permission = 15007,
    /// The system under us failed.
    System = 15010,
    /// No such signal.
    UnknownSignal = 15013,
    /// A value that the attribute cannot have.
    BadValue = 15014,
    /// Fixed once the job runs.
    Running = 15015,
    /// The job is in the wrong state for it.
    BadState = 15016,
    /// No such queue.
    UnknownQueue = 15018,
    /// The queue takes no jobs.
    QueueDisabled = 15021,
    /// Not a queue for this user.
    QueueAccess = 15022,
    /// Slurm's controller does not answer.
    NoServer = 15034,
    /// No such resource.
    UnknownResource = 15035,
    /// More than there is.
    ExceedsQueue = 15036,
    /// The job may not run twice.
    NotRerunnable = 15038,
    /// No such account.
    BadAccount = 15049,
    /// A dependency on a job that does not exist.
    BadDependency = 15054,
    /// No such node.
    UnknownNode = 15062,
    /// A resource that the job as a whole cannot have.
    InvalidJobResource = 15109,
    /// The job has ended.
    Finished = 15139,
}

impl Error {
    /// The exit code of a command that ended by it.
    pub fn code(self) -> u8 {
        // Truncation is what an exit status does to PBS's numbers.
        (self as u16 & 0xff) as u8
    }

    /// PBS's words for it.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnknownJob => "Unknown Job Id",
            Self::InvalidRequest => "Invalid request",
            Self::Permission => "Unauthorized Request",
            Self::System => "System error",
            Self::UnknownSignal => "Unknown/illegal signal name",
            Self::BadValue => "Illegal attribute or resource value",
            Self::Running => "Cannot modify attribute while job running",
            Self::BadState => "Request invalid for state of job",
            Self::UnknownQueue => "Unknown queue",
            Self::QueueDisabled => "Queue is not enabled",
            Self::QueueAccess => "Access to queue is denied",
            Self::NoServer => "No server to connect to",
            Self::UnknownResource => "Unknown resource",
            Self::ExceedsQueue => "Job exceeds queue resource limits",
            Self::NotRerunnable => "job is not rerunnable",
            Self::BadAccount => "Invalid Account",
            Self::BadDependency => "Invalid Job Dependency",
            Self::UnknownNode => "Unknown node",
            Self::InvalidJobResource => "invalid job resource",
            Self::Finished => "Job has finished",
        }
    }
}

/// A command's end by an error: what it says, and its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Without the command's name.
    pub message: String,
    /// The exit code.
    pub code: u8,
}

impl Failure {
    /// One of PBS's errors in PBS's words.
    pub fn of(error: Error) -> Self {
        Self {
            message: error.text().to_owned(),
            code: error.code(),
        }
    }

    /// One of PBS's errors with what it is about: `Unknown Job Id 99.head`.
    pub fn about(error: Error, what: impl std::fmt::Display) -> Self {
        Self {
            message: format!("{} {what}", error.text()),
            code: error.code(),
        }
    }

    /// One of PBS's errors with Torque's explanation behind it.
    pub fn because(error: Error, why: impl std::fmt::Display) -> Self {
        Self::about(error, format_args!("MSG={why}"))
    }

    /// A value that an option cannot have: `illegal -l value`.
    pub fn illegal(option: char) -> Self {
        Self::usage(format!("illegal -{option} value"))
    }

    /// Wrong usage, said in one line.
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: USAGE,
        }
    }

    /// Something that failed on this machine.
    pub fn system(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            code: 1,
        }
    }

    /// Says it as `command`.
    pub fn report(&self, command: &str) {
        eprintln!("{command}: {}", self.message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_low_byte_of_the_numbers() {
        for (error, code) in [
            (Error::UnknownJob, 153),
            (Error::Permission, 159),
            (Error::BadState, 168),
            (Error::UnknownQueue, 170),
            (Error::ExceedsQueue, 188),
            (Error::Finished, 35),
        ] {
            assert_eq!(error.code(), code, "{error:?}");
        }
    }
}
