//! Reading a log that another process writes: only what is proven durable is shown
//! (segments-format.md §10).

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quipu_types::{Corruption, Position, ReadError};

use super::chain::{Chain, place_from};
use super::decide::{TailFacts, decide};
use super::folder::Folder;
use super::judge::Behind;
use super::load;
use crate::error::OpenError;
use crate::format::group::{GroupHeader, GroupKind};
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, is_zero, zeroed_blocks};
use crate::host::tell;
use crate::index::sealed_index::SealedIndex;
use crate::segment::scanner::{ScanEnd, ScanPoint, Scanner, Source};
use crate::segment::{Segment, WholeGroup};
use crate::shared::{LogState, Shared};
use crate::storage::StorageFile;

/// Segments left behind that may wait for their index files. Whoever reads one that has none makes
/// an index of its own, in memory.
const PASSED_MAX: usize = 2;
/// So many times in a row zeros are taken for the end of the log, as they mostly are, before what
/// follows them is looked through: for a group that was lost.
const ZEROS_BELIEVED: u32 = 1_000;
/// At the latest after so many more it is looked through again.
const LOOKS_BETWEEN_MAX: u32 = 1 << 16;
/// So many times in a row the next segment must be found missing or broken: a read that fails for a
/// while looks the same.
const BREAKS_BELIEVED: u32 = 50;

/// How far a read-only log has followed the active segment.
///
/// Invariants:
/// 1. Shown is what is proven durable, in order; `point` is behind it.
/// 2. A segment left behind is served from its index file as soon as the writer has made it: its
///    file, its tail and its index in memory do not stay.
/// 3. What looks like damage is damage if it was durable once, and still stands so when it is read
///    again: then the log's state says so, and so does whoever reads up to there.
pub struct Follower {
    segment: Arc<Segment>,
    file: Arc<dyn StorageFile>,
    point: ScanPoint,
    /// Left behind, each with its SEAL.
    passed: VecDeque<(Arc<Segment>, GroupHeader)>,
    stop: Option<Stop>,
}

/// Where there was nothing to go on with.
struct Stop {
    offset: u64,
    sight: Sight,
    /// How often in a row.
    looks: u32,
}

/// What is there instead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sight {
    Zeros,
    NoGroup,
    NoSegment,
}

impl Follower {
    /// Follows a segment from its beginning.
    #[must_use]
    pub fn new(segment: Arc<Segment>, file: Arc<dyn StorageFile>) -> Self {
        let point = ScanPoint::start_of(segment.header());
        Self { segment, file, point, passed: VecDeque::new(), stop: None }
    }

    /// Shows what has become proven since; goes on into segments that were activated since.
    /// Returns how many bytes of groups at the end are not proven yet.
    ///
    /// # Errors
    /// What the disk says, or that the writer is of a newer version.
    pub fn refresh(&mut self, log: &Shared) -> Result<u64, ReadError> {
        if log.damage().is_some() {
            return Ok(0);
        }
        loop {
            self.turn_over_passed(log);
            let unproven = self.refresh_segment(log).map_err(|error| self.io(&error))?;
            if !self.point.sealed || !self.enter_next(log)? {
                return Ok(unproven);
            }
        }
    }

