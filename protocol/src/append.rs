//! An append and its acknowledgement, in plain fields; wire-protocol.md §6.

use bytes::{BufMut, Bytes, BytesMut};
use quipu_types::limits::{APPEND_EVENTS_HARD_MAX, SHORT_TEXT_BYTES_MAX};
use quipu_types::record::EventBody;
use quipu_types::{
    AggregateKey, Append, AppendOutcome, ExpectedVersion, Invalid, NewEvent, Position, Version,
};

use crate::fields::{
    DecodeError, Fields, put_bool, put_bytes, put_key, put_list, put_text, put_time, put_uuid,
    within,
};
use crate::message::{Kind, Message};

/// The fewest bytes of an event: its fixed fields and eleven lengths.
const EVENT_BYTES_MIN: usize = 16 + 16 + 8 + 2 + 11 * 4;
const EXPECTATION_BYTES_MIN: usize = 8 + 9;
const ANSWER_BYTES: usize = 2_048;
const ANSWER_BYTES_PER_EXPECTATION: usize = 8;

/// An append as it travels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendRequest {
    /// The append.
    pub append: Append,
    /// W3C trace context of the request itself; may be empty, at most 64 bytes.
    pub traceparent: String,
}

impl AppendRequest {
    /// Checks that a message of this append, and any answer to it, may be sent.
    ///
    /// # Errors
    /// That the append is too large.
    pub fn check_fits(&self, message_bytes: usize, bytes_max: usize) -> Result<(), Invalid> {
        check_fits(self.append.expectations.len(), message_bytes, bytes_max)
    }
}

impl From<Append> for AppendRequest {
    fn from(append: Append) -> Self {
        Self { append, traceparent: String::new() }
    }
}

impl Message for AppendRequest {
    const KIND: Kind = Kind::Append;

    fn write(&self, out: &mut BytesMut) {
        put_text(out, &self.traceparent);
        put_list(out, &self.append.expectations, |out, (key, expected)| {
            put_key(out, key);
            put_expected(out, *expected);
        });
        put_list(out, &self.append.events, put_event);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        let BorrowedAppend { events, expectations, traceparent } = BorrowedAppend::read(fields)?;
        let events = events.iter().map(EventBody::to_new_event).collect();
        Ok(Self { append: Append { events, expectations }, traceparent })
    }
}

/// An append to what clients keep in the system's aggregates, as it travels: with the fields of an
/// append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemAppend(pub AppendRequest);

impl Message for SystemAppend {
    const KIND: Kind = Kind::SystemAppend;

    fn write(&self, out: &mut BytesMut) {
        self.0.write(out);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        AppendRequest::read(fields).map(Self)
    }
}

/// An append as it arrives: its events are borrowed from the message, so that what is stored is
/// copied but once, into its place in the frame.
#[derive(Clone, Debug)]
pub struct BorrowedAppend<'a> {
    /// The events, in order.
    pub events: Vec<EventBody<'a>>,
    /// What is expected of aggregates.
    pub expectations: Vec<(AggregateKey, ExpectedVersion)>,
    /// W3C trace context of the request itself; may be empty.
    pub traceparent: String,
}

impl<'a> BorrowedAppend<'a> {
    /// Reads the body of an append.
    ///
    /// # Errors
    /// What makes it malformed, or which limit it breaks.
    pub fn decode(body: &'a Bytes) -> Result<Self, DecodeError> {
        Self::read(&mut Fields::new(body))
    }

    fn read(fields: &mut Fields<'a>) -> Result<Self, DecodeError> {
        let traceparent = fields.text_within("traceparent", SHORT_TEXT_BYTES_MAX)?;
        let count = fields.count(EXPECTATION_BYTES_MIN)?;
        few_enough(count)?;
        let expectations = fields.items(count, |fields| Ok((fields.key()?, expected(fields)?)))?;
        let count = fields.count(EVENT_BYTES_MIN)?;
        few_enough(count)?;
        let events = fields.items(count, event)?;
        Ok(Self { events, expectations, traceparent })
    }

    /// Checks that any answer to the append may be sent, it having come in a message of this size.
    ///
    /// # Errors
    /// That the append is too large.
    pub fn check_fits(&self, message_bytes: usize, bytes_max: usize) -> Result<(), Invalid> {
        check_fits(self.expectations.len(), message_bytes, bytes_max)
    }
}

fn check_fits(expectations: usize, message_bytes: usize, bytes_max: usize) -> Result<(), Invalid> {
    let given = message_bytes + expectations * ANSWER_BYTES_PER_EXPECTATION + ANSWER_BYTES;
    if given > bytes_max {
        return Err(Invalid::AppendTooLarge { limit: bytes_max, given });
    }
    Ok(())
}

fn few_enough(given: usize) -> Result<(), Invalid> {
    if given > APPEND_EVENTS_HARD_MAX {
        return Err(Invalid::TooManyEvents { limit: APPEND_EVENTS_HARD_MAX, given });
    }
    Ok(())
}

