//! Events as a history knows them: their place, and a hash of what they carry.

use std::hash::{DefaultHasher, Hash, Hasher};

use quipu_types::{AggregateKey, NewEvent, Position, Record, Version};
use serde::{Deserialize, Serialize};

/// The type of all aggregates whose operations are recorded; their ids are numbers.
pub const AGGREGATE_TYPE: &str = "Knot";

/// The aggregate of this number.
pub fn key_of(aggregate: u32) -> AggregateKey {
    AggregateKey::new(AGGREGATE_TYPE, aggregate.to_string())
}

/// An event as somebody tried to store it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Submitted {
    pub id: u128,
    pub aggregate: u32,
    /// Hash of everything else that was submitted.
    pub content: u64,
}

/// An event as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Stored {
    pub position: Position,
    pub version: Version,
    pub id: u128,
    pub aggregate: u32,
    pub content: u64,
    /// When the log took it, in microseconds since 1970.
    pub recorded_at: i64,
}

/// An event as a reader saw it: where, and a hash of all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub position: Position,
    pub print: u64,
}

impl Submitted {
    pub fn of(event: &NewEvent, aggregate: u32) -> Self {
        let content = content(&event.event_type, &event.payload, event.timestamp.as_micros());
        Self { id: event.event_id.as_u128(), aggregate, content }
    }
}

impl Stored {
    /// `None`: no history that is recorded here has made it.
    pub fn of(record: &Record) -> Option<Self> {
        let is_ours = record.aggregate_type() == AGGREGATE_TYPE;
        let aggregate = record.aggregate_id().parse().ok().filter(|_| is_ours)?;
        let micros = record.timestamp().as_micros();
        Some(Self {
            position: record.position(),
            version: record.version(),
            id: record.event_id().as_u128(),
            aggregate,
            content: content(record.event_type(), record.payload(), micros),
            recorded_at: record.recorded_at().as_micros(),
        })
    }

    /// What a reader sees of it.
    pub fn seen(&self) -> Seen {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        Seen { position: self.position, print: hasher.finish() }
    }
}

impl Seen {
    /// What was read; a record that is none of the history's is like no other.
    pub fn of(record: &Record) -> Self {
        let unlike = || Self { position: record.position(), print: 0 };
        Stored::of(record).map_or_else(unlike, |stored| stored.seen())
    }
}

fn content(event_type: &str, payload: &[u8], timestamp: i64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (event_type, payload, timestamp).hash(&mut hasher);
    hasher.finish()
}
