//! Why a log could not be opened.

use crate::options::OptionError;

/// Why a log could not be opened. Nothing was changed in its folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A setting is outside its range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Another process has the log open for writing.
    #[error(
        "the log is in use by {holder}: reach it through that process (--server), or open it \
         read-only"
    )]
    Locked {
        /// Who holds it.
        holder: String,
    },
    /// The folder holds other things.
    #[error("this folder is not a log: it has {found:?} and no LOG file")]
    NotALog {
        /// A file that does not belong to a log.
        found: String,
    },
    /// There is no log to read.
    #[error("there is no log in this folder")]
    NoLog,
    /// A later version of the format.
    #[error("{} has format {found}; this program reads up to {supported}", newer_file(*.segment))]
    Newer {
        /// Number of the segment; 0 for the file LOG.
        segment: u64,
        /// Its format.
        found: u32,
        /// The newest that is known here.
        supported: u32,
    },
    /// Nothing of the log can be read.
    #[error("the log cannot be read: {0}")]
    Unreadable(String),
    /// The system refused.
    #[error("cannot {action}: {error}")]
    Io {
        /// What was tried.
        action: String,
        /// What the system said.
        error: std::io::Error,
    },
}

impl OpenError {
    /// Makes one from what the system said while `action` was tried.
    pub fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |error| Self::Io { action, error }
    }
}

fn newer_file(segment: u64) -> String {
    if segment == 0 { "the file LOG".to_owned() } else { format!("segment {segment}") }
}
