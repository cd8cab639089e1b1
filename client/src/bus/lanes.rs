//! Events in hand, in lanes: within a lane one after the other, the lanes side by side.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use quipu_types::Record;

use super::delivery::Delivery;

/// Why an event is in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It came up.
    Live,
    /// Somebody wants it to be handled again, after so many attempts.
    Parked { attempts: u32 },
    /// It belongs to a part of the past that somebody wants to be handled again.
    Replay,
}

/// An event in hand.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) record: Record,
    /// Its lane, once it was put into one.
    pub(super) lane: u64,
    /// Attempts that failed, since it is in hand.
    pub(super) failed: u32,
    pub(super) cause: Cause,
}

impl Work {
    pub(super) fn new(record: Record, cause: Cause) -> Self {
        Self { record, lane: 0, failed: 0, cause }
    }

    pub(super) fn attempts(&self) -> u32 {
        match self.cause {
            Cause::Parked { attempts } => attempts.saturating_add(self.failed),
            Cause::Live | Cause::Replay => self.failed,
        }
    }

    /// What its handler is given; `was_parked` also where a replay comes upon it.
    pub(super) fn delivery(&self, was_parked: bool) -> Delivery {
        let (record, attempt) = (self.record.clone(), self.attempts().saturating_add(1));
        let is_replay = self.cause == Cause::Replay && !was_parked;
        Delivery { record, attempt, is_replay, was_parked }
    }
}

/// The lanes of one handler.
///
/// Invariants:
/// 1. `ready` names each lane once that has events and is not busy, and no other.
/// 2. A lane that is neither busy nor has events is forgotten.
pub(super) struct Lanes {
    by_id: HashMap<u64, Lane>,
    ready: VecDeque<u64>,
    /// One lane for each aggregate (two may share one, which only makes them wait), or one for all.
    by_aggregate: Option<RandomState>,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Work>,
    is_busy: bool,
}

impl Lanes {
    pub(super) fn new(by_aggregate: bool) -> Self {
        let by_aggregate = by_aggregate.then(RandomState::new);
        Self { by_id: HashMap::new(), ready: VecDeque::new(), by_aggregate }
    }

    fn lane_of(&self, record: &Record) -> u64 {
        let key = (record.aggregate_type(), record.aggregate_id());
        self.by_aggregate.as_ref().map_or(0, |hasher| hasher.hash_one(key))
    }

    pub(super) fn push(&mut self, mut work: Work) {
        work.lane = self.lane_of(&work.record);
        let lane = self.by_id.entry(work.lane).or_default();
        if lane.queue.is_empty() && !lane.is_busy {
            self.ready.push_back(work.lane);
        }
        lane.queue.push_back(work);
    }

    /// How many lanes have something to do, and are not busy.
    pub(super) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes a lane that has something to do; it is busy until it is freed.
    pub(super) fn take(&mut self) -> Option<u64> {
        let id = self.ready.pop_front()?;
        if let Some(lane) = self.by_id.get_mut(&id) {
            lane.is_busy = true;
        }
        Some(id)
    }

    /// Takes events from the front of a lane, as long as `fits` says so.
    pub(super) fn batch(
        &mut self,
        id: u64,
        mut fits: impl FnMut(&[Work], &Work) -> bool,
    ) -> Vec<Work> {
        let mut batch = Vec::new();
        let Some(lane) = self.by_id.get_mut(&id) else { return batch };
        while lane.queue.front().is_some_and(|work| fits(&batch, work)) {
            batch.extend(lane.queue.pop_front());
        }
        batch
    }

    /// Puts events back to the front of their lanes.
    pub(super) fn give_back(&mut self, works: Vec<Work>) {
        for work in works.into_iter().rev() {
            if let Some(lane) = self.by_id.get_mut(&work.lane) {
                lane.queue.push_front(work);
            }
        }
    }

    /// The lane may go on.
    pub(super) fn free(&mut self, id: u64) {
        let Some(lane) = self.by_id.get_mut(&id) else { return };
        lane.is_busy = false;
        if lane.queue.is_empty() {
            self.by_id.remove(&id);
        } else {
            self.ready.push_back(id);
        }
    }
}
