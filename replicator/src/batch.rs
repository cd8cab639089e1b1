//! Batches: how events that come are gathered, and folded before Postgres is asked for anything.

use std::sync::Arc;
use std::time::Duration;

use quipu_client::{Position, Record, SubscriptionItem, Timestamp};
use tokio::time::Instant;

use crate::projection::{Fold, OnFailure, Projection};

/// When a batch is closed: at the first of these; with one event at least, within a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Events in it.
    pub events_max: usize,
    /// Bytes of its events as the log stores them.
    pub bytes_max: usize,
    /// How long its first event waits for more, so that a quiet log is not late.
    pub wait_max: Duration,
}

impl Default for BatchLimits {
    fn default() -> Self {
        let wait_max = Duration::from_millis(10);
        Self { events_max: 20_000, bytes_max: 8 * 1024 * 1024, wait_max }
    }
}

const WAIT_MAX: Duration = Duration::from_hours(24);

/// How long a place in the log that came without events waits to be noted.
const MARK_WAIT: Duration = Duration::from_secs(1);

/// Events that are gathered for the next batch.
pub(crate) struct Forming {
    limits: BatchLimits,
    records: Vec<Record>,
    bytes: usize,
    /// Everything up to here is in this batch or one before.
    through: Position,
    /// When it is to be closed; `None` while there is nothing to say.
    due: Option<Instant>,
    /// The events that follow are not wanted.
    until: Option<Position>,
}

impl Forming {
    pub(crate) fn new(limits: BatchLimits, after: Position, until: Option<Position>) -> Self {
        // None without an event, and none that waits beyond what a clock can tell.
        let limits = BatchLimits {
            events_max: limits.events_max.max(1),
            bytes_max: limits.bytes_max.max(1),
            wait_max: limits.wait_max.min(WAIT_MAX),
        };
        Self { limits, records: Vec::new(), bytes: 0, through: after, due: None, until }
    }

    /// Takes what a subscription delivered; whether it said that it has caught up.
    pub(crate) fn take(&mut self, items: Vec<SubscriptionItem>) -> bool {
        let mut is_caught_up = false;
        for item in items {
            match item {
                SubscriptionItem::Event(record) => self.add(record),
                SubscriptionItem::CaughtUp(position) => {
                    is_caught_up = true;
                    self.mark(position);
                }
                SubscriptionItem::Checkpoint(position) | SubscriptionItem::FellBehind(position) => {
                    self.mark(position);
                }
                _ => {}
            }
        }
        is_caught_up
    }

    fn add(&mut self, record: Record) {
        let position = record.position();
        if self.until.is_some_and(|until| position > until) {
            return self.mark(position);
        }
        self.through = position;
        self.bytes += record.as_bytes().len();
        if self.records.is_empty() {
            self.due = Some(Instant::now() + self.limits.wait_max);
        }
        self.records.push(record);
    }

    fn mark(&mut self, position: Position) {
        let position = self.until.map_or(position, |until| position.min(until));
        if position > self.through {
            self.through = position;
            self.due.get_or_insert_with(|| Instant::now() + MARK_WAIT);
        }
    }

    /// Whether it takes no more.
    pub(crate) fn is_full(&self) -> bool {
        self.records.len() >= self.limits.events_max || self.bytes >= self.limits.bytes_max
    }

    /// When it is to be closed.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.is_full() || self.is_last() { Some(Instant::now()) } else { self.due }
    }

    /// Whether nothing is wanted after it.
    pub(crate) fn is_last(&self) -> bool {
        self.until.is_some_and(|until| self.through >= until)
    }

    /// What was gathered; begins anew after it.
    pub(crate) fn close(&mut self) -> (Vec<Record>, Position) {
        (self.bytes, self.due) = (0, None);
        (std::mem::take(&mut self.records), self.through)
    }
}

/// A batch, folded for each projection.
pub(crate) struct Batch {
    pub(crate) records: Arc<[Record]>,
    pub(crate) through: Position,
    pub(crate) folded: Vec<Folded>,
}

/// A batch as one projection folded it.
pub(crate) struct Folded {
    pub(crate) fold: Box<dyn Fold>,
    pub(crate) outcome: Outcome,
}

/// What became of the events of a batch in one projection, beside those that were applied.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Left out, to be kept with what was wrong.
    pub(crate) parked: Vec<Failure>,
    /// Where the projection stops, if it does.
    pub(crate) stopped: Option<Failure>,
}

/// An event that cannot be applied.
#[derive(Clone)]
pub(crate) struct Failure {
    pub(crate) record: Record,
    pub(crate) problem: String,
}

impl Failure {
    /// The event and what is wrong with it, in one line.
    pub(crate) fn text(&self) -> String {
        let record = &self.record;
        format!(
            "event {} at position {} ({} {}, version {}): {}",
            record.event_id(),
            record.position(),
            record.aggregate_type(),
            record.event_type(),
            record.version(),
            self.problem
        )
    }
}

impl Outcome {
    /// Takes a failure as the projection wishes; whether the projection goes on.
    pub(crate) fn fail(&mut self, failure: Failure, on_failure: OnFailure) -> bool {
        match on_failure {
            OnFailure::Park => self.parked.push(failure),
            OnFailure::Stop => self.stopped = Some(failure),
        }
        self.stopped.is_none()
    }
}

impl Folded {
    /// Folds what of these events the projection takes, after the position it has reached.
    pub(crate) fn of(projection: &dyn Projection, records: &[Record], after: Position) -> Self {
        let (mut fold, mut outcome) = (projection.fold(), Outcome::default());
        let interest = projection.interest();
        let wanted = |record: &&Record| record.position() > after && interest.takes(record);
        for record in records.iter().filter(wanted) {
            if let Err(problem) = fold.take(record) {
                let failure = Failure { record: record.clone(), problem };
                if !outcome.fail(failure, projection.on_failure()) {
                    break;
                }
            }
        }
        Self { fold, outcome }
    }
}

impl Batch {
    /// When the log took its first and its last event.
    pub(crate) fn recorded(&self) -> Option<(Timestamp, Timestamp)> {
        Some((self.records.first()?.recorded_at(), self.records.last()?.recorded_at()))
    }
}
