//! One segment as readers see it: by position and by aggregate, live or sealed.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use quipu_types::{AggregateKey, Corruption, Filter, Position, ReadError, Record};

use super::open_files::OpenFiles;
use super::sealed_segment::{SealedSegment, candidates, places};
use super::tail::Tail;
use crate::format::group::{Group, GroupHeader, GroupSpan};
use crate::format::index_file::IndexFile;
use crate::format::index_header::IndexFault;
use crate::format::segment_header::SegmentHeader;
use crate::format::zeroed_blocks;
use crate::index::keys::KeyHasher;
use crate::index::live::{LiveIndex, Postings};
use crate::index::rebuild::RebuildError;
use crate::index::sealed_index::SealedIndex;
use crate::storage::{Storage, StorageFile};

/// One segment. It begins live, fed by the sequencer, and is turned over to its index file once
/// that is built; readers notice nothing.
///
/// Invariants:
/// 1. A live segment shows only what the sequencer has found durable ([`Segment::publish`]).
/// 2. A sealed segment never changes, and keeps no file open.
pub struct Segment {
    header: SegmentHeader,
    contents: RwLock<Contents>,
    /// The group read last: reads of neighbours, and comparisons of repeated appends, hit it. Once
    /// the segment is sealed it is a part of the map, and keeps no buffer.
    recent: Mutex<Option<Arc<Group>>>,
}

enum Contents {
    Live { file: Arc<dyn StorageFile>, index: LiveIndex, tail: Tail, last_position: Position },
    Sealed(Arc<SealedSegment>),
}

/// Who knows where a segment's records are.
enum Asked<T> {
    /// The live index, and it said this.
    Live(T),
    /// The index file. It is asked under no lock: it may have to be built again first.
    Sealed(Arc<SealedSegment>),
}

/// Which of a segment's records may meet a filter.
pub enum Candidates {
    /// None.
    None,
    /// Only these, of the aggregate asked for.
    Stream(Postings),
    /// Only these, ascending.
    Listed(Vec<Position>),
    /// Any of them.
    All,
}

impl Segment {
    /// A segment that is being written.
    #[must_use]
    pub fn live(header: SegmentHeader, file: Arc<dyn StorageFile>, tail_bytes: usize) -> Self {
        let last_position = header.first_position.previous();
        let (index, tail) = (LiveIndex::default(), Tail::new(tail_bytes));
        Self::new(header, Contents::Live { file, index, tail, last_position })
    }

    /// A segment that is sealed and indexed.
    #[must_use]
    pub fn sealed(header: SegmentHeader, index: SealedIndex) -> Self {
        let sealed = SealedSegment::new(header.number, index);
        Self::new(header, Contents::Sealed(Arc::new(sealed)))
    }

    fn new(header: SegmentHeader, contents: Contents) -> Self {
        Self { header, contents: RwLock::new(contents), recent: Mutex::new(None) }
    }

