//! What is noted of a handler in the log: events that it could not handle, and what people decided
//! about them.

use quipu_types::{AggregateKey, NewEvent, Position, Record, Timestamp, Uuid};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::replay::ReplayRequest;
use crate::stamps::{Stamps, SystemStamps};

/// The aggregate type of notes.
pub const HANDLER_TYPE: &str = "$handler";
/// Longest reason that is noted, in bytes.
const REASON_BYTES_MAX: usize = 2_000;

/// A note. The variant's name is the event type, its fields are the JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Note {
    /// An event was given up, for now.
    EventParked {
        position: Position,
        event_id: Uuid,
        aggregate_type: String,
        aggregate_id: String,
        event_type: String,
        /// Attempts so far; 0: none, because it came behind another one.
        attempts: u32,
        error: String,
    },
    /// Somebody wants a parked event to be handled again.
    ParkedReplayAsked { position: Position },
    /// A parked event was handled after all.
    ParkedHandled { position: Position },
    /// Somebody decided that a parked event shall not be handled.
    ParkedDropped { position: Position, reason: String },
    /// Somebody wants a part of the past to be handled again.
    ReplayAsked { replay_id: Uuid, request: ReplayRequest },
    /// How far that is: everything up to here, and how many events in all.
    ReplayProgressed { replay_id: Uuid, position: Position, events: u64 },
    /// That is done.
    ReplayEnded { replay_id: Uuid, events: u64 },
}

impl Note {
    pub(super) fn parked(record: &Record, attempts: u32, error: &str) -> Self {
        Self::EventParked {
            position: record.position(),
            event_id: record.event_id(),
            aggregate_type: record.aggregate_type().to_owned(),
            aggregate_id: record.aggregate_id().to_owned(),
            event_type: record.event_type().to_owned(),
            attempts,
            error: cut(error),
        }
    }

    /// The note that a record holds; `None` if a newer program, or another one, wrote it.
    pub(super) fn read(record: &Record) -> Option<Noted> {
        let fields: Value = serde_json::from_slice(record.payload()).ok()?;
        let tagged = Map::from_iter([(record.event_type().to_owned(), fields)]);
        let note = serde_json::from_value(Value::Object(tagged)).ok()?;
        Some(Noted { note, at: record.timestamp(), position: record.position() })
    }

    /// The event that keeps it; `run` is that of the bus that notes, nil for anybody else.
    pub(super) fn event(&self, stream: AggregateKey, run: Uuid) -> NewEvent {
        let tagged = serde_json::to_value(self).unwrap_or_default();
        let fields = tagged.as_object().and_then(|fields| fields.iter().next());
        let (event_type, fields) = fields.expect("a variant with fields is an object of one");
        let stamp = SystemStamps.next();
        let payload = fields.to_string();
        let mut event =
            NewEvent::json(stamp.event_id, stream, event_type, stamp.timestamp, payload);
        if !run.is_nil() {
            event.metadata.correlation_id = run.to_string();
        }
        event
    }
}

/// A note, when it was noted, and where.
pub(super) struct Noted {
    pub(super) note: Note,
    pub(super) at: Timestamp,
    pub(super) position: Position,
}

/// The stream of a handler's notes.
pub(super) fn stream_of(bus: &str, handler: &str) -> AggregateKey {
    AggregateKey::new(HANDLER_TYPE, format!("{bus}/{handler}"))
}

/// A text that is not too long to be noted.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
