//! Reading a log that another process writes: only what is proven durable is shown
//! (segments-format.md §10).

use std::io;
use std::sync::Arc;

use quipu_types::ReadError;

use super::chain::{Chain, Placed, place};
use super::load;
use crate::format::group::GroupKind;
use crate::format::segment_header::SegmentHeader;
use crate::segment::scanner::{ScanEnd, ScanPoint, Scanner, Source};
use crate::segment::{Segment, WholeGroup};
use crate::shared::Shared;
use crate::storage::{FileKind, StorageFile};

/// How far a read-only log has followed the active segment.
pub struct Follower {
    segment: Arc<Segment>,
    file: Arc<dyn StorageFile>,
    point: ScanPoint,
}

impl Follower {
    /// Follows a segment from its beginning.
    #[must_use]
    pub fn new(segment: Arc<Segment>, file: Arc<dyn StorageFile>) -> Self {
        let point = ScanPoint::start_of(segment.header());
        Self { segment, file, point }
    }

    /// Shows what has become proven since; goes on into segments that were activated since.
    /// Returns how many bytes of groups at the end are not proven yet.
    ///
    /// # Errors
    /// What the disk says.
    pub fn refresh(&mut self, log: &Shared) -> Result<u64, ReadError> {
        loop {
            let unproven = self.refresh_segment(log).map_err(|error| self.io(&error))?;
            if !self.point.sealed || !self.enter_next(log)? {
                return Ok(unproven);
            }
        }
    }

    fn refresh_segment(&mut self, log: &Shared) -> io::Result<u64> {
        let header = self.segment.header().clone();
        let source = Source::File(Arc::clone(&self.file));
        let mut scanner = Scanner::at(source, header, self.point);
        let mut groups: Vec<WholeGroup> = Vec::new();
        let end = loop {
            match scanner.next_group()? {
                Ok(whole) => groups.push(whole),
                Err(end) => break end,
            }
        };
        let closed = end == ScanEnd::Sealed
            || groups.last().is_some_and(|it| it.group.header.kind == GroupKind::Clean);
        let proven = match groups.iter().map(|it| it.group.header.durable_upto).max() {
            Some(_) if closed => scanner.point().offset,
            Some(durable_upto) => durable_upto,
            None => self.point.offset,
        };
        for whole in groups.iter().filter(|it| it.group.header.end() <= proven) {
            load::publish(&self.segment, log.hasher, whole, None);
            self.point = ScanPoint::behind(&whole.group.header);
        }
        log.watermark.advance(self.point.next_position.previous());
        Ok(scanner.point().offset - self.point.offset)
    }

    /// Goes on to the next segment if it was activated.
    fn enter_next(&mut self, log: &Shared) -> Result<bool, ReadError> {
        let numbers = segment_numbers(log).map_err(|error| self.io(&error))?;
        let Ok(chain) = place(&*log.env.storage, &numbers, Some(log.log_id)) else {
            return Ok(false);
        };
        let Some(next) = successor(chain, self.segment.header()) else { return Ok(false) };
        let file = next.open(&*log.env.storage).map_err(|error| self.io(&error))?;
        let segment = Segment::live(next.header, Arc::clone(&file), log.options.tail_bytes);
        let segment = Arc::new(segment);
        log.segments.push(Arc::clone(&segment));
        *self = Self::new(segment, file);
        Ok(true)
    }

    fn io(&self, error: &io::Error) -> ReadError {
        ReadError::Io { segment: self.segment.header().number, problem: error.to_string() }
    }
}

fn segment_numbers(log: &Shared) -> io::Result<Vec<u64>> {
    let mut numbers: Vec<u64> = (log.env.storage.list()?.iter())
        .filter_map(|entry| match FileKind::of(&entry.name) {
            FileKind::Segment(number) => Some(number),
            _ => None,
        })
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

fn successor(chain: Chain, header: &SegmentHeader) -> Option<Placed> {
    chain.placed.into_iter().find(|it| it.header.number == header.number + 1)
}
