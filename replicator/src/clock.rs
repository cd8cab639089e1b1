//! The wall clock, by which lag is told.
#![expect(clippy::disallowed_methods, reason = "this module is the replicator's clock")]

use std::time::{SystemTime, UNIX_EPOCH};

use quipu_client::Timestamp;

/// What time it is.
pub(crate) fn now() -> Timestamp {
    let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
    };
    Timestamp::from_micros(micros)
}

/// Seconds since then, by this machine's clock; never below zero.
#[expect(clippy::cast_precision_loss, reason = "a lag is shown to the millisecond")]
pub(crate) fn seconds_since(then: Timestamp) -> f64 {
    (now().as_micros() - then.as_micros()).max(0) as f64 / 1e6
}
