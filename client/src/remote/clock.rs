//! The wall clock of a host that has no log of its own, and so no clock of the engine's.
#![expect(clippy::disallowed_methods, reason = "this module is the remote client's clock")]

use std::time::{SystemTime, UNIX_EPOCH};

use quipu_types::Timestamp;

/// What time it is.
pub(super) fn now() -> Timestamp {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    Timestamp::from_micros(micros)
}
