//! What can go wrong with an append or a read, with the facts a caller acts on.

use uuid::Uuid;

use crate::aggregate::{AggregateKey, CLIENT_SYSTEM_TYPES};
use crate::position::Position;
use crate::version::{ExpectedVersion, Version};

/// Input that can never be stored as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A name has no characters.
    #[error("{field} is empty")]
    Empty {
        /// The field.
        field: &'static str,
    },
    /// A text is longer than its limit.
    #[error("{field} is too long: {given} bytes, the limit is {limit}")]
    TooLong {
        /// The field.
        field: &'static str,
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        given: usize,
    },
    /// A text has a control character.
    #[error("{field} has the control character U+{given:04X} at byte {at}")]
    ControlCharacter {
        /// The field.
        field: &'static str,
        /// Where, in bytes.
        at: usize,
        /// Its code point.
        given: u32,
    },
    /// The event id is nil.
    #[error("event id is nil: give each event an id of its own")]
    NilEventId,
    /// The same event id stands twice in one append.
    #[error("event id {event_id} stands twice in this append")]
    RepeatedEventId {
        /// The id.
        event_id: Uuid,
    },
    /// The same aggregate has two expectations in one append.
    #[error("aggregate {key} has two expectations in this append: at most one is allowed")]
    RepeatedExpectation {
        /// The aggregate.
        key: AggregateKey,
    },
    /// An instant outside the years RFC 3339 can spell.
    #[error("timestamp {micros} (microseconds since 1970) is outside the years -9999 to 9999")]
    Timestamp {
        /// What was given.
        micros: i64,
    },
    /// Payload and custom metadata together are too large.
    #[error("event is too large: {given} bytes of data and custom metadata, the limit is {limit}")]
    EventTooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        given: usize,
    },
    /// The append has no events.
    #[error("append has no events")]
    NoEvents,
    /// The append has too many events.
    #[error("append has too many events: {given}, the limit is {limit}")]
    TooManyEvents {
        /// Events allowed.
        limit: usize,
        /// Events given.
        given: usize,
    },
    /// The append is too large.
    #[error("append is too large: {given} bytes as stored, the limit is {limit}")]
    AppendTooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        given: usize,
    },
    /// Bytes that should be JSON are not.
    #[error("{field} is not JSON: {problem}")]
    NotJson {
        /// The field.
        field: &'static str,
        /// What the parser said.
        problem: String,
    },
    /// JSON that should be an object is something else.
    #[error("{field} is not a JSON object")]
    NotAnObject {
        /// The field.
        field: &'static str,
    },
    /// A client wrote to a type of the system.
    #[error("aggregate type {given:?} begins with '$', which belongs to the system")]
    SystemType {
        /// The type given.
        given: String,
    },
    /// A system append wrote to another type than those that clients keep.
    #[error(
        "aggregate type {given:?} is none that a system append writes: {}",
        CLIENT_SYSTEM_TYPES.join(", ")
    )]
    NotSystemType {
        /// The type given.
        given: String,
    },
}

/// An aggregate that was not at the expected version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: expected {expected}, is at version {actual}")]
pub struct VersionConflict {
    /// The aggregate.
    pub key: AggregateKey,
    /// What the append expected.
    pub expected: ExpectedVersion,
    /// The version it is at.
    pub actual: Version,
}

/// Why a known event id could not be taken as a duplicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdConflictReason {
    /// It is stored with other content.
    OtherContent,
    /// Other events of the same append are not stored.
    PartlyKnown,
}

/// Damaged stored data. It is reported, never skipped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("segment {segment} is damaged ({}): {problem}", range(*.first, *.last))]
pub struct Corruption {
    /// Number of the segment.
    pub segment: u64,
    /// First position that may be affected.
    pub first: Position,
    /// Last position that may be affected; `Position::MAX` where it is not known.
    pub last: Position,
    /// What was found, and where, in words for an operator.
    pub problem: String,
}

