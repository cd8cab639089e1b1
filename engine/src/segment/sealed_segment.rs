//! A sealed segment as readers see it: found by its index file, its bytes mapped for scans, single
//! records read alone.

use std::io;
use std::sync::OnceLock;

use bytes::Bytes;
use quipu_types::record::{HEADER_BYTES, RecordBuffer, RecordHeader};
use quipu_types::{Filter, Position, Record};

use super::open_files::OpenFiles;
use super::segment::Candidates;
use crate::bug::{Bug, seeded};
use crate::format::GROUP_BYTES_MAX;
use crate::format::group::GroupSpan;
use crate::format::index_file::{IndexFile, RecordPlace};
use crate::format::index_header::IndexFault;
use crate::index::keys::KeyHasher;
use crate::index::sealed_index::SealedIndex;
use crate::storage::{ReadOrder, Storage, segment_name};

/// Bytes to read where it is not known how long a record is.
const RECORD_BYTES_USUAL: usize = 4 << 10;
/// Bytes to read of a record before its header is known.
const RECORD_BYTES_FIRST_MAX: u64 = 64 << 10;

/// A sealed segment's index, and its bytes once somebody has scanned it.
pub struct SealedSegment {
    number: u64,
    index: SealedIndex,
    whole: OnceLock<Bytes>,
}

impl SealedSegment {
    /// The segment of this number, with its index.
    #[must_use]
    pub fn new(number: u64, index: SealedIndex) -> Self {
        Self { number, index, whole: OnceLock::new() }
    }

    /// Its index.
    #[must_use]
    pub fn index(&self) -> &SealedIndex {
        &self.index
    }

    /// The bytes of a group, fewer where the file ends.
    ///
    /// # Errors
    /// What the disk says.
    pub fn group_bytes(&self, storage: &dyn Storage, span: GroupSpan) -> io::Result<Bytes> {
        let whole = if let Some(whole) = self.whole.get() {
            whole
        } else {
            let whole = storage.map(&segment_name(self.number), ReadOrder::Sequential)?;
            self.whole.get_or_init(|| whole)
        };
        let start = usize::try_from(span.offset).unwrap_or(usize::MAX).min(whole.len());
        Ok(whole.slice(start..(start + span.bytes).min(whole.len())))
    }

    /// The record that stands at a place, by itself; none if its header or its archive is not as it
    /// was written. `next` is where the record after it stands.
    ///
    /// # Errors
    /// What the disk says.
    pub fn record(
        &self,
        files: &OpenFiles,
        place: RecordPlace,
        next: Option<RecordPlace>,
    ) -> io::Result<Option<Record>> {
        let file = files.of_segment(self.number)?;
        let bytes = next.map_or(0, |next| next.offset.saturating_sub(place.offset));
        let bytes = usize::try_from(bytes.min(RECORD_BYTES_FIRST_MAX)).unwrap_or(0);
        let mut buffer = RecordBuffer::new();
        buffer.resize(if bytes < HEADER_BYTES { RECORD_BYTES_USUAL } else { bytes }, 0);
        let mut read = file.read(place.offset, &mut buffer)?;
        let Some(header) = RecordHeader::decode(&buffer[..read]) else { return Ok(None) };
        let length = header.record_bytes();
        let is_as_written = header.sum() == place.header_sum || seeded(Bug::TakesAnyHeader);
        if !is_as_written || length > GROUP_BYTES_MAX {
            return Ok(None);
        }
        if length > read {
            buffer.resize(length, 0);
            read += file.read(place.offset + read as u64, &mut buffer[read..])?;
        }
        if length > read {
            return Ok(None);
        }
        if buffer.capacity() > length + length / 4 {
            // Whoever holds the record is charged for its length.
            let mut exact = RecordBuffer::with_capacity(length);
            exact.extend_from_slice(&buffer[..length]);
            buffer = exact;
        }
        Ok(Record::parse(Bytes::from_owner(buffer).slice(..length)).ok())
    }
}

/// Where a record stands, and the one after it.
pub(super) fn places(
    index: &IndexFile,
    position: Position,
) -> Result<Option<(RecordPlace, Option<RecordPlace>)>, IndexFault> {
    let Some(place) = index.place_of(position)? else { return Ok(None) };
    Ok(Some((place, index.place_of(position.next())?)))
}

/// Which of the records may meet a filter that names no aggregate.
pub(super) fn candidates(
    index: &IndexFile,
    hasher: KeyHasher,
    filter: &Filter,
) -> Result<Candidates, IndexFault> {
    let header = index.header();
    let out_of_time = filter.since.is_some_and(|since| header.timestamps.1 < since)
        || filter.until.is_some_and(|until| header.timestamps.0 >= until)
        || filter.recorded_since.is_some_and(|since| header.last_recorded_at < since);
    let has_any = |kind, names: &[String]| {
        let mut may_have = names.is_empty();
        for name in names {
            may_have |= index.may_have_name(kind, name)?;
        }
        Ok(may_have)
    };
    if out_of_time || !has_any(0, &filter.aggregate_types)? || !has_any(1, &filter.event_types)? {
        return Ok(Candidates::None);
    }
    match &filter.correlation_id {
        Some(id) if !id.is_empty() => {
            index.correlated(hasher.correlation(id)).map(Candidates::Listed)
        }
        _ => Ok(Candidates::All),
    }
}
