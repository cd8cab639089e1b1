//! What can go wrong with a connection, and how a server's error becomes a caller's.

use quipu_protocol::Fault;
use quipu_types::{AppendError, ExpectedVersion, ReadError, Uuid, Version, VersionConflict};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The address is none.
    #[error("{given:?} is no address of a server: {problem}")]
    Address {
        /// What was given.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The address asks for TLS.
    #[error("{given}: TLS is not there yet, use quipu:// on a network that you trust")]
    Tls {
        /// What was given.
        given: String,
    },
    /// There is no tokio runtime to run the connection.
    #[error("connect inside a tokio runtime: it runs the connection")]
    NoRuntime,
    /// No server answers there.
    #[error("cannot reach {address}: {problem}")]
    Unreachable {
        /// Where.
        address: String,
        /// What the system, or the server, said.
        problem: String,
    },
    /// The server and this client do not fit together.
    #[error("{address} does not fit: {problem}")]
    Incompatible {
        /// Where.
        address: String,
        /// What does not fit.
        problem: String,
    },
    /// Another log answers.
    #[error("{address} serves log {actual}, not log {expected}")]
    OtherLog {
        /// Where.
        address: String,
        /// The log that was expected.
        expected: Uuid,
        /// The log that answers.
        actual: Uuid,
    },
}

impl ConnectError {
    /// Whether another try may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Why a connection is over for good, told to everybody who asks from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    OtherLog { expected: Uuid, actual: Uuid },
    Incompatible(String),
    Closed,
}

impl Ending {
    /// What an append that may or may not have been stored before is told, or one that was not.
    pub(super) fn append_error(&self, uncertain: bool) -> AppendError {
        if uncertain {
            return AppendError::OutcomeUnknown(format!("sent, and then: {}", self.read_error()));
        }
        match self {
            Self::OtherLog { expected, actual } => {
                AppendError::OtherLog { expected: *expected, actual: *actual }
            }
            Self::Incompatible(problem) => AppendError::Refused(problem.clone()),
            Self::Closed => AppendError::Closed,
        }
    }

    pub(super) fn read_error(&self) -> ReadError {
        match self {
            Self::OtherLog { expected, actual } => {
                ReadError::OtherLog { given: *expected, actual: *actual }
            }
            Self::Incompatible(problem) => ReadError::Refused(problem.clone()),
            Self::Closed => ReadError::Closed,
        }
    }
}

/// What a server's answer to an append means. `uncertain`: an earlier sending of the same append
/// may have been stored, so only an answer that looked its ids up says that it was not.
pub(super) fn append_error(fault: Fault, uncertain: bool) -> AppendError {
    let error = match fault {
        Fault::Append(error) => error,
        Fault::Read(error) => AppendError::Read(error),
        fault if fault.is_outcome_unknown() => AppendError::OutcomeUnknown(fault.to_string()),
        fault if fault.is_retryable() => AppendError::NotWritten(fault.to_string()),
        fault => AppendError::Refused(fault.to_string()),
    };
    match error {
        AppendError::Conflict(conflicts) if uncertain && conflicts.iter().any(may_yet_be_met) => {
            let error = AppendError::Conflict(conflicts);
            AppendError::OutcomeUnknown(format!("sent again, and then: {error}"))
        }
        AppendError::Conflict(_)
        | AppendError::IdConflict { .. }
        | AppendError::OutcomeUnknown(_) => error,
        error if uncertain => AppendError::OutcomeUnknown(format!("sent again, and then: {error}")),
        error => error,
    }
}

/// What an earlier connection still carries may bring the aggregate to where it is expected, and
/// then the earlier sending is stored after all.
fn may_yet_be_met(conflict: &VersionConflict) -> bool {
    match conflict.expected {
        ExpectedVersion::Exact(expected) => conflict.actual < expected,
        ExpectedVersion::StreamExists => conflict.actual == Version::NONE,
        ExpectedVersion::Any | ExpectedVersion::NoStream => false,
    }
}

/// What a server's answer to anything else means.
pub(super) fn read_error(fault: Fault) -> ReadError {
    match fault {
        Fault::Read(error) => error,
        fault if fault.is_retryable() => ReadError::Unavailable(fault.to_string()),
        fault => ReadError::Refused(fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use quipu_types::{AggregateKey, Invalid};

    use super::*;

    #[test]
    fn a_refusal_says_that_nothing_was_written_only_if_nothing_can_have_been() {
        let full = || Fault::Append(AppendError::NoSpace("full".to_owned()));
        assert_eq!(append_error(full(), false), AppendError::NoSpace("full".to_owned()));
        let unknown = append_error(full(), true);
        assert!(unknown.is_outcome_unknown() && unknown.to_string().contains("full"), "{unknown}");
        let conflict = |expected, actual| {
            let (key, expected) = (AggregateKey::new("Call", "1"), Version(expected));
            let expected = ExpectedVersion::Exact(expected);
            AppendError::Conflict(vec![VersionConflict { key, expected, actual: Version(actual) }])
        };
        assert_eq!(append_error(conflict(1, 2).into(), true), conflict(1, 2), "for good");
        assert!(append_error(conflict(2, 1).into(), true).is_outcome_unknown(), "not yet");
        assert_eq!(append_error(conflict(2, 1).into(), false), conflict(2, 1));
        // A limit that shrank, or a stored copy that cannot be read, says nothing of before.
        for error in [AppendError::Invalid(Invalid::NoEvents), AppendError::Read(ReadError::Closed)]
        {
            assert!(append_error(error.clone().into(), true).is_outcome_unknown(), "{error}");
            assert_eq!(append_error(error.clone().into(), false), error);
        }
        let fault = append_error(Fault::Server("x".to_owned()), false);
        assert!(!fault.is_retryable() && !fault.is_outcome_unknown(), "{fault}");
    }
}
