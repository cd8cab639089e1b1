//! Where the sequencer breaks its rules on purpose; see [`crate::bug`].

use std::sync::Arc;

use quipu_types::{Position, Version};

use super::{Sequencer, Step, Written};
use crate::bug::{Bug, seeded};
use crate::commit::placed::Placed;

impl Sequencer {
    /// Before groups are retired; true if none is to be.
    pub(super) fn break_retiring(&mut self, step: &mut Step) -> bool {
        if seeded(Bug::ServesBeforeDurable) {
            self.serve_what_is_in_flight();
        }
        if seeded(Bug::AcknowledgesOutOfOrder) {
            for write in self.in_flight.iter_mut().filter(|it| it.durable) {
                step.answers.append(&mut write.answers);
            }
        }
        match self.in_flight.front_mut().filter(|it| it.durable && !it.answers.is_empty()) {
            Some(front) if seeded(Bug::IndexesAfterTheAnswer) => {
                step.answers.append(&mut front.answers);
                true
            }
            _ => false,
        }
    }

    fn serve_what_is_in_flight(&mut self) {
        let segment = Arc::clone(self.head.segment());
        for write in &mut self.in_flight {
            let Written::Group { header, bytes, appends } = &mut write.written else { continue };
            let appends = std::mem::take(appends);
            if !appends.is_empty() {
                segment.publish(header, bytes.clone(), |index| {
                    for placed in &appends {
                        placed.index(index);
                    }
                });
                self.log.watermark.advance(header.next_position().previous());
            }
        }
    }

    /// When a group has become durable.
    pub(super) fn break_publishing(&mut self, appends: &[Placed]) {
        for placed in appends {
            let known = self.known.active();
            for (aggregate, before) in placed.append.aggregates.iter().zip(&placed.before) {
                if seeded(Bug::ChecksDurableVersionsOnly) && aggregate.events > 0 {
                    let version = Version(before.0 + aggregate.events);
                    known.raise(&aggregate.wide, *before, version, placed.first);
                }
            }
            for (number, record) in placed.append.records.iter().enumerate() {
                if seeded(Bug::KnowsDurableIdsOnly) {
                    let position = Position(placed.first.0 + number as u64);
                    known.insert_id(&record.id, position);
                }
            }
        }
    }
}
