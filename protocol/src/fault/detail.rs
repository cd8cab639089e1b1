//! What an error says to programs: the fields that its code names, complete.

use bytes::{BufMut, Bytes, BytesMut};
use quipu_types::limits::APPEND_EVENTS_HARD_MAX;
use quipu_types::{
    AppendError, Corruption, IdConflictReason, Invalid, Position, ReadError, Version,
    VersionConflict,
};

use super::{Fault, codes};
use crate::append::{expected, put_expected};
use crate::fields::{DecodeError, Fields, put_key, put_list, put_size, put_text, put_uuid, within};
use crate::handshake::Versions;

/// The names that [`Invalid`] uses for fields.
const FIELD_NAMES: [&str; 11] = [
    "aggregate_type",
    "aggregate_id",
    "event_type",
    "content_type",
    "correlation_id",
    "causation_id",
    "ip_address",
    "user_agent",
    "traceparent",
    "custom",
    "data",
];
const CONFLICT_BYTES_MIN: usize = 8 + 9 + 8;

pub(super) fn write(fault: &Fault, out: &mut BytesMut) {
    match fault {
        Fault::Protocol { given, supported } | Fault::RecordFormats { given, supported } => {
            given.write(out);
            supported.write(out);
        }
        Fault::Credentials | Fault::Stopping => {}
        Fault::Malformed { offset, reason } => {
            out.put_u32_le(*offset);
            put_text(out, reason);
        }
        Fault::Unknown { kind, flags } => out.put_slice(&[*kind, *flags]),
        Fault::OverLimit { what, limit, given } => {
            put_text(out, what);
            out.put_u64_le(*limit);
            out.put_u64_le(*given);
        }
        Fault::RequestId { id } => out.put_u64_le(*id),
        Fault::Server(problem) => put_text(out, problem),
        Fault::Append(error) => write_append(error, out),
        Fault::Read(error) => write_read(error, out),
        Fault::Other { detail, .. } => out.put_slice(detail),
    }
}

fn write_append(error: &AppendError, out: &mut BytesMut) {
    match error {
        AppendError::Invalid(invalid) => write_invalid(invalid, out),
        AppendError::Conflict(conflicts) => put_list(out, conflicts, |out, conflict| {
            put_key(out, &conflict.key);
            put_expected(out, conflict.expected);
            out.put_u64_le(conflict.actual.0);
        }),
        AppendError::IdConflict { event_id, position, reason } => {
            put_uuid(out, *event_id);
            out.put_u64_le(position.0);
            out.put_u8(u8::from(*reason == IdConflictReason::PartlyKnown));
        }
        AppendError::Overloaded { queued_bytes, queued_appends } => {
            put_size(out, *queued_bytes);
            put_size(out, *queued_appends);
        }
        AppendError::NoSpace(problem)
        | AppendError::OutcomeUnknown(problem)
        | AppendError::NotWritten(problem)
        | AppendError::ReadOnly(problem) => put_text(out, problem),
        AppendError::Closed => {}
        AppendError::Read(error) => {
            out.put_u16_le(codes::of_read(error));
            write_read(error, out);
        }
        other => put_text(out, &other.to_string()),
    }
}

fn write_read(error: &ReadError, out: &mut BytesMut) {
    match error {
        ReadError::Corruption(corruption) => {
            out.put_u64_le(corruption.segment);
            out.put_u64_le(corruption.first.0);
            out.put_u64_le(corruption.last.0);
            put_text(out, &corruption.problem);
        }
        ReadError::Io { segment, problem } => {
            out.put_u64_le(*segment);
            put_text(out, problem);
        }
        ReadError::PastEnd { given, end } => {
            out.put_u64_le(given.0);
            out.put_u64_le(end.0);
        }
        ReadError::OtherLog { given, actual } => {
            put_uuid(out, *given);
            put_uuid(out, *actual);
        }
        ReadError::Closed => {}
        other => put_text(out, &other.to_string()),
    }
}

