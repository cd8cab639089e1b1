//! An append as a host submits it, and what comes back.

use crate::aggregate::AggregateKey;
use crate::event::NewEvent;
use crate::position::Position;
use crate::version::{ExpectedVersion, Version};

/// One ordered list of events for one or several aggregates, stored whole or not at all.
///
/// At most one expectation for each aggregate; an aggregate may be only checked, not written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Append {
    /// The events, in the order they are to be stored.
    pub events: Vec<NewEvent>,
    /// What is expected of aggregates; one that is not named is `Any`.
    pub expectations: Vec<(AggregateKey, ExpectedVersion)>,
}

impl Append {
    /// Events without any expectation.
    #[must_use]
    pub fn any(events: Vec<NewEvent>) -> Self {
        Self { events, expectations: Vec::new() }
    }

    /// One event, with what is expected of its aggregate.
    #[must_use]
    pub fn one(event: NewEvent, expected: ExpectedVersion) -> Self {
        let key = event.aggregate.clone();
        Self { events: vec![event], expectations: vec![(key, expected)] }
    }

    /// Adds an expectation, also of an aggregate that is only checked.
    #[must_use]
    pub fn expect(mut self, key: AggregateKey, expected: ExpectedVersion) -> Self {
        self.expectations.push((key, expected));
        self
    }
}

/// What an acknowledged append did. Its events are on stable storage, indexed and visible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendOutcome {
    /// Every event was already stored, with the same content: nothing was written.
    pub duplicate: bool,
    /// Each event's position, in the order submitted; contiguous unless `duplicate`.
    pub positions: Vec<Position>,
    /// Each aggregate written, in order of first appearance, with its version as of these events.
    pub versions: Vec<(AggregateKey, Version)>,
}

impl AppendOutcome {
    /// Position of the last event.
    #[must_use]
    pub fn last_position(&self) -> Position {
        self.positions.last().copied().unwrap_or_default()
    }
}
