//! Who is told what a replicator does.

use std::time::Duration;

use quipu_client::{Position, Timestamp};

use crate::error::ReplicateError;

/// Is told what a replicator does, in its tasks: it should not take long.
pub trait Observer: Send + Sync {
    /// A batch was applied, and its checkpoints were moved.
    fn committed(&self, _: &Committed<'_>) {}
    /// A projection has stopped; the others go on.
    fn failed(&self, _projection: &str, _problem: &str) {}
    /// Events were put aside.
    fn parked(&self, _projection: &str, _problem: &str) {}
    /// Nothing can be done now; it is tried again after a pause.
    fn waiting(&self, _problem: &ReplicateError, _pause: Duration) {}
    /// It goes on after it has waited.
    fn resumed(&self) {}
}

/// A batch that was applied.
#[derive(Clone, Copy, Debug)]
pub struct Committed<'a> {
    /// The projections it was applied to.
    pub projections: &'a [String],
    /// Events in it.
    pub events: usize,
    /// Everything up to here is applied.
    pub through: Position,
    /// The last position of the log, as far as is known.
    pub log_end: Position,
    /// When the log took its first and its last event.
    pub recorded: Option<(Timestamp, Timestamp)>,
    /// Events applied in the last second or so, a second.
    pub events_per_second: f64,
}

/// Nobody is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
