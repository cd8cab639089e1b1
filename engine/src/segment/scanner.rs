//! Walks a segment's groups from its first to the first one that is not there or not valid.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use quipu_types::{Position, Record};

use crate::format::group::{Group, GroupFault, GroupHeader, GroupKind};
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, GROUP_BYTES_MAX, block_ceil, is_zero, zeroed_blocks};
use crate::storage::StorageFile;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// What is read ahead, at first and at most: whoever follows a writer needs little, and often.
const AHEAD_BYTES_FIRST: usize = 64 << 10;
const AHEAD_BYTES_MAX: usize = 4 << 20;

/// Where a segment's bytes come from.
pub enum Source {
    /// A file that may still be written to: read directly, a window at a time.
    File(Arc<dyn StorageFile>),
    /// The whole of a sealed segment.
    Sealed(Bytes),
}

/// Reads the groups of one segment in order.
pub struct Scanner {
    source: Source,
    header: SegmentHeader,
    window: Bytes,
    window_offset: u64,
    ahead_bytes: usize,
    point: ScanPoint,
}

/// A group that is valid, with its records, each checked, in order.
pub struct WholeGroup {
    /// The group.
    pub group: Group,
    /// Its records.
    pub records: Vec<Record>,
}

/// How far a scan has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScanPoint {
    /// Where the next group is expected.
    pub offset: u64,
    /// Sum of the last group taken, or of the segment header.
    pub chain: u64,
    /// Epoch of the last group taken, or of the segment header.
    pub epoch: u64,
    /// Position of the next record.
    pub next_position: Position,
    /// The last group taken was SEAL.
    pub sealed: bool,
}

impl ScanPoint {
    /// The beginning of a segment.
    #[must_use]
    pub fn start_of(header: &SegmentHeader) -> Self {
        Self {
            offset: BLOCK,
            chain: header.chain(),
            epoch: header.epoch,
            next_position: header.first_position,
            sealed: false,
        }
    }

    /// Behind a group.
    #[must_use]
    pub fn behind(group: &GroupHeader) -> Self {
        Self {
            offset: group.end(),
            chain: group.sum,
            epoch: group.epoch,
            next_position: group.next_position(),
            sealed: group.kind == GroupKind::Seal,
        }
    }
}

/// Why there is no next group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScanEnd {
    /// The last group was SEAL.
    Sealed,
    /// Zeros, or the end of the file, follow.
    Zeros,
    /// Something follows that is not a valid group.
    Fault(GroupFault),
    /// A valid group follows that does not continue the segment.
    Chain(String),
}

impl std::fmt::Display for ScanEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sealed => f.write_str("the segment is sealed"),
            Self::Zeros => f.write_str("zeros where the next group belongs"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Chain(problem) => f.write_str(problem),
        }
    }
}

impl Scanner {
    /// A scanner at the segment's first group.
    #[must_use]
    pub fn new(source: Source, header: SegmentHeader) -> Self {
        let point = ScanPoint::start_of(&header);
        Self::at(source, header, point)
    }

    /// A scanner that goes on where another ended.
    #[must_use]
    pub fn at(source: Source, header: SegmentHeader, point: ScanPoint) -> Self {
        let (window, window_offset, ahead_bytes) = (Bytes::new(), 0, AHEAD_BYTES_FIRST);
        Self { source, header, window, window_offset, ahead_bytes, point }
    }

    /// How far it has come.
    #[must_use]
    pub fn point(&self) -> ScanPoint {
        self.point
    }

    /// The next group that is valid (its records too) and continues the segment.
    ///
    /// # Errors
    /// Only what the disk says; an invalid group is an end, not an error.
    pub fn next_group(&mut self) -> io::Result<Result<WholeGroup, ScanEnd>> {
        if self.point.sealed {
            return Ok(Err(ScanEnd::Sealed));
        }
        let group = match self.group_at(self.point.offset)? {
            Ok(group) => group,
            Err(GroupFault::Header) if self.is_zero_at(self.point.offset)? => {
                return Ok(Err(ScanEnd::Zeros));
            }
            Err(fault) => return Ok(Err(ScanEnd::Fault(fault))),
        };
        if let Some(problem) = self.breaks_chain(&group.header) {
            return Ok(Err(ScanEnd::Chain(problem)));
        }
        let records = match group.records().collect::<Result<Vec<Record>, _>>() {
            Ok(records) => records,
            Err(fault) => return Ok(Err(ScanEnd::Fault(fault))),
        };
        self.point = ScanPoint::behind(&group.header);
        Ok(Ok(WholeGroup { group, records }))
    }

    fn breaks_chain(&self, header: &GroupHeader) -> Option<String> {
        let expected = &self.point;
        if header.chain != expected.chain {
            return Some("the group does not follow the one before it (its chain differs)".into());
        }
        if header.first_position != expected.next_position {
            let (found, expected) = (header.first_position, expected.next_position);
            return Some(format!("the group begins at position {found}, expected {expected}"));
        }
        if header.epoch < expected.epoch {
            let (found, before) = (header.epoch, expected.epoch);
            return Some(format!("the group is of epoch {found}, the one before of {before}"));
        }
        None
    }

