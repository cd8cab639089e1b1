//! Which events a handler has in hand, and how much of its window they take.

use std::collections::BTreeSet;

use quipu_types::Position;

use super::lanes::{Cause, Work};

/// Events in hand: of what came up, of the past, and parked ones that are handled again.
#[derive(Default)]
pub(super) struct InHand {
    live: BTreeSet<Position>,
    replayed: BTreeSet<Position>,
    parked: BTreeSet<Position>,
    bytes: usize,
}

impl InHand {
    pub(super) fn take(&mut self, work: &Work) {
        self.of(work.cause).insert(work.record.position());
        self.bytes += work.record.as_bytes().len();
    }

    /// The event needs nothing more; whether it was in hand.
    pub(super) fn settle(&mut self, work: &Work) -> bool {
        let was_there = self.of(work.cause).remove(&work.record.position());
        if was_there {
            self.bytes -= work.record.as_bytes().len();
        }
        was_there
    }

    fn of(&mut self, cause: Cause) -> &mut BTreeSet<Position> {
        match cause {
            Cause::Live => &mut self.live,
            Cause::Parked { .. } => &mut self.parked,
            Cause::Replay => &mut self.replayed,
        }
    }

    pub(super) fn has_parked(&self, position: Position) -> bool {
        self.parked.contains(&position)
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
        self.live.len() + self.replayed.len() + self.parked.len()
    }

    /// Bytes of the events as the log stores them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
