//! Where new events get their ids and times from: the seam that tests replace.
#![expect(clippy::disallowed_methods, reason = "the clock of hosts that have no engine")]

use std::time::{SystemTime, UNIX_EPOCH};

use quipu_types::{Timestamp, Uuid};
use uuid::{NoContext, Timestamp as UuidTime};

/// What makes an event this one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Unique for the life of the log.
    pub event_id: Uuid,
    /// When it happened.
    pub timestamp: Timestamp,
}

/// A source of stamps.
pub trait Stamps: Send + Sync {
    /// A stamp for an event that happens now.
    fn next(&self) -> Stamp;
}

/// This machine's clock, and v7 ids of its time: the cheapest for a log to look up.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemStamps;

impl Stamps for SystemStamps {
    fn next(&self) -> Stamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id_time = UuidTime::from_unix(NoContext, now.as_secs(), now.subsec_nanos());
        let micros = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        Stamp { event_id: Uuid::new_v7(id_time), timestamp: Timestamp::from_micros(micros) }
    }
}
