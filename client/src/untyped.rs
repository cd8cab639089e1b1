//! Events whose types are not known to the program: any JSON.

use std::borrow::Cow;

use quipu_types::Record;
use quipu_types::event::JSON_CONTENT_TYPE;
use serde_json::Value;

use crate::codec_error::{DecodeError, DecodeProblem, EncodeError};
use crate::event_type::{AggregateEvent, EncodedEvent};
use crate::unfit;

/// An event of a type that the program need not know.
///
/// A number that no 64-bit integer or double holds loses digits here, and one beyond the greatest
/// double cannot be read; the record keeps them.
#[derive(Clone, Debug, PartialEq)]
pub struct UntypedEvent {
    /// What happened.
    pub event_type: String,
    /// Version of the JSON's schema.
    pub schema_version: u16,
    /// The JSON.
    pub data: Value,
}

impl AggregateEvent for UntypedEvent {
    fn encode(&self) -> Result<EncodedEvent, EncodeError> {
        let event_type = self.event_type.clone();
        let not_json = |problem| EncodeError::NotJson { event_type, problem };
        Ok(EncodedEvent {
            event_type: Cow::Owned(self.event_type.clone()),
            schema_version: self.schema_version,
            payload: unfit::to_vec(&self.data).map_err(not_json)?,
        })
    }

    fn decode(record: &Record) -> Result<Self, DecodeError> {
        let schema_version = record.schema_version();
        if record.content_type() != JSON_CONTENT_TYPE {
            let given = record.content_type().to_owned();
            return Err(DecodeProblem::NotJson { given }.of(record));
        }
        let unfit = |problem| DecodeProblem::Unfit { schema_version, problem }.of(record);
        let data = unfit::from_slice(record.payload()).map_err(unfit)?;
        Ok(Self { event_type: record.event_type().to_owned(), schema_version, data })
    }
}
