//! Why an event cannot be written as JSON, or a record cannot be read as an event.

use quipu_types::{Position, Record, Uuid};

/// Why an event cannot be written. Nothing was appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A field's value has no JSON, or none that could be read again.
    #[error("{event_type} cannot be written as JSON: {problem}")]
    NotJson {
        /// The event's type.
        event_type: String,
        /// What the serialiser said.
        problem: String,
    },
    /// The user is the nil UUID, which would be stored as "nobody".
    #[error("the nil UUID is no user: leave the user out")]
    NilUser,
    /// The custom metadata has no JSON.
    #[error("custom metadata cannot be written as JSON: {problem}")]
    Custom {
        /// What the serialiser said.
        problem: String,
    },
}

/// A record that is no event of the types asked for. The caller chooses: park, skip, or stop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("event {event_id} at position {position} ({aggregate_type} {event_type}): {problem}")]
pub struct DecodeError {
    /// The event's id.
    pub event_id: Uuid,
    /// Its place in the log.
    pub position: Position,
    /// The type of the aggregate it belongs to.
    pub aggregate_type: String,
    /// Its type.
    pub event_type: String,
    /// What is wrong with it.
    pub problem: DecodeProblem,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeProblem {
    /// No such event is known of this aggregate type.
    #[error("this program knows no such event")]
    UnknownType,
    /// A newer program wrote it.
    #[error("schema version {given} is newer than this program's, {known}")]
    NewerSchema {
        /// The record's.
        given: u16,
        /// The newest that this program knows.
        known: u16,
    },
    /// Schema versions begin with 1.
    #[error("schema version 0 does not exist: they begin with 1")]
    NoSchema,
    /// The payload is something else than JSON.
    #[error("content type {given:?} is not JSON")]
    NotJson {
        /// The record's content type.
        given: String,
    },
    /// The JSON does not fit the type.
    #[error("its JSON does not fit schema version {schema_version}: {problem}")]
    Unfit {
        /// The record's schema version.
        schema_version: u16,
        /// The field, and what is wrong with it: no value is repeated, but by what the host's own
        /// types say.
        problem: String,
    },
    /// JSON of an older schema version could not be brought forward.
    #[error("its JSON cannot be brought from schema version {from} to {}: {problem}", from + 1)]
    NotUpcast {
        /// The version it could not be brought on from.
        from: u16,
        /// What the upcaster said.
        problem: String,
    },
}

impl DecodeProblem {
    /// The error of the record that has this problem.
    #[must_use]
    pub fn of(self, record: &Record) -> DecodeError {
        DecodeError {
            event_id: record.event_id(),
            position: record.position(),
            aggregate_type: record.aggregate_type().to_owned(),
            event_type: record.event_type().to_owned(),
            problem: self,
        }
    }
}
