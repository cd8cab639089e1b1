//! Which events a handler has in hand, and how much of its window they take.

use std::collections::BTreeSet;

use quipu_types::{Position, Record};

/// Events in hand, of what came up and of the past.
#[derive(Default)]
pub(super) struct InHand {
    live: BTreeSet<Position>,
    replayed: BTreeSet<Position>,
    bytes: usize,
}

impl InHand {
    pub(super) fn take_live(&mut self, record: &Record) {
        self.live.insert(record.position());
        self.bytes += record.as_bytes().len();
    }

    pub(super) fn take_replayed(&mut self, record: &Record) {
        self.replayed.insert(record.position());
        self.bytes += record.as_bytes().len();
    }

    /// The event came up, and needs nothing more; whether it was in hand.
    pub(super) fn settle_live(&mut self, record: &Record) -> bool {
        let was_there = self.live.remove(&record.position());
        self.give_back(record, was_there)
    }

    /// The event is of the past, and needs nothing more; whether it was in hand.
    pub(super) fn settle_replayed(&mut self, record: &Record) -> bool {
        let was_there = self.replayed.remove(&record.position());
        self.give_back(record, was_there)
    }

    fn give_back(&mut self, record: &Record, was_there: bool) -> bool {
        if was_there {
            self.bytes -= record.as_bytes().len();
        }
        was_there
    }

    /// The first of what came up.
    pub(super) fn first_live(&self) -> Option<Position> {
        self.live.first().copied()
    }

    /// The first of the past.
    pub(super) fn first_replayed(&self) -> Option<Position> {
        self.replayed.first().copied()
    }

    pub(super) fn events(&self) -> usize {
        self.live.len() + self.replayed.len()
    }

    /// Bytes of the events as the log stores them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