    /// Its header.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Length of its file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn file_bytes(&self, files: &OpenFiles) -> io::Result<u64> {
        if let Contents::Live { file, .. } = &*self.contents.read() {
            return file.len();
        }
        files.of_segment(self.header.number)?.len()
    }

    /// Whether it is served from its index file.
    pub fn is_indexed(&self) -> bool {
        matches!(&*self.contents.read(), Contents::Sealed(_))
    }

    /// Position of its last visible record; the one before its first if there is none.
    pub fn last_position(&self) -> Position {
        match &*self.contents.read() {
            Contents::Live { last_position, .. } => *last_position,
            Contents::Sealed(sealed) => sealed.index().last_position(),
        }
    }

    /// Makes a durable group visible. `index_records` adds its records to the live index.
    pub fn publish(
        &self,
        header: &GroupHeader,
        bytes: Bytes,
        index_records: impl FnOnce(&mut LiveIndex),
    ) {
        if let Contents::Live { index, tail, last_position, .. } = &mut *self.contents.write() {
            index.push_group(header);
            index_records(index);
            tail.push(header.offset, bytes);
            *last_position = header.next_position().previous();
        }
    }

    /// What `use_index` makes of the live index, while the segment is served from it.
    pub fn with_live_index<T>(&self, use_index: impl FnOnce(&LiveIndex) -> T) -> Option<T> {
        match self.ask(use_index) {
            Asked::Live(answer) => Some(answer),
            Asked::Sealed(_) => None,
        }
    }

    fn ask<T>(&self, live: impl FnOnce(&LiveIndex) -> T) -> Asked<T> {
        match &*self.contents.read() {
            Contents::Live { index, .. } => Asked::Live(live(index)),
            Contents::Sealed(sealed) => Asked::Sealed(Arc::clone(sealed)),
        }
    }

    /// Serves the segment from its index file from now on.
    pub fn become_sealed(&self, index: SealedIndex) {
        let sealed = SealedSegment::new(self.header.number, index);
        let mut contents = self.contents.write();
        *contents = Contents::Sealed(Arc::new(sealed));
        *self.recent.lock() = None;
    }

    /// Asks the index file about all that it holds, once the segment is served from it.
    ///
    /// # Errors
    /// That there is no valid one, and none can be built.
    pub fn ask_index<T>(
        &self,
        question: impl Fn(&IndexFile) -> Result<T, IndexFault>,
    ) -> Result<Option<T>, RebuildError> {
        match self.ask(|_| ()) {
            Asked::Live(()) => Ok(None),
            Asked::Sealed(sealed) => sealed.index().ask_for_all(question).map(Some),
        }
    }

    fn ask_sealed<T>(
        &self,
        sealed: &SealedSegment,
        question: impl Fn(&IndexFile) -> Result<T, IndexFault>,
    ) -> Result<T, ReadError> {
        sealed.index().ask(question).map_err(|error| match error {
            RebuildError::Corruption(damage) => damage.into(),
            RebuildError::Io(error) => self.io(&error),
        })
    }

    /// An aggregate's records up to `last`.
    fn postings(
        &self,
        hasher: KeyHasher,
        key: &AggregateKey,
        last: Position,
    ) -> Result<Option<Postings>, ReadError> {
        let hash = hasher.aggregate(key);
        let sealed = match self.ask(|live| live.postings(hash, key, last)) {
            Asked::Live(postings) => return Ok(postings),
            Asked::Sealed(sealed) => sealed,
        };
        self.ask_sealed(&sealed, |index| {
            let Some(entry) = index.aggregate(hash, key)? else { return Ok(None) };
            let mut positions = index.positions(&entry)?;
            positions.truncate(positions.partition_point(|position| *position <= last));
            let first_version = entry.first_version;
            Ok((!positions.is_empty()).then_some(Postings { first_version, positions }))
        })
    }

    /// Which records may meet a filter, as far as the index can tell.
    ///
    /// # Errors
    /// That there is no index to be had.
    pub fn candidates(
        &self,
        hasher: KeyHasher,
        filter: &Filter,
        last: Position,
    ) -> Result<Candidates, ReadError> {
        if let Some(key) = &filter.aggregate {
            let postings = self.postings(hasher, key, last)?;
            return Ok(postings.map_or(Candidates::None, Candidates::Stream));
        }
        match self.ask(|_| ()) {
            Asked::Live(()) => Ok(Candidates::All),
            Asked::Sealed(sealed) => {
                self.ask_sealed(&sealed, |index| candidates(index, hasher, filter))
            }
        }
    }

    /// The group that holds `position`, checked. The caller has seen that the position is one of
    /// the segment's.
    ///
    /// # Errors
    /// That it cannot be read, or is damaged.
    pub fn group(
        &self,
        storage: &dyn Storage,
        position: Position,
    ) -> Result<Arc<Group>, ReadError> {
        if let Some(group) = self.recent_group(position) {
            return Ok(group);
        }
        let was_live = !self.is_indexed();
        let span = self.span(position)?.ok_or_else(|| self.damage(position, "no such group"))?;
        let bytes = self.span_bytes(storage, span).map_err(|error| self.io(&error))?;
        let (segment_id, segment_bytes) = (self.header.segment_id, self.header.segment_bytes);
        let group = Group::check(&bytes, segment_id, span.offset, segment_bytes)
            .map_err(|fault| self.damage_at(span, &fault.to_string()))?;
        if group.contains(position) {
            let group = Arc::new(group);
            self.remember(&group, was_live);
            Ok(group)
        } else {
            Err(self.damage_at(span, "the group holds other positions than its index says").into())
        }
    }

    /// The record at `position` alone, where the index of a sealed segment says where it stands and
    /// what its header must be: its group is not looked at. `None` where only the group can tell:
    /// the segment is live, or what stands there is not that record.
    ///
    /// # Errors
    /// That it cannot be read.
    pub fn record(
        &self,
        files: &OpenFiles,
        position: Position,
    ) -> Result<Option<Record>, ReadError> {
        let Asked::Sealed(sealed) = self.ask(|_| ()) else { return Ok(None) };
        let places = self.ask_sealed(&sealed, |index| places(index, position))?;
        let Some((place, next)) = places else { return Ok(None) };
        let record = sealed.record(files, place, next).map_err(|error| self.io(&error))?;
        Ok(record.filter(|record| record.position() == position))
    }

    /// Keeps a group as the one read last, unless the segment was sealed since.
    fn remember(&self, group: &Arc<Group>, was_live: bool) {
        let contents = self.contents.read();
        if matches!(&*contents, Contents::Live { .. }) == was_live {
            *self.recent.lock() = Some(Arc::clone(group));
        }
    }

    fn recent_group(&self, position: Position) -> Option<Arc<Group>> {
        self.recent.lock().as_ref().filter(|group| group.contains(position)).cloned()
    }

    /// Whether reading `position` needs no disk.
    pub fn is_in_memory(&self, position: Position) -> bool {
        self.recent_group(position).is_some() || self.is_in_tail(position)
    }

    /// Whether `position` is in one of the newest groups, which are in memory while the segment is
    /// written.
    pub fn is_in_tail(&self, position: Position) -> bool {
        match &*self.contents.read() {
            Contents::Live { index, tail, .. } => {
                index.group_of(position).is_some_and(|span| tail.get(span.offset).is_some())
            }
            Contents::Sealed(_) => false,
        }
    }

    fn span(&self, position: Position) -> Result<Option<GroupSpan>, ReadError> {
        match self.ask(|live| live.group_of(position)) {
            Asked::Live(span) => Ok(span),
            Asked::Sealed(sealed) => self.ask_sealed(&sealed, |index| index.group_of(position)),
        }
    }

    fn span_bytes(&self, storage: &dyn Storage, span: GroupSpan) -> io::Result<Bytes> {
        let (sealed, file) = match &*self.contents.read() {
            Contents::Sealed(sealed) => (Some(Arc::clone(sealed)), None),
            Contents::Live { file, tail, .. } => match tail.get(span.offset) {
                Some(bytes) => return Ok(bytes),
                None => (None, Some(Arc::clone(file))),
            },
        };
        if let Some(sealed) = sealed {
            return sealed.group_bytes(storage, span);
        }
        let mut buffer = zeroed_blocks(span.bytes);
        let read = file.map_or(Ok(0), |file| file.read(span.offset, &mut buffer))?;
        Ok(Bytes::from_owner(buffer).slice(..read))
    }

    fn io(&self, error: &io::Error) -> ReadError {
        ReadError::Io { segment: self.header.number, problem: error.to_string() }
    }

    /// A corruption at one position of this segment.
    pub fn damage(&self, position: Position, problem: &str) -> Corruption {
        let segment = self.header.number;
        Corruption { segment, first: position, last: position, problem: problem.to_owned() }
    }

    fn damage_at(&self, span: GroupSpan, problem: &str) -> Corruption {
        // The group's own count cannot be trusted; the index knows where the next one begins.
        let mut last = self.last_position();
        let (mut low, mut high) = (span.first_position, last);
        while low < high {
            let middle = Position(u64::midpoint(low.0, high.0)).next();
            let found = self.span(middle).ok().flatten();
            let same = found.is_some_and(|found| found.offset == span.offset);
            if same { low = middle } else { high = middle.previous() }
        }
        last = last.min(low);
        Corruption {
            segment: self.header.number,
            first: span.first_position,
            last,
            problem: format!("at offset {}: {problem}", span.offset),
        }
    }
}
