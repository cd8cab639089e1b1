//! Events to test with.

use quipu_types::{AggregateKey, NewEvent, Timestamp, Uuid};

/// A JSON event with a chosen id.
pub fn event(id: u128, key: &AggregateKey, event_type: &str) -> NewEvent {
    let payload = format!("{{\"n\":{id}}}");
    let time = Timestamp::from_micros(1_700_000_000_000_000 + i64::try_from(id).unwrap_or(0));
    NewEvent::json(Uuid::from_u128(id), key.clone(), event_type, time, payload)
}
