//! Why a command did not do what it was asked, and the exit code that says so.

use std::process::ExitCode;

use quipu_client::{AppendError, BusError, ReadError};

use crate::output::note;

/// A command's failure; its text is for people, on standard error.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The answer is no: a conflict, refused lines, damage. Exit code 1.
    No(String),
    /// The command makes no sense as given. Exit code 2.
    Usage(String),
    /// A log, file or disk cannot be reached or opened. Exit code 3.
    Unreachable(String),
    /// Whoever read the output has gone (`| head`): there is nobody to tell. Exit code 0.
    ReaderGone,
}

impl Failure {
    /// Says it on standard error and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        let (text, code) = match self {
            Self::No(text) => (text, 1),
            Self::Usage(text) => (text, 2),
            Self::Unreachable(text) => (text, 3),
            Self::ReaderGone => return ExitCode::SUCCESS,
        };
        note(format_args!("quipu: {text}"));
        ExitCode::from(code)
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Corruption(_) | ReadError::PastEnd { .. } => Self::No(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}

impl From<BusError> for Failure {
    fn from(error: BusError) -> Self {
        match error {
            BusError::Read(error) => error.into(),
            BusError::Append(error) => error.into(),
            BusError::Name { .. } => Self::Usage(error.to_string()),
            _ => Self::No(error.to_string()),
        }
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Invalid(_) => Self::Usage(error.to_string()),
            AppendError::Read(ReadError::Corruption(_)) => Self::No(error.to_string()),
            AppendError::Conflict(_) | AppendError::IdConflict { .. } => {
                Self::No(error.to_string())
            }
            _ => Self::Unreachable(error.to_string()),
        }
    }
}