pub(crate) fn put_expected(out: &mut BytesMut, expected: ExpectedVersion) {
    let (mode, version) = match expected {
        ExpectedVersion::Any => (0, 0),
        ExpectedVersion::NoStream => (1, 0),
        ExpectedVersion::StreamExists => (2, 0),
        ExpectedVersion::Exact(version) => (3, version.0),
    };
    out.put_u8(mode);
    out.put_u64_le(version);
}

pub(crate) fn expected(fields: &mut Fields) -> Result<ExpectedVersion, DecodeError> {
    let mode = fields.one_of(|mode| (mode <= 3).then_some(mode))?;
    let version = Version(fields.u64()?);
    Ok(match mode {
        0 => ExpectedVersion::Any,
        1 => ExpectedVersion::NoStream,
        2 => ExpectedVersion::StreamExists,
        _ => ExpectedVersion::Exact(version),
    })
}

fn put_event(out: &mut BytesMut, event: &NewEvent) {
    let metadata = &event.metadata;
    put_uuid(out, event.event_id);
    put_uuid(out, metadata.user_id.unwrap_or_default());
    put_time(out, event.timestamp);
    out.put_u16_le(event.schema_version);
    put_key(out, &event.aggregate);
    put_text(out, &event.event_type);
    put_text(out, &event.content_type);
    put_text(out, &metadata.correlation_id);
    put_text(out, &metadata.causation_id);
    put_text(out, &metadata.ip_address);
    put_text(out, &metadata.user_agent);
    put_text(out, &metadata.traceparent);
    put_bytes(out, &metadata.custom);
    put_bytes(out, &event.payload);
}

fn event<'a>(fields: &mut Fields<'a>) -> Result<EventBody<'a>, DecodeError> {
    let event_id = fields.uuid()?.into_bytes();
    let user_id = fields.uuid()?.into_bytes();
    Ok(EventBody {
        event_id,
        user_id,
        timestamp_us: fields.time()?.as_micros(),
        schema_version: fields.u16()?,
        aggregate_type: fields.str()?,
        aggregate_id: fields.str()?,
        event_type: fields.str()?,
        content_type: fields.str()?,
        correlation_id: fields.str()?,
        causation_id: fields.str()?,
        ip_address: fields.str()?,
        user_agent: fields.str()?,
        traceparent: fields.str()?,
        custom: fields.bytes()?,
        payload: fields.bytes()?,
    })
}

impl Message for AppendOutcome {
    const KIND: Kind = Kind::Appended;

    fn write(&self, out: &mut BytesMut) {
        put_bool(out, self.duplicate);
        put_list(out, &self.positions, |out, position| out.put_u64_le(position.0));
        put_list(out, &self.versions, |out, (key, version)| {
            put_key(out, key);
            out.put_u64_le(version.0);
        });
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        let duplicate = fields.bool()?;
        let count = fields.count(8)?;
        within("positions", APPEND_EVENTS_HARD_MAX, count)?;
        let positions = fields.items(count, |fields| Ok(Position(fields.u64()?)))?;
        let count = fields.count(8 + 8)?;
        within("versions", APPEND_EVENTS_HARD_MAX, count)?;
        let versions = fields.items(count, version_of)?;
        Ok(Self { duplicate, positions, versions })
    }
}

fn version_of(fields: &mut Fields) -> Result<(AggregateKey, Version), DecodeError> {
    Ok((fields.key()?, Version(fields.u64()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn an_append_leaves_room_for_the_answer_that_lists_every_conflict() {
        let key = AggregateKey::new("T", "1");
        let request: AppendRequest =
            Append::default().expect(key, ExpectedVersion::NoStream).into();
        assert_eq!(request.check_fits(1_000, 3_056), Ok(()));
        let refused = Invalid::AppendTooLarge { limit: 3_055, given: 3_056 };
        assert_eq!(request.check_fits(1_000, 3_055), Err(refused));
    }

    #[test]
    fn more_events_than_any_log_takes_are_refused_by_their_count() {
        let count = u32::try_from(APPEND_EVENTS_HARD_MAX).unwrap() + 1;
        let mut body = BytesMut::new();
        put_text(&mut body, "");
        body.put_u32_le(0);
        body.put_u32_le(count);
        body.put_bytes(0xff, count as usize * EVENT_BYTES_MIN);
        let error = AppendRequest::decode(body.freeze()).unwrap_err();
        let (limit, given) = (APPEND_EVENTS_HARD_MAX, count as usize);
        assert_eq!(error, DecodeError::Invalid(Invalid::TooManyEvents { limit, given }));
    }

    #[test]
    fn an_unknown_expectation_is_malformed() {
        let mut body = vec![0; 8];
        body[4] = 1;
        body.extend_from_slice(&[0; 8]);
        body.extend_from_slice(&[9; 1]);
        body.extend_from_slice(&[0; 12]);
        let error = AppendRequest::decode(Bytes::from(body)).unwrap_err();
        assert!(error.to_string().contains("byte 16"), "{error}");
    }
}
