//! A state, and up to which event it was folded.

use quipu_types::{AggregateKey, Position, Record, Timestamp, Version};

use crate::aggregates::Aggregate;
use crate::event_type::AggregateEvent;
use crate::repository_error::{FoldError, LoadError};

/// A state as of one of its events.
///
/// Invariant: `state` is the fold of the aggregate's events 1 to `version`, each taken once and in
/// order. A snapshot is a `Folded` that was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folded<A> {
    /// The state.
    pub state: A,
    /// The last event's version; 0 before the first.
    pub version: Version,
    /// The last event's position; 0 before the first.
    pub position: Position,
}

/// A moment in an aggregate's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// After its event of this version.
    Version(Version),
    /// When the log had got to this position, this one included.
    Position(Position),
    /// Before the first event that happened after this instant, by the hosts' clocks. Events are
    /// in the order of the log: one that was recorded late, after a younger one, counts with it.
    Timestamp(Timestamp),
    /// Before the first event that the log took after this instant: what was known then.
    Recorded(Timestamp),
}

impl At {
    /// Whether an event had happened by then.
    #[must_use]
    pub fn includes(self, record: &Record) -> bool {
        match self {
            Self::Version(version) => record.version() <= version,
            Self::Position(position) => record.position() <= position,
            Self::Timestamp(timestamp) => record.timestamp() <= timestamp,
            Self::Recorded(timestamp) => record.recorded_at() <= timestamp,
        }
    }
}

impl<A: Aggregate> Folded<A> {
    /// Takes the aggregate's next record into the state.
    ///
    /// # Errors
    /// That it is not the next one, is no event of this aggregate, or does not belong into the
    /// state; each with its position. The state must not be used any more.
    pub fn take(&mut self, key: &AggregateKey, record: &Record) -> Result<(), LoadError> {
        let (expected, given) = (self.version.next(), record.version());
        if given != expected || !record.is_of(key) {
            let position = record.position();
            return Err(LoadError::NotTheNext { key: key.clone(), expected, given, position });
        }
        let event = A::Event::decode(record)?;
        let fault = |reason| FoldError {
            key: key.clone(),
            version: given,
            position: record.position(),
            event_id: record.event_id(),
            event_type: record.event_type().to_owned(),
            reason,
        };
        self.state.apply(&event).map_err(|reason| LoadError::Fold(Box::new(fault(reason))))?;
        (self.version, self.position) = (given, record.position());
        Ok(())
    }
}
