//! Which sealed segments hold an aggregate's events: told by what the sequencer checks appends
//! against, so that a read of one aggregate need not ask every segment's index.

use quipu_types::AggregateKey;

use crate::format::run_file::Span;
use crate::format::segment_set::SegmentSet;
use crate::index::keys::TableKey;
use crate::index::known::report_damage;
use crate::index::sealed::Part;
use crate::shared::Shared;

/// The segments that may hold an aggregate, those of one run at a time: a read that ends early has
/// looked into few.
pub(super) struct Holders {
    aggregate: TableKey,
    looked_at: Option<(Span, SegmentSet)>,
}

impl Holders {
    pub(super) fn new(log: &Shared, aggregate: &AggregateKey) -> Self {
        let aggregate = log.hasher.wide(&aggregate.aggregate_type, &aggregate.aggregate_id);
        Self { aggregate, looked_at: None }
    }

    /// False if a segment surely holds none of the aggregate's events.
    pub(super) fn may_have(&mut self, log: &Shared, segment: u64) -> bool {
        let covers = |(span, _): &(Span, SegmentSet)| span.covers(segment);
        if !self.looked_at.as_ref().is_some_and(covers) {
            self.looked_at = self.look(log, segment);
        }
        self.looked_at.is_none_or(|(span, segments)| segments.may_have(&span, segment))
    }

    /// The segments of the run that covers this one, as far as they hold the aggregate; `None` if
    /// that is not known: the segment is not sealed, or the run damaged.
    fn look(&self, log: &Shared, segment: u64) -> Option<(Span, SegmentSet)> {
        let sealed = log.sealed.snapshot();
        let part = sealed.part_of(segment)?;
        let found = match part {
            Part::Waiting(waiting) => {
                let is_here = waiting.generation.version(&self.aggregate).is_some();
                is_here.then(|| SegmentSet::of(part.span(), segment))
            }
            Part::Run(run) => match run.segments_of(&self.aggregate, &log.counters) {
                Ok(found) => found,
                Err(error) => {
                    report_damage(log, run, &error);
                    return None;
                }
            },
        };
        Some((*part.span(), found.unwrap_or(SegmentSet::EMPTY)))
    }
}