/// Why an append was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// It can never be stored as it is. Nothing was written.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Aggregates were not at their expected versions; all that failed are listed. Nothing was
    /// written.
    #[error("version conflict: {}", list(.0))]
    Conflict(Vec<VersionConflict>),
    /// An event id is known and the append is no exact repetition. Nothing was written.
    #[error(
        "event id {event_id} is already stored at position {position} {}",
        reason_text(*.reason)
    )]
    IdConflict {
        /// The first such id.
        event_id: Uuid,
        /// Where it is stored.
        position: Position,
        /// Why it is no duplicate.
        reason: IdConflictReason,
    },
    /// No space to prepare segments. Nothing was written; the log recovers when there is space. One
    /// that had not even the space to be opened for writing is opened again.
    #[error("no space: {0}")]
    NoSpace(String),
    /// The queue is full (only `try_append` says this). Nothing was written.
    #[error("overloaded: {queued_bytes} bytes in {queued_appends} appends are waiting")]
    Overloaded {
        /// Bytes that wait.
        queued_bytes: usize,
        /// Appends that wait.
        queued_appends: usize,
    },
    /// The write may or may not have reached the disk. Submit again with the same ids after the
    /// log is open again: they make it safe.
    #[error("outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// The log stopped before this append was written. Nothing was written.
    #[error("not written: {0}")]
    NotWritten(String),
    /// The log takes no appends. Nothing was written.
    #[error("the log is read-only: {0}")]
    ReadOnly(String),
    /// The log was closed. Nothing was written.
    #[error("the log is closed")]
    Closed,
    /// The stored copy of a known event could not be read to compare it. Nothing was written.
    #[error("cannot compare with the stored event: {0}")]
    Read(#[from] ReadError),
    /// A server took it for wrong, or has a fault of its own. Nothing was written.
    #[error("refused by the server: {0}")]
    Refused(String),
    /// The server's address now leads to another log. Nothing was written there.
    #[error("the server now serves log {actual}, not log {expected}")]
    OtherLog {
        /// The log that the connection began with.
        expected: Uuid,
        /// The log that answers now.
        actual: Uuid,
    },
}

impl AppendError {
    /// Whether the same append may succeed later without any change to it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoSpace(_)
            | Self::Overloaded { .. }
            | Self::OutcomeUnknown(_)
            | Self::NotWritten(_) => true,
            Self::Invalid(_)
            | Self::Conflict(_)
            | Self::IdConflict { .. }
            | Self::ReadOnly(_)
            | Self::Closed
            | Self::Read(_)
            | Self::Refused(_)
            | Self::OtherLog { .. } => false,
        }
    }

    /// Whether the append may have been stored although it failed.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(self, Self::OutcomeUnknown(_))
    }
}

/// Why a read stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The data that is asked for is damaged.
    #[error(transparent)]
    Corruption(#[from] Corruption),
    /// The disk refused.
    #[error("cannot read segment {segment}: {problem}")]
    Io {
        /// Number of the segment.
        segment: u64,
        /// What the system said.
        problem: String,
    },
    /// A checkpoint, or a single record asked for, that lies beyond the end of the log.
    #[error("position {given} lies past the end of the log, {end}")]
    PastEnd {
        /// The position asked for.
        given: Position,
        /// The last position there is.
        end: Position,
    },
    /// A checkpoint of another log, or another log than before behind a server's address.
    #[error("log {given} is meant; this is log {actual}")]
    OtherLog {
        /// The log it was saved for, or that a connection began with.
        given: Uuid,
        /// The log there is.
        actual: Uuid,
    },
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// No server was reached in time.
    #[error("no answer from the server: {0}")]
    Unavailable(String),
    /// A server took the request for wrong, or has a fault of its own.
    #[error("refused by the server: {0}")]
    Refused(String),
}

impl ReadError {
    /// Whether the same read may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Unavailable(_))
    }
}

fn range(first: Position, last: Position) -> String {
    match last {
        Position::MAX => format!("position {first} and after"),
        last if last == first => format!("position {first}"),
        last => format!("positions {first} to {last}"),
    }
}

fn list(conflicts: &[VersionConflict]) -> String {
    conflicts.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn reason_text(reason: IdConflictReason) -> &'static str {
    match reason {
        IdConflictReason::OtherContent => "with other content",
        IdConflictReason::PartlyKnown => "while other events of this append are not",
    }
}