    /// After an invalid group: goes on at the next valid one, whatever stands between; says which.
    ///
    /// # Errors
    /// What the disk says.
    pub fn skip_damage(&mut self) -> io::Result<Option<GroupHeader>> {
        let mut offset = self.point.offset;
        loop {
            let block = self.bytes_at(offset, BLOCK_BYTES)?;
            if block.is_empty() {
                return Ok(None);
            }
            if let Some(group) = self.valid_group_at(offset)?
                && (offset > self.point.offset || group.chain != self.point.chain)
            {
                self.point = ScanPoint { offset, chain: group.chain, ..ScanPoint::behind(&group) };
                self.point.next_position = group.first_position;
                self.point.sealed = false;
                return Ok(Some(group));
            }
            offset += BLOCK;
        }
    }

    /// The header of the group at `offset` if it is valid, its records too.
    fn valid_group_at(&mut self, offset: u64) -> io::Result<Option<GroupHeader>> {
        let group = self.group_at(offset)?.ok();
        let is_whole = |group: &Group| group.records().all(|record| record.is_ok());
        Ok(group.filter(is_whole).map(|group| group.header))
    }

    /// Every valid group at any block from the scanner's place on, whatever stands between them:
    /// what recovery's lower bound is made of. Also says whether anything there is not zero.
    ///
    /// # Errors
    /// What the disk says.
    pub fn stray_groups(&mut self) -> io::Result<Strays> {
        let mut strays = Strays { groups: Vec::new(), last_nonzero: None };
        let mut offset = self.point.offset;
        loop {
            let block = self.bytes_at(offset, BLOCK_BYTES)?;
            if block.is_empty() {
                return Ok(strays);
            }
            if !is_zero(&block) {
                strays.last_nonzero = Some(offset);
                let found = GroupHeader::decode(&block).is_some();
                if found && let Ok(group) = self.group_at(offset)? {
                    strays.groups.push(group.header);
                }
            }
            offset += BLOCK;
        }
    }

    fn group_at(&mut self, offset: u64) -> io::Result<Result<Group, GroupFault>> {
        let (segment_id, segment_bytes) = (self.header.segment_id, self.header.segment_bytes);
        let block = self.bytes_at(offset, BLOCK_BYTES)?;
        let group_bytes = match GroupHeader::decode(&block) {
            Some(header) => (header.group_bytes as usize).min(GROUP_BYTES_MAX),
            None => return Ok(Err(GroupFault::Header)),
        };
        // What is wrong with the header's place is known before the rest, up to 17 MiB, is read.
        match Group::check(&block, segment_id, offset, segment_bytes) {
            Err(GroupFault::Short) => {}
            checked => return Ok(checked),
        }
        let bytes = self.bytes_at(offset, group_bytes)?;
        Ok(Group::check(&bytes, segment_id, offset, segment_bytes))
    }

    fn is_zero_at(&mut self, offset: u64) -> io::Result<bool> {
        Ok(is_zero(&self.bytes_at(offset, BLOCK_BYTES)?))
    }

    /// The bytes at `offset`, fewer than `length` only at the end.
    fn bytes_at(&mut self, offset: u64, length: usize) -> io::Result<Bytes> {
        let file = match &self.source {
            Source::Sealed(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                let end = start.saturating_add(length).min(bytes.len());
                return Ok(bytes.slice(start..end));
            }
            Source::File(file) => file,
        };
        let wanted = offset + length as u64;
        if !self.holds(offset, wanted) && !self.holds(offset, wanted.min(file.len()?)) {
            let left = usize::try_from(file.len()?.saturating_sub(offset)).unwrap_or(usize::MAX);
            // More than was asked for: else blocks that all claim a long group would each cost one.
            let mut buffer = zeroed_blocks(block_ceil((length + self.ahead_bytes).min(left)));
            let read = file.read(offset, &mut buffer)?;
            self.window = Bytes::from_owner(buffer).slice(..read);
            self.window_offset = offset;
            self.ahead_bytes = (self.ahead_bytes * 2).min(AHEAD_BYTES_MAX);
        }
        let start = usize::try_from(offset - self.window_offset).map_err(io::Error::other)?;
        let start = start.min(self.window.len());
        let end = (start + length).min(self.window.len());
        Ok(self.window.slice(start..end))
    }

    /// Whether the window has everything from `offset` to `end`.
    fn holds(&self, offset: u64, end: u64) -> bool {
        offset >= self.window_offset && end <= self.window_offset + self.window.len() as u64
    }
}

/// What stands behind the last valid group.
#[derive(Debug)]
pub struct Strays {
    /// Headers of valid groups that do not continue the segment.
    pub groups: Vec<GroupHeader>,
    /// Offset of the last block that is not zero.
    pub last_nonzero: Option<u64>,
}
