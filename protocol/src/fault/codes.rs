//! The stable numbers of what can go wrong: a code never changes its meaning.

use quipu_types::{AppendError, Invalid, ReadError};

use super::Fault;

pub(super) const PROTOCOL: u16 = 101;
pub(super) const RECORD_FORMATS: u16 = 102;
pub(super) const CREDENTIALS: u16 = 103;
pub(super) const STOPPING: u16 = 104;

pub(super) const MALFORMED: u16 = 200;
pub(super) const UNKNOWN: u16 = 201;
pub(super) const OVER_LIMIT: u16 = 202;
pub(super) const REQUEST_ID: u16 = 203;

pub(super) const CONFLICT: u16 = 300;
pub(super) const ID_CONFLICT: u16 = 301;
pub(super) const NO_SPACE: u16 = 302;
pub(super) const OVERLOADED: u16 = 303;
pub(super) const OUTCOME_UNKNOWN: u16 = 304;
pub(super) const NOT_WRITTEN: u16 = 305;
pub(super) const READ_ONLY: u16 = 306;
pub(super) const APPEND_CLOSED: u16 = 307;
pub(super) const CANNOT_COMPARE: u16 = 308;

pub(super) const EMPTY: u16 = 320;
pub(super) const TOO_LONG: u16 = 321;
pub(super) const CONTROL_CHARACTER: u16 = 322;
pub(super) const NIL_EVENT_ID: u16 = 323;
pub(super) const REPEATED_EVENT_ID: u16 = 324;
pub(super) const REPEATED_EXPECTATION: u16 = 325;
pub(super) const TIMESTAMP: u16 = 326;
pub(super) const NOT_JSON: u16 = 327;
pub(super) const NOT_AN_OBJECT: u16 = 328;
pub(super) const SYSTEM_TYPE: u16 = 329;
pub(super) const NO_EVENTS: u16 = 330;
pub(super) const TOO_MANY_EVENTS: u16 = 331;
pub(super) const APPEND_TOO_LARGE: u16 = 332;
pub(super) const EVENT_TOO_LARGE: u16 = 333;
pub(super) const NOT_SYSTEM_TYPE: u16 = 334;

pub(super) const CORRUPTION: u16 = 400;
pub(super) const IO: u16 = 401;
pub(super) const PAST_END: u16 = 402;
pub(super) const OTHER_LOG: u16 = 403;
pub(super) const READ_CLOSED: u16 = 404;

pub(super) const SERVER: u16 = 500;

pub(super) fn of(fault: &Fault) -> u16 {
    match fault {
        Fault::Protocol { .. } => PROTOCOL,
        Fault::RecordFormats { .. } => RECORD_FORMATS,
        Fault::Credentials => CREDENTIALS,
        Fault::Stopping => STOPPING,
        Fault::Malformed { .. } => MALFORMED,
        Fault::Unknown { .. } => UNKNOWN,
        Fault::OverLimit { .. } => OVER_LIMIT,
        Fault::RequestId { .. } => REQUEST_ID,
        Fault::Server(_) => SERVER,
        Fault::Append(error) => of_append(error),
        Fault::Read(error) => of_read(error),
        Fault::Other { code, .. } => *code,
    }
}

fn of_append(error: &AppendError) -> u16 {
    match error {
        AppendError::Invalid(invalid) => of_invalid(invalid),
        AppendError::Conflict(_) => CONFLICT,
        AppendError::IdConflict { .. } => ID_CONFLICT,
        AppendError::NoSpace(_) => NO_SPACE,
        AppendError::Overloaded { .. } => OVERLOADED,
        AppendError::OutcomeUnknown(_) => OUTCOME_UNKNOWN,
        AppendError::NotWritten(_) => NOT_WRITTEN,
        AppendError::ReadOnly(_) => READ_ONLY,
        AppendError::Closed => APPEND_CLOSED,
        AppendError::Read(_) => CANNOT_COMPARE,
        _ => SERVER,
    }
}

fn of_invalid(invalid: &Invalid) -> u16 {
    match invalid {
        Invalid::Empty { .. } => EMPTY,
        Invalid::TooLong { .. } => TOO_LONG,
        Invalid::ControlCharacter { .. } => CONTROL_CHARACTER,
        Invalid::NilEventId => NIL_EVENT_ID,
        Invalid::RepeatedEventId { .. } => REPEATED_EVENT_ID,
        Invalid::RepeatedExpectation { .. } => REPEATED_EXPECTATION,
        Invalid::Timestamp { .. } => TIMESTAMP,
        Invalid::NotJson { .. } => NOT_JSON,
        Invalid::NotAnObject { .. } => NOT_AN_OBJECT,
        Invalid::SystemType { .. } => SYSTEM_TYPE,
        Invalid::NoEvents => NO_EVENTS,
        Invalid::TooManyEvents { .. } => TOO_MANY_EVENTS,
        Invalid::AppendTooLarge { .. } => APPEND_TOO_LARGE,
        Invalid::EventTooLarge { .. } => EVENT_TOO_LARGE,
        Invalid::NotSystemType { .. } => NOT_SYSTEM_TYPE,
        _ => SERVER,
    }
}

pub(super) fn of_read(error: &ReadError) -> u16 {
    match error {
        ReadError::Corruption(_) => CORRUPTION,
        ReadError::Io { .. } => IO,
        ReadError::PastEnd { .. } => PAST_END,
        ReadError::OtherLog { .. } => OTHER_LOG,
        ReadError::Closed => READ_CLOSED,
        _ => SERVER,
    }
}
