//! The place in the active segment where the next group goes, and the space ahead of it.

use std::sync::Arc;

use quipu_types::Position;

use super::preparer::{PrepareJob, Spare, ZERO_BYTES};
use crate::bug::{Bug, seeded};
use crate::format::BLOCK_BYTES;
use crate::format::group::{GroupHeader, GroupPlace};
use crate::segment::Segment;
use crate::storage::StorageFile;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Space kept ready ahead of the head: as much as was written, within these bounds, so that a
/// small log stays small.
const AHEAD_BYTES_MIN: u64 = 1 << 20;
const AHEAD_BYTES_MAX: u64 = 16 << 20;
/// Behind the head, zeroing goes on so far ahead of it; the gap is used as it is.
const ZERO_LEAD_BYTES: u64 = 4 << 20;
/// Groups that are usually at least so large are written into space as it was allocated: the file
/// system's work for each of them then costs less than writing every byte twice.
const LARGE_GROUP_BYTES: u64 = 128 << 10;
/// Blocks that a group of appends leaves free in its segment: WITNESS or CLEAN, START, SEAL.
const RESERVED_BLOCKS: u64 = 3;

/// The write head.
///
/// Invariants:
/// 1. Every byte before `offset` belongs to a group that was submitted; nothing is ever written
///    there again.
/// 2. `durable <= offset`: the end of the longest run of durable groups.
/// 3. A group is placed only in allocated space that nobody is zeroing, and leaves room for SEAL.
pub struct Head {
    segment: Arc<Segment>,
    file: Arc<dyn StorageFile>,
    offset: u64,
    chain: u64,
    durable: u64,
    allocated: u64,
    zeroed: u64,
    zeroing: Option<(u64, u64)>,
    /// Moving average of the groups' sizes.
    usual_bytes: u64,
}

/// Whether a group finds room at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// It does.
    Fits,
    /// Not in this segment.
    SegmentFull,
    /// Not yet: space must be allocated first.
    NotAllocated,
    /// Not yet: the place is being zeroed.
    BeingZeroed,
}

impl Head {
    /// A head at `offset` of a segment whose groups so far are all durable.
    #[must_use]
    pub fn new(
        segment: Arc<Segment>,
        file: Arc<dyn StorageFile>,
        offset: u64,
        chain: u64,
        allocated: u64,
        zeroed: u64,
    ) -> Self {
        let (durable, zeroing, usual_bytes) = (offset, None, 0);
        Self { segment, file, offset, chain, durable, allocated, zeroed, zeroing, usual_bytes }
    }

    /// A head at the first group of a segment that was just activated from a spare.
    #[must_use]
    pub fn of_spare(segment: Arc<Segment>, spare: &Spare) -> Self {
        let chain = segment.header().chain();
        Self::new(segment, Arc::clone(&spare.file), BLOCK, chain, spare.allocated, spare.zeroed)
    }

    /// The active segment.
    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The active segment's file.
    pub fn file(&self) -> &Arc<dyn StorageFile> {
        &self.file
    }

    /// Where the next group goes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Sum of the last group.
    pub fn chain(&self) -> u64 {
        self.chain
    }

    /// The next group's place.
    pub fn place(&self, epoch: u64, first_position: Position) -> GroupPlace {
        GroupPlace {
            segment_id: self.segment.header().segment_id,
            epoch,
            offset: self.offset,
            first_position,
            durable_upto: if seeded(Bug::ClaimsTooMuchDurable) {
                self.offset
            } else {
                self.durable
            },
            chain: self.chain,
        }
    }

    /// Whether a group of appends of this size finds room.
    pub fn room(&self, bytes: u64) -> Room {
        self.room_leaving(bytes, RESERVED_BLOCKS * BLOCK)
    }

    /// Whether a group without appends, of one block, finds room before SEAL.
    pub fn room_for_mark(&self) -> Room {
        self.room_leaving(BLOCK, BLOCK)
    }

    /// Whether SEAL finds room; in its segment it always does.
    pub fn room_for_seal(&self) -> Room {
        self.room_leaving(BLOCK, 0)
    }

    fn room_leaving(&self, bytes: u64, rest: u64) -> Room {
        let end = self.offset + bytes;
        if end + rest > self.segment.header().segment_bytes {
            Room::SegmentFull
        } else if end + rest > self.allocated {
            Room::NotAllocated
        } else if self.zeroing.is_some_and(|(from, to)| self.offset < to && from < end) {
            Room::BeingZeroed
        } else {
            Room::Fits
        }
    }