fn write_invalid(invalid: &Invalid, out: &mut BytesMut) {
    match invalid {
        Invalid::Empty { field } | Invalid::NotAnObject { field } => put_text(out, field),
        Invalid::TooLong { field, limit, given } => {
            put_text(out, field);
            put_size(out, *limit);
            put_size(out, *given);
        }
        Invalid::ControlCharacter { field, at, given } => {
            put_text(out, field);
            put_size(out, *at);
            out.put_u32_le(*given);
        }
        Invalid::NilEventId | Invalid::NoEvents => {}
        Invalid::RepeatedEventId { event_id } => put_uuid(out, *event_id),
        Invalid::RepeatedExpectation { key } => put_key(out, key),
        Invalid::Timestamp { micros } => out.put_i64_le(*micros),
        Invalid::NotJson { field, problem } => {
            put_text(out, field);
            put_text(out, problem);
        }
        Invalid::SystemType { given } | Invalid::NotSystemType { given } => put_text(out, given),
        Invalid::TooManyEvents { limit, given }
        | Invalid::AppendTooLarge { limit, given }
        | Invalid::EventTooLarge { limit, given } => {
            put_size(out, *limit);
            put_size(out, *given);
        }
        other => put_text(out, &other.to_string()),
    }
}

/// The error with this code and detail; `None` if only a newer program knows it.
pub(super) fn read(code: u16, detail: &Bytes) -> Option<Fault> {
    let fields = &mut Fields::new(detail);
    let fault = match code {
        320..=399 => read_invalid(code, fields).map(|it| Fault::Append(it.into())),
        300..320 => read_append(code, fields).map(Fault::Append),
        400..500 => read_read(code, fields).map(Fault::Read),
        _ => read_connection(code, fields),
    };
    fault.ok()
}

/// Any error will do: it only says that the detail is not one that is known here.
fn unknown(code: u16) -> DecodeError {
    let [kind, flags] = code.to_le_bytes();
    DecodeError::Unknown { kind, flags }
}

fn read_connection(code: u16, fields: &mut Fields) -> Result<Fault, DecodeError> {
    Ok(match code {
        codes::PROTOCOL => {
            Fault::Protocol { given: Versions::read(fields)?, supported: Versions::read(fields)? }
        }
        codes::RECORD_FORMATS => Fault::RecordFormats {
            given: Versions::read(fields)?,
            supported: Versions::read(fields)?,
        },
        codes::CREDENTIALS => Fault::Credentials,
        codes::STOPPING => Fault::Stopping,
        codes::MALFORMED => Fault::Malformed { offset: fields.u32()?, reason: fields.text()? },
        codes::UNKNOWN => Fault::Unknown { kind: fields.u8()?, flags: fields.u8()? },
        codes::OVER_LIMIT => {
            Fault::OverLimit { what: fields.text()?, limit: fields.u64()?, given: fields.u64()? }
        }
        codes::REQUEST_ID => Fault::RequestId { id: fields.u64()? },
        codes::SERVER => Fault::Server(fields.text()?),
        _ => return Err(unknown(code)),
    })
}

fn read_append(code: u16, fields: &mut Fields) -> Result<AppendError, DecodeError> {
    Ok(match code {
        codes::CONFLICT => {
            let count = fields.count(CONFLICT_BYTES_MIN)?;
            within("conflicts", APPEND_EVENTS_HARD_MAX, count)?;
            AppendError::Conflict(fields.items(count, read_conflict)?)
        }
        codes::ID_CONFLICT => AppendError::IdConflict {
            event_id: fields.uuid()?,
            position: Position(fields.u64()?),
            reason: fields.one_of(|reason| match reason {
                0 => Some(IdConflictReason::OtherContent),
                1 => Some(IdConflictReason::PartlyKnown),
                _ => None,
            })?,
        },
        codes::NO_SPACE => AppendError::NoSpace(fields.text()?),
        codes::OVERLOADED => {
            AppendError::Overloaded { queued_bytes: fields.size()?, queued_appends: fields.size()? }
        }
        codes::OUTCOME_UNKNOWN => AppendError::OutcomeUnknown(fields.text()?),
        codes::NOT_WRITTEN => AppendError::NotWritten(fields.text()?),
        codes::READ_ONLY => AppendError::ReadOnly(fields.text()?),
        codes::APPEND_CLOSED => AppendError::Closed,
        codes::CANNOT_COMPARE => {
            let code = fields.u16()?;
            AppendError::Read(read_read(code, fields)?)
        }
        _ => return Err(unknown(code)),
    })
}