    /// Shows every group up to damage that was found: it proves that they were durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn show_all(&mut self, log: &Shared) -> Result<(), ReadError> {
        let mut scanner = self.scanner(self.point);
        let mut groups = VecDeque::new();
        self.scan(log, &mut scanner, &mut groups).map_err(|error| self.io(&error))?;
        self.show(log, &mut groups, scanner.point().offset);
        Ok(())
    }

    fn refresh_segment(&mut self, log: &Shared) -> io::Result<u64> {
        if self.point.sealed {
            return Ok(0);
        }
        let mut scanner = self.scanner(self.point);
        let mut unproven = VecDeque::new();
        let end = self.scan(log, &mut scanner, &mut unproven)?;
        let end_at = scanner.point();
        if let Some(damage) = self.look_into(&mut scanner, &end)? {
            self.show(log, &mut unproven, end_at.offset);
            damaged(log, damage);
        }
        Ok(end_at.offset - self.point.offset)
    }

    fn scan(
        &mut self,
        log: &Shared,
        scanner: &mut Scanner,
        unproven: &mut VecDeque<WholeGroup>,
    ) -> io::Result<ScanEnd> {
        if self.is_at_the_end()? {
            return Ok(ScanEnd::Zeros);
        }
        let mut proven = self.point.offset;
        loop {
            match scanner.next_group()? {
                Ok(whole) => {
                    proven = proven.max(proven_by(&whole.group.header));
                    unproven.push_back(whole);
                    self.show(log, unproven, proven);
                }
                Err(end) => return Ok(end),
            }
        }
    }

    /// Whether there is nothing new, as mostly: a look at one block.
    fn is_at_the_end(&self) -> io::Result<bool> {
        let mut block = zeroed_blocks(BLOCK_BYTES);
        let read = self.file.read(self.point.offset, &mut block)?;
        Ok(is_zero(&block[..read]))
    }

    fn scanner(&self, point: ScanPoint) -> Scanner {
        let source = Source::File(Arc::clone(&self.file));
        Scanner::at(source, self.segment.header().clone(), point)
    }

    /// Shows the groups that end at or before `proven`.
    fn show(&mut self, log: &Shared, groups: &mut VecDeque<WholeGroup>, proven: u64) {
        while groups.front().is_some_and(|it| it.group.header.end() <= proven) {
            let Some(whole) = groups.pop_front() else { return };
            // A copy: what is kept would otherwise keep all that was read with it.
            let mut copy = zeroed_blocks(whole.group.bytes().len());
            copy.copy_from_slice(whole.group.bytes());
            load::publish(&self.segment, log.hasher, &whole, Bytes::from_owner(copy), None);
            self.point = ScanPoint::behind(&whole.group.header);
        }
        log.watermark.advance(self.point.next_position.previous());
    }

    /// What stands where the scanner ended, if it is damage. Looking through all that follows takes
    /// time, so it is done more and more seldom.
    fn look_into(
        &mut self,
        scanner: &mut Scanner,
        end: &ScanEnd,
    ) -> io::Result<Option<Corruption>> {
        let (sight, believed) = match end {
            ScanEnd::Sealed => return Ok(None),
            ScanEnd::Zeros => (Sight::Zeros, ZEROS_BELIEVED),
            ScanEnd::Fault(_) | ScanEnd::Chain(_) => (Sight::NoGroup, 1),
        };
        let at = scanner.point();
        let looks = self.look(at.offset, sight);
        let is_due = looks.is_power_of_two() || looks.is_multiple_of(LOOKS_BETWEEN_MAX);
        if looks <= believed || !is_due {
            return Ok(None);
        }
        let strays = scanner.stray_groups()?;
        let durable_upto = strays.groups.iter().map(|group| group.durable_upto).max().unwrap_or(0);
        let case =
            decide(&TailFacts { end: at.offset, durable_upto, last_nonzero: strays.last_nonzero });
        if !case.is_damage() {
            return Ok(None);
        }
        Ok(self.scanner(at).next_group()?.err().map(|end| Corruption {
            segment: self.segment.header().number,
            first: at.next_position,
            last: Position::MAX,
            problem: format!("at offset {}: {end}; more follows", at.offset),
        }))
    }

    /// Goes on to the next segment if it was activated.
    fn enter_next(&mut self, log: &Shared) -> Result<bool, ReadError> {
        let number = self.segment.header().number;
        // What stands before it was in its place when it was passed.
        let mut numbers = Folder::read(&log.env).map_err(|error| self.unplaced(&error))?.segments;
        numbers.retain(|it| *it >= number);
        let chain = place_from(&*log.env.storage, number, &numbers, Some(log.log_id))
            .and_then(Chain::unless_refused)
            .map_err(|error| self.unplaced(&error))?;
        let mut from_here = chain.placed.into_iter();
        let seal = from_here.next().and_then(|placed| placed.seal);
        if let (Some(seal), Some(next)) = (seal, from_here.next()) {
            let file = next.open(&*log.env.storage).map_err(|error| self.io(&error))?;
            self.enter(log, seal, next.header, file);
            return Ok(true);
        }
        let file = chain.last_file.as_ref().map(|(_, file)| file);
        let next_position = self.point.next_position;
        let behind = Behind { last: number, is_sealed: true, next_position, file };
        let damage = chain.damage.or_else(|| behind.damage());
        let sight = if damage.is_some() { Sight::NoSegment } else { Sight::Zeros };
        let looks = self.look(self.point.offset, sight);
        if let Some(damage) = damage.filter(|_| looks >= BREAKS_BELIEVED) {
            damaged(log, damage);
        }
        Ok(false)
    }

    /// How often in a row this was seen there, this time included.
    fn look(&mut self, offset: u64, sight: Sight) -> u32 {
        let before = self.stop.take().filter(|it| it.offset == offset && it.sight == sight);
        let looks = before.map_or(0, |stop| stop.looks).saturating_add(1);
        self.stop = Some(Stop { offset, sight, looks });
        looks
    }

    fn enter(
        &mut self,
        log: &Shared,
        seal: GroupHeader,
        header: SegmentHeader,
        file: Arc<dyn StorageFile>,
    ) {
        let next = Arc::new(Segment::live(header, Arc::clone(&file), log.options.tail_bytes));
        log.segments.push(Arc::clone(&next));
        let passed = std::mem::replace(&mut self.segment, next);
        self.passed.push_back((passed, seal));
        self.file = file;
        self.point = ScanPoint::start_of(self.segment.header());
        self.stop = None;
    }

    /// Serves segments left behind from their index files, as far as those are there.
    fn turn_over_passed(&mut self, log: &Shared) {
        while let Some((segment, seal)) = self.passed.front() {
            let header = segment.header().clone();
            let index = SealedIndex::new(&log.env.storage, header, *seal, false);
            if !index.is_there() && self.passed.len() <= PASSED_MAX {
                return;
            }
            segment.become_sealed(index);
            self.passed.pop_front();
        }
    }

    fn unplaced(&self, error: &OpenError) -> ReadError {
        ReadError::Io { segment: self.segment.header().number + 1, problem: error.to_string() }
    }

    fn io(&self, error: &io::Error) -> ReadError {
        ReadError::Io { segment: self.segment.header().number, problem: error.to_string() }
    }
}

/// Up to where a group proves its segment durable; one that closes proves itself.
fn proven_by(group: &GroupHeader) -> u64 {
    match group.kind {
        GroupKind::Clean | GroupKind::Seal => group.end(),
        _ => group.durable_upto,
    }
}

/// Whoever follows the log is told, behind the last of what is shown.
fn damaged(log: &Shared, mut damage: Corruption) {
    damage.first = damage.first.max(log.watermark.current().next());
    tell!(error, %damage, "what another process writes is damaged");
    log.set_state(LogState::Damaged(damage));
}
