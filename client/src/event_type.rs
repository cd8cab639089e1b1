//! Typed events: a struct whose JSON is the payload, and how older JSON is read.

use std::borrow::Cow;

use quipu_types::Record;
use quipu_types::event::JSON_CONTENT_TYPE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::codec_error::{DecodeError, DecodeProblem, EncodeError};
use crate::unfit;

/// Brings an event's JSON from one schema version to the next; an error says why it cannot.
pub type Upcaster = fn(&mut Map<String, Value>) -> Result<(), String>;

/// One type of event. Its payload is the JSON of the struct.
///
/// Any change of its fields is a new schema version: one upcaster more, at the end of the list.
pub trait EventType: Serialize + DeserializeOwned {
    /// The event type's name in the log.
    const NAME: &'static str;
    /// The type of the aggregates it belongs to.
    const AGGREGATE_TYPE: &'static str;
    /// How older JSON is brought forward: the first takes schema version 1 to 2, and so on.
    const UPCASTERS: &'static [Upcaster] = &[];

    /// The schema version that is written: one more than there are upcasters.
    #[must_use]
    fn schema_version() -> u16 {
        u16::try_from(Self::UPCASTERS.len() + 1).unwrap_or(u16::MAX)
    }
}

/// An event of an aggregate: usually an enum with one variant for each [`EventType`].
pub trait AggregateEvent: Sized + std::fmt::Debug + Send + Sync {
    /// The event as the log stores it.
    ///
    /// # Errors
    /// That a field has no JSON.
    fn encode(&self) -> Result<EncodedEvent, EncodeError>;

    /// The event that a record holds.
    ///
    /// # Errors
    /// That it is none of these, or does not fit.
    fn decode(record: &Record) -> Result<Self, DecodeError>;
}

/// What of an event goes into the log, without id, time and metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedEvent {
    /// What happened.
    pub event_type: Cow<'static, str>,
    /// Version of the payload's schema.
    pub schema_version: u16,
    /// The JSON.
    pub payload: Vec<u8>,
}

/// The event as the log stores it.
///
/// # Errors
/// That a field has no JSON, or is nested too deep to be read again.
pub fn encode_event<E: EventType>(event: &E) -> Result<EncodedEvent, EncodeError> {
    let not_json = |problem| EncodeError::NotJson { event_type: E::NAME.to_owned(), problem };
    Ok(EncodedEvent {
        event_type: Cow::Borrowed(E::NAME),
        schema_version: E::schema_version(),
        payload: unfit::to_vec(event).map_err(not_json)?,
    })
}

/// The event of this type that a record holds, whatever schema version it was written with.
///
/// # Errors
/// That it is of another type, of a newer schema version, or does not fit.
pub fn decode_event<E: EventType>(record: &Record) -> Result<E, DecodeError> {
    let fault = |problem: DecodeProblem| problem.of(record);
    if record.event_type() != E::NAME || record.aggregate_type() != E::AGGREGATE_TYPE {
        return Err(fault(DecodeProblem::UnknownType));
    }
    if record.content_type() != JSON_CONTENT_TYPE {
        return Err(fault(DecodeProblem::NotJson { given: record.content_type().to_owned() }));
    }
    let (given, known) = (record.schema_version(), E::schema_version());
    let unfit = |problem| fault(DecodeProblem::Unfit { schema_version: given, problem });
    match given {
        0 => Err(fault(DecodeProblem::NoSchema)),
        given if given > known => Err(fault(DecodeProblem::NewerSchema { given, known })),
        given if given == known => unfit::from_slice(record.payload()).map_err(unfit),
        _ => {
            let mut fields = unfit::from_slice(record.payload()).map_err(unfit)?;
            upcast::<E>(&mut fields, given).map_err(fault)?;
            unfit::from_fields(fields).map_err(unfit)
        }
    }
}

fn upcast<E: EventType>(fields: &mut Map<String, Value>, given: u16) -> Result<(), DecodeProblem> {
    for (from, upcaster) in (1..).zip(E::UPCASTERS).skip(usize::from(given) - 1) {
        upcaster(fields).map_err(|problem| DecodeProblem::NotUpcast { from, problem })?;
    }
    Ok(())
}
