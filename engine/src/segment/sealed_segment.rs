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
use crate::storage::{ReadOrder, Storage, StorageFile, segment_name};

/// Bytes to read where it is not known how long a record is.
const RECORD_BYTES_USUAL: u64 = 4 << 10;
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
        let expected = next.map(|next| next.offset.saturating_sub(place.offset));
        let read = read_record(&*file, place, expected)?;
        Ok(read.and_then(|bytes| Record::parse(exactly(bytes)).ok()))
    }
}

/// The bytes of a record whose header is as it was written, of which so many are expected.
fn read_record(
    file: &dyn StorageFile,
    place: RecordPlace,
    expected: Option<u64>,
) -> io::Result<Option<RecordBuffer>> {
    let first = expected.filter(|bytes| *bytes >= HEADER_BYTES as u64);
    let first = first.map_or(RECORD_BYTES_USUAL, |bytes| bytes.min(RECORD_BYTES_FIRST_MAX));
    let mut buffer = RecordBuffer::new();
    buffer.resize(usize::try_from(first).unwrap_or(0), 0);
    let mut read = file.read(place.offset, &mut buffer)?;
    let header = RecordHeader::decode(&buffer[..read])
        .filter(|header| header.sum() == place.header_sum || seeded(Bug::TakesAnyHeader));
    let length = header.map(|header| header.record_bytes());
    let Some(length) = length.filter(|length| *length <= GROUP_BYTES_MAX) else { return Ok(None) };
    buffer.resize(length, 0);
    if length > read {
        read += file.read(place.offset + read as u64, &mut buffer[read..])?;
    }
    Ok((length <= read).then_some(buffer))
}

/// Whoever holds a record is charged for its length: it may have no more than that.
fn exactly(buffer: RecordBuffer) -> Bytes {
    if buffer.capacity() <= buffer.len() + buffer.len() / 4 {
        return Bytes::from_owner(buffer);
    }
    let mut exact = RecordBuffer::with_capacity(buffer.len());
    exact.extend_from_slice(&buffer);
    Bytes::from_owner(exact)
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
