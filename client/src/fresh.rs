//! What a new event needs from outside: the time, and an id that nobody else has.

use quipu_types::{Timestamp, Uuid};
use uuid::{NoContext, Timestamp as UuidTime};

/// A v7 id of this time: the cheapest to look up, for it is newer than all that are stored.
pub(crate) fn v7_id(now: Timestamp) -> Uuid {
    let micros = u64::try_from(now.as_micros()).unwrap_or(0);
    let nanos = u32::try_from(micros % 1_000_000 * 1_000).unwrap_or(0);
    Uuid::new_v7(UuidTime::from_unix(NoContext, micros / 1_000_000, nanos))
}