    /// The group was submitted: the head is behind it.
    pub fn submitted(&mut self, header: &GroupHeader) {
        self.offset = header.end();
        self.chain = header.sum;
        self.usual_bytes = (7 * self.usual_bytes + u64::from(header.group_bytes)) / 8;
    }

    /// The group, and all before it, are durable.
    pub fn durable(&mut self, header: &GroupHeader) {
        self.durable = header.end();
    }

    /// Space up to `end` is allocated.
    pub fn allocated(&mut self, end: u64) {
        self.allocated = self.allocated.max(end);
    }

    /// The zeroing under way has ended, at `to` unless it failed.
    pub fn zeroed(&mut self, to: Option<u64>) {
        self.zeroing = None;
        self.zeroed = to.unwrap_or(self.zeroed);
    }

    /// What to prepare next, given the size of the append that waits.
    pub fn plan(&mut self, next_bytes: u64, reserve: u64) -> Option<PrepareJob> {
        let segment_bytes = self.segment.header().segment_bytes;
        let file = || Arc::clone(&self.file);
        let segment = self.segment.header().number;
        let ahead = self.offset.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
        let next = next_bytes.next_multiple_of(BLOCK) + (RESERVED_BLOCKS + 1) * BLOCK;
        let least = (self.offset + next.max(ahead / 2)).min(segment_bytes);
        if self.allocated < least {
            let end = (self.offset + next.max(ahead)).next_multiple_of(BLOCK).min(segment_bytes);
            return Some(PrepareJob::Allocate { file: file(), segment, end, reserve });
        }
        if self.usual_bytes >= LARGE_GROUP_BYTES {
            return None;
        }
        let behind = self.zeroed < self.offset;
        let from = if behind { self.offset + ZERO_LEAD_BYTES } else { self.zeroed };
        let to = (from + ZERO_BYTES as u64).min(self.allocated);
        if from >= to || from >= self.offset + ahead {
            return None;
        }
        self.zeroing = Some((from, to));
        Some(PrepareJob::Zero { file: file(), segment, from, to })
    }

    /// Whether the segment is near enough to its end that the next one should be ready.
    pub fn wants_spare(&self) -> bool {
        let segment_bytes = self.segment.header().segment_bytes;
        self.offset + (2 * AHEAD_BYTES_MAX).min(segment_bytes / 2) >= segment_bytes
    }

    /// Space that a spare begins with.
    pub fn spare_bytes(segment_bytes: u64) -> u64 {
        AHEAD_BYTES_MIN.min(segment_bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use quipu_types::{Timestamp, Uuid};

    use super::*;
    use crate::format::segment_header::SegmentHeader;
    use crate::storage::StorageFile;

    struct NoFile;

    impl StorageFile for NoFile {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
            Ok(0)
        }
        fn write_durable(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Ok(())
        }
        fn allocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn head(offset: u64) -> Head {
        let header = SegmentHeader {
            log_id: Uuid::from_u128(1),
            segment_id: Uuid::from_u128(2),
            number: 1,
            first_position: Position::FIRST,
            epoch: 1,
            created_at: Timestamp::from_micros(0),
            segment_bytes: 64 << 20,
            previous_end: 0,
            previous_chain: 0,
            last_recorded_at: Timestamp::from_micros(0),
        };
        let segment = Segment::live(header, Arc::new(NoFile), 0);
        Head::new(Arc::new(segment), Arc::new(NoFile), offset, 0, 64 << 20, BLOCK)
    }

    #[test]
    fn a_place_is_taken_while_it_is_zeroed_and_free_again_also_when_that_failed() {
        let mut head = head(8 << 20);
        let Some(PrepareJob::Zero { from, to, .. }) = head.plan(0, 0) else {
            panic!("the head has run ahead of the zeros");
        };
        head.offset = from;
        assert_eq!(head.room(BLOCK), Room::BeingZeroed);
        head.zeroed(None);
        assert_eq!(head.room(BLOCK), Room::Fits);
        assert!(head.zeroed < to, "and it does not count as zeroed");
    }

    #[test]
    fn the_last_blocks_of_a_segment_are_kept_for_its_end() {
        let end = 64 << 20;
        assert_eq!(head(end - 4 * BLOCK).room(BLOCK), Room::Fits);
        assert_eq!(head(end - 3 * BLOCK).room(BLOCK), Room::SegmentFull);
        assert_eq!(head(end - 2 * BLOCK).room_for_mark(), Room::Fits);
        assert_eq!(head(end - BLOCK).room_for_mark(), Room::SegmentFull);
        assert_eq!(head(end - BLOCK).room_for_seal(), Room::Fits);
    }
}
