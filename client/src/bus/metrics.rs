//! What handlers did, by handler and event type.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use parking_lot::Mutex;
use quipu_types::Position;

use super::handler::Subject;

/// Event types that are counted one by one; those beyond are counted together, as `*`.
const EVENT_TYPES_MAX: usize = 1_000;
const OTHERS: &str = "*";

/// What a handler did with the events of one type, since the bus was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventTypeCounts {
    /// Handled.
    pub events: u64,
    /// Attempts that failed.
    pub errors: u64,
    /// Attempts after the first.
    pub retries: u64,
    /// Parked.
    pub parked: u64,
    /// Passed over, because the handler could not read them.
    pub skipped: u64,
    /// How long handling took in all.
    pub duration: Duration,
    /// How long the longest took.
    pub duration_max: Duration,
}

/// Whether a handler works.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HandlerStatus {
    /// It does.
    #[default]
    Running,
    /// It cannot read the log for now, and tries again.
    Waiting(String),
    /// It has stopped, for this reason; it goes on when it is subscribed again, by a new bus.
    Stopped(String),
}

/// A handler, and what it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandlerMetrics {
    /// What it hears of.
    pub subject: Subject,
    /// Whether it works.
    pub status: HandlerStatus,
    /// Everything up to here is handled, parked or skipped, or is none of its events.
    pub position: Position,
    /// How many positions the log is ahead of that, events that it does not hear of included.
    pub lag: u64,
    /// Events in hand.
    pub queue: usize,
    /// Their bytes, as the log stores them.
    pub queue_bytes: usize,
    /// Events that are parked now.
    pub parked: usize,
    /// What it did since the bus was opened.
    pub event_types: BTreeMap<String, EventTypeCounts>,
}

impl HandlerMetrics {
    /// What it did with events of all types.
    pub fn total(&self) -> EventTypeCounts {
        let mut total = EventTypeCounts::default();
        for counts in self.event_types.values() {
            total.events += counts.events;
            total.errors += counts.errors;
            total.retries += counts.retries;
            total.parked += counts.parked;
            total.skipped += counts.skipped;
            total.duration += counts.duration;
            total.duration_max = total.duration_max.max(counts.duration_max);
        }
        total
    }
}

/// Counts what one handler does.
#[derive(Default)]
pub(super) struct Meter(Mutex<HashMap<String, EventTypeCounts>>);

impl Meter {
    pub(super) fn count(&self, event_type: &str, count: impl FnOnce(&mut EventTypeCounts)) {
        let mut counts = self.0.lock();
        if let Some(counts) = counts.get_mut(event_type) {
            return count(counts);
        }
        let name = if counts.len() < EVENT_TYPES_MAX { event_type } else { OTHERS };
        count(counts.entry(name.to_owned()).or_default());
    }

    pub(super) fn handled(&self, event_type: &str, took: Duration) {
        self.count(event_type, |counts| {
            counts.events += 1;
            counts.duration += took;
            counts.duration_max = counts.duration_max.max(took);
        });
    }

    pub(super) fn counts(&self) -> BTreeMap<String, EventTypeCounts> {
        self.0.lock().iter().map(|(name, counts)| (name.clone(), *counts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_of_many_event_types_is_counted_in_bounded_memory() {
        let meter = Meter::default();
        for number in 0..2 * EVENT_TYPES_MAX {
            meter.handled(&format!("Type{number}"), Duration::from_secs(1));
        }
        let counts = meter.counts();
        assert!(counts.len() <= EVENT_TYPES_MAX + 1);
        assert_eq!(counts[OTHERS].events, EVENT_TYPES_MAX as u64);
        assert_eq!(counts[OTHERS].duration_max, Duration::from_secs(1));
    }
}
