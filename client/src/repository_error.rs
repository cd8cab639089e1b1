//! Why an aggregate was not loaded, not saved, or not changed.

use quipu_types::{AggregateKey, AppendError, Position, ReadError, Uuid, Version};

use crate::aggregates::Inapplicable;
use crate::codec_error::{DecodeError, EncodeError};

/// Why an aggregate cannot be loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Its events cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// One of its records is no event of it.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// One of its events does not belong into its state.
    #[error(transparent)]
    Fold(Box<FoldError>),
    /// A state was to take another event than the one after its last.
    #[error("{key}: expected its version {expected}, got version {given} at position {position}")]
    NotTheNext {
        /// The aggregate.
        key: AggregateKey,
        /// The version that comes next.
        expected: Version,
        /// The version that came, perhaps of another aggregate.
        given: Version,
        /// Where it stands.
        position: Position,
    },
    /// A version that the aggregate has not reached.
    #[error("{key}: is at version {actual}, there is no version {given}")]
    NoSuchVersion {
        /// The aggregate.
        key: AggregateKey,
        /// The version asked for.
        given: Version,
        /// The newest there is.
        actual: Version,
    },
}

/// A stored event that does not belong into the state before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{key}: its state cannot take event {event_id} ({event_type}, version {version}, \
     position {position}): {reason}"
)]
pub struct FoldError {
    /// The aggregate.
    pub key: AggregateKey,
    /// The event's version.
    pub version: Version,
    /// The event's position.
    pub position: Position,
    /// The event's id.
    pub event_id: Uuid,
    /// The event's type.
    pub event_type: String,
    /// What the aggregate said.
    pub reason: Inapplicable,
}

/// Why aggregates were not saved. They keep their uncommitted events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// An event cannot be written. Nothing was appended.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The log refused, or does not know.
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Why a decision did not come to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecuteError<R> {
    /// The aggregate refused.
    #[error("{0}")]
    Refused(R),
    /// The aggregate cannot be loaded.
    #[error(transparent)]
    Load(LoadError),
    /// The decision's own event does not belong into the state: the aggregate contradicts itself.
    #[error("{key}: its state cannot take what it decided: {reason}")]
    Contradiction {
        /// The aggregate.
        key: AggregateKey,
        /// What it said.
        reason: Inapplicable,
    },
    /// It was not saved; a conflict only after every retry.
    #[error(transparent)]
    Save(SaveError),
}

/// Whether an error says that somebody else was faster, so that the whole may be tried again.
pub trait IsConflict {
    /// Whether somebody else was faster.
    fn is_conflict(&self) -> bool;
}

impl IsConflict for SaveError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Append(AppendError::Conflict(_)))
    }
}

impl<R> IsConflict for ExecuteError<R> {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Save(error) if error.is_conflict())
    }
}
