//! The roll, a barrier: every group of segment N durable, then SEAL, then the header of N+1, and
//! only then groups there (segments-format.md §9).

use std::sync::Arc;

use super::{InFlight, Sequencer, Step, Written};
use crate::bug::{Bug, seeded};
use crate::commit::head::{Head, Room};
use crate::commit::preparer::Spare;
use crate::format::group::{GroupHeader, GroupKind};
use crate::format::run_file::Span;
use crate::format::segment_header::SegmentHeader;
use crate::index::indexer::IndexWork;
use crate::segment::Segment;
use crate::storage::GroupWrite;

/// How far a roll has come.
pub(super) enum Roll {
    /// None is under way.
    No,
    /// The next group does not fit: no more groups here.
    Wanted,
    /// SEAL is in flight.
    Sealing,
    /// SEAL is durable; the next header can be written.
    Sealed(GroupHeader),
    /// The next header is in flight.
    Activating,
}

impl Roll {
    pub(super) fn is_no(&self) -> bool {
        matches!(self, Self::No)
    }

    /// Whether the roll waits for the next file. Once SEAL is submitted the file is there.
    pub(super) fn needs_spare(&self) -> bool {
        matches!(self, Self::Wanted)
            || matches!(self, Self::Activating) && seeded(Bug::PreparesASpareTwice)
    }
}

impl Sequencer {
    /// The roll's next write, once what it waits for is there.
    pub(super) fn next_roll_write(&mut self, step: &mut Step) -> Option<GroupWrite> {
        match &self.roll {
            Roll::Wanted if self.spare.is_none() || self.head.room_for_seal() != Room::Fits => {
                self.refuse_without_space(step);
                self.next_mark_in_roll()
            }
            Roll::Wanted if self.in_flight.is_empty() || seeded(Bug::NoRollBarrier) => {
                Some(self.seal())
            }
            Roll::Sealed(seal) => {
                let seal = *seal;
                self.activate(&seal)
            }
            Roll::No | Roll::Wanted | Roll::Sealing | Roll::Activating => None,
        }
    }

    fn seal(&mut self) -> GroupWrite {
        self.roll = Roll::Sealing;
        self.unwitnessed = false;
        let builder = self.builder(0);
        let write = self.submit(builder, GroupKind::Seal, Vec::new(), Vec::new());
        if seeded(Bug::NoRollBarrier)
            && let Some(Written::Group { header, .. }) = self.in_flight.back().map(|it| &it.written)
        {
            self.roll = Roll::Sealed(*header);
        }
        write
    }

    /// SEAL is durable.
    pub(super) fn sealed(&mut self, seal: &GroupHeader) {
        let segment = Arc::clone(self.head.segment());
        let header = segment.header();
        self.known.seal(&self.log, Span::of_segment(header.number, header.first_position, seal));
        self.log.index_queue.push(IndexWork::Sealed(segment, *seal));
        if !seeded(Bug::NoRollBarrier) {
            self.roll = Roll::Sealed(*seal);
        }
    }

    fn activate(&mut self, seal: &GroupHeader) -> Option<GroupWrite> {
        let spare = self.spare.take()?;
        let next = self.head.segment().header().number + 1;
        assert_eq!(spare.segment, next, "a segment is activated once, in order (invariant 5)");
        let env = &self.log.env;
        let header = SegmentHeader {
            log_id: self.log.log_id,
            segment_id: env.entropy.uuid(),
            number: spare.segment,
            first_position: self.next_position,
            epoch: self.epoch,
            created_at: env.clock.now(),
            segment_bytes: self.log.options.segment_bytes,
            previous_end: seal.end(),
            previous_chain: seal.sum,
            last_recorded_at: self.last_recorded_at,
        };
        let bytes = bytes::Bytes::from_owner(header.encode());
        let file = Arc::clone(&spare.file);
        let segment = Segment::live(header, Arc::clone(&file), self.log.options.tail_bytes);
        self.roll = Roll::Activating;
        let done = self.completion();
        let ticket = done.ticket();
        let written = Written::SegmentHeader(Arc::new(segment), spare);
        let (begun, answers) = (self.log.env.clock.monotonic(), Vec::new());
        self.in_flight.push_back(InFlight { ticket, begun, durable: false, written, answers });
        Some(GroupWrite { file, offset: 0, bytes, done })
    }

    /// The next header is durable: groups go there from now on.
    pub(super) fn activated(&mut self, segment: Arc<Segment>, spare: &Spare) {
        self.log.segments.push(Arc::clone(&segment));
        self.head = Head::of_spare(segment, spare);
        self.roll = Roll::No;
    }
}