fn read_conflict(fields: &mut Fields) -> Result<VersionConflict, DecodeError> {
    Ok(VersionConflict {
        key: fields.key()?,
        expected: expected(fields)?,
        actual: Version(fields.u64()?),
    })
}

fn read_read(code: u16, fields: &mut Fields) -> Result<ReadError, DecodeError> {
    Ok(match code {
        codes::CORRUPTION => ReadError::Corruption(Corruption {
            segment: fields.u64()?,
            first: Position(fields.u64()?),
            last: Position(fields.u64()?),
            problem: fields.text()?,
        }),
        codes::IO => ReadError::Io { segment: fields.u64()?, problem: fields.text()? },
        codes::PAST_END => {
            ReadError::PastEnd { given: Position(fields.u64()?), end: Position(fields.u64()?) }
        }
        codes::OTHER_LOG => ReadError::OtherLog { given: fields.uuid()?, actual: fields.uuid()? },
        codes::READ_CLOSED => ReadError::Closed,
        _ => return Err(unknown(code)),
    })
}

fn read_invalid(code: u16, fields: &mut Fields) -> Result<Invalid, DecodeError> {
    Ok(match code {
        codes::EMPTY => Invalid::Empty { field: field_name(fields)? },
        codes::TOO_LONG => Invalid::TooLong {
            field: field_name(fields)?,
            limit: fields.size()?,
            given: fields.size()?,
        },
        codes::CONTROL_CHARACTER => Invalid::ControlCharacter {
            field: field_name(fields)?,
            at: fields.size()?,
            given: fields.u32()?,
        },
        codes::NIL_EVENT_ID => Invalid::NilEventId,
        codes::REPEATED_EVENT_ID => Invalid::RepeatedEventId { event_id: fields.uuid()? },
        codes::REPEATED_EXPECTATION => Invalid::RepeatedExpectation { key: fields.key()? },
        codes::TIMESTAMP => Invalid::Timestamp { micros: fields.time()?.as_micros() },
        codes::NOT_JSON => Invalid::NotJson { field: field_name(fields)?, problem: fields.text()? },
        codes::NOT_AN_OBJECT => Invalid::NotAnObject { field: field_name(fields)? },
        codes::SYSTEM_TYPE => Invalid::SystemType { given: fields.text()? },
        codes::NOT_SYSTEM_TYPE => Invalid::NotSystemType { given: fields.text()? },
        codes::NO_EVENTS => Invalid::NoEvents,
        codes::TOO_MANY_EVENTS => {
            Invalid::TooManyEvents { limit: fields.size()?, given: fields.size()? }
        }
        codes::APPEND_TOO_LARGE => {
            Invalid::AppendTooLarge { limit: fields.size()?, given: fields.size()? }
        }
        codes::EVENT_TOO_LARGE => {
            Invalid::EventTooLarge { limit: fields.size()?, given: fields.size()? }
        }
        _ => return Err(unknown(code)),
    })
}

/// [`Invalid`] holds names that live as long as the program.
fn field_name(fields: &mut Fields) -> Result<&'static str, DecodeError> {
    let given = fields.text()?;
    let known = FIELD_NAMES.into_iter().find(|name| *name == given);
    known.ok_or_else(|| unknown(codes::EMPTY))
}
