//! The index file of a sealed segment (segments-format.md §7): derived, checked once when it is
//! first needed, then searched in place.

use bytes::Bytes;
use quipu_types::{AggregateKey, Position, Timestamp, Uuid, Version};

use super::Fields;
use super::sum::crc64;

pub(crate) const MAGIC: [u8; 8] = *b"QUIPUIDX";
pub(crate) const INDEX_FORMAT: u32 = 1;
/// Length of an index file's header.
pub const INDEX_HEADER_BYTES: usize = 96;
pub(crate) const GROUP_ENTRY_BYTES: usize = 16;
pub(crate) const AGGREGATE_ENTRY_BYTES: usize = 32;
pub(crate) const ID_ENTRY_BYTES: usize = 20;
pub(crate) const CORRELATION_ENTRY_BYTES: usize = 12;
pub(crate) const POSTING_BYTES: usize = 4;

/// The fixed part of an index file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexHeader {
    /// Whether the names section lists every type.
    pub names_complete: bool,
    /// The segment it belongs to.
    pub segment_id: Uuid,
    /// Sum of that segment's SEAL.
    pub seal_sum: u64,
    /// First position of that segment.
    pub first_position: Position,
    /// Least and greatest event timestamp.
    pub timestamps: (Timestamp, Timestamp),
    /// Entries of the groups section.
    pub groups: u32,
    /// Entries of the aggregates section.
    pub aggregates: u32,
    /// Entries of the ids and of the postings section.
    pub records: u32,
    /// Entries of the correlations section.
    pub correlations: u32,
    /// Length of the names section.
    pub name_bytes: u32,
    /// Length of the keys section.
    pub key_bytes: u32,
    /// `recorded_at` of the last record.
    pub last_recorded_at: Timestamp,
}

impl IndexHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.file_bytes());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&INDEX_FORMAT.to_le_bytes());
        out.extend_from_slice(&u32::from(self.names_complete).to_le_bytes());
        out.extend_from_slice(self.segment_id.as_bytes());
        out.extend_from_slice(&self.seal_sum.to_le_bytes());
        out.extend_from_slice(&self.first_position.0.to_le_bytes());
        out.extend_from_slice(&self.timestamps.0.as_micros().to_le_bytes());
        out.extend_from_slice(&self.timestamps.1.as_micros().to_le_bytes());
        for count in [
            self.groups,
            self.aggregates,
            self.records,
            self.correlations,
            self.name_bytes,
            self.key_bytes,
        ] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&self.last_recorded_at.as_micros().to_le_bytes());
        out
    }

    /// Reads the header of a file of `file_bytes` from its first bytes, if it may be the index of
    /// this segment. The sum is another matter: [`IndexFile::check`].
    ///
    /// # Errors
    /// Why it cannot be.
    pub fn read(
        bytes: &[u8],
        file_bytes: u64,
        segment_id: Uuid,
        seal_sum: u64,
    ) -> Result<Self, IndexFault> {
        let header = Self::decode(bytes).ok_or(IndexFault::Header)?;
        if header.segment_id != segment_id || header.seal_sum != seal_sum {
            return Err(IndexFault::OtherSegment);
        }
        if header.file_bytes() as u64 != file_bytes {
            return Err(IndexFault::Length);
        }
        Ok(header)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes.first_chunk::<INDEX_HEADER_BYTES>()?);
        if fields.array() != MAGIC || fields.u32() != INDEX_FORMAT {
            return None;
        }
        let names_complete = match fields.u32() {
            0 => false,
            1 => true,
            _ => return None,
        };
        Some(Self {
            names_complete,
            segment_id: Uuid::from_bytes(fields.array()),
            seal_sum: fields.u64(),
            first_position: Position(fields.u64()),
            timestamps: (
                Timestamp::from_micros(fields.i64()),
                Timestamp::from_micros(fields.i64()),
            ),
            groups: fields.u32(),
            aggregates: fields.u32(),
            records: fields.u32(),
            correlations: fields.u32(),
            name_bytes: fields.u32(),
            key_bytes: fields.u32(),
            last_recorded_at: Timestamp::from_micros(fields.i64()),
        })
    }

    /// Where each section begins: groups, aggregates, ids, correlations, postings, names, keys,
    /// and the sum.
    fn sections(&self) -> [usize; 8] {
        let lengths = [
            self.groups as usize * GROUP_ENTRY_BYTES,
            self.aggregates as usize * AGGREGATE_ENTRY_BYTES,
            self.records as usize * ID_ENTRY_BYTES,
            self.correlations as usize * CORRELATION_ENTRY_BYTES,
            self.records as usize * POSTING_BYTES,
            self.name_bytes as usize,
            self.key_bytes as usize,
        ];
        let mut starts = [INDEX_HEADER_BYTES; 8];
        for (section, length) in lengths.iter().enumerate() {
            starts[section + 1] = starts[section] + length;
        }
        starts
    }

    fn file_bytes(&self) -> usize {
        self.sections()[7] + 8
    }
}

/// Why an index file was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexFault {
    /// It does not begin like one, or has another format.
    #[error("it is no index file of this version")]
    Header,
    /// It belongs to another segment, or to another state of it.
    #[error("it belongs to another segment")]
    OtherSegment,
    /// Its length is not what its counts say.
    #[error("its length is not what its counts say")]
    Length,
    /// The sum does not match.
    #[error("its checksum does not match")]
    Sum,
    /// An entry points outside its section.
    #[error("an entry points outside its section")]
    Entry,
}

/// A checked index file.
///
/// Invariants, kept by [`IndexFile::check`]: sections have the lengths that the header says; what
/// an aggregate entry points to lies inside the postings and keys sections; keys are UTF-8.
#[derive(Clone, Debug)]
pub struct IndexFile {
    header: IndexHeader,
    bytes: Bytes,
    sections: [usize; 8],
}

/// One aggregate of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregateEntry<'a> {
    /// Hash of the key.
    pub hash: u64,
    /// The aggregate's type.
    pub aggregate_type: &'a str,
    /// The aggregate's id.
    pub aggregate_id: &'a str,
    /// Version of its first record in the segment.
    pub first_version: Version,
    /// How many records it has there.
    pub records: u32,
    first_posting: u32,
}

impl AggregateEntry<'_> {
    /// Version of its last record in the segment.
    #[must_use]
    pub fn last_version(&self) -> Version {
        Version(self.first_version.0 + u64::from(self.records) - 1)
    }
}

impl IndexFile {
    /// Checks an index file against its segment.
    ///
    /// # Errors
    /// What is wrong with it; it is then rebuilt.
    pub fn check(bytes: Bytes, segment_id: Uuid, seal_sum: u64) -> Result<Self, IndexFault> {
        let header = IndexHeader::read(&bytes, bytes.len() as u64, segment_id, seal_sum)?;
        let sections = header.sections();
        let (content, sum) = bytes.split_at(sections[7]);
        if Fields::new(sum).u64() != crc64(content) {
            return Err(IndexFault::Sum);
        }
        let has_positions = header.first_position.0.checked_add(header.records.into()).is_some();
        let file = Self { header, bytes, sections };
        if !has_positions {
            return Err(IndexFault::Entry);
        }
        for index in 0..file.header.aggregates as usize {
            file.check_aggregate(index).ok_or(IndexFault::Entry)?;
        }
        Ok(file)
    }

    /// The fixed part.
    #[must_use]
    pub fn header(&self) -> &IndexHeader {
        &self.header
    }

    /// The file's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Number of records in the segment.
    #[must_use]
    pub fn records(&self) -> u64 {
        u64::from(self.header.records)
    }

    /// The group that holds a position: its first position, offset and length.
    #[must_use]
    pub fn group_of(&self, position: Position) -> Option<(Position, u64, usize)> {
        let groups = self.header.groups as usize;
        let after = partition_point(groups, |index| self.group(index).0 <= position);
        Some(self.group(after.checked_sub(1)?))
    }

    /// The `index`th group of records: its first position, offset and length.
    #[must_use]
    pub fn group(&self, index: usize) -> (Position, u64, usize) {
        let mut fields = self.entry(0, index, GROUP_ENTRY_BYTES);
        let first_position = Position(fields.u64());
        let (block, blocks) = (fields.u32(), fields.u32());
        let block_bytes = super::BLOCK_BYTES;
        (first_position, u64::from(block) * block_bytes as u64, blocks as usize * block_bytes)
    }

    /// The aggregates, by hash.
    pub fn aggregates(&self) -> impl Iterator<Item = AggregateEntry<'_>> {
        (0..self.header.aggregates as usize).filter_map(|index| self.check_aggregate(index))
    }

    /// An aggregate's entry and its positions, ascending.
    #[must_use]
    pub fn aggregate(
        &self,
        hash: u64,
        key: &AggregateKey,
    ) -> Option<(AggregateEntry<'_>, Vec<Position>)> {
        let count = self.header.aggregates as usize;
        let first = partition_point(count, |index| self.aggregate_hash(index) < hash);
        let entry = (first..count)
            .map_while(|index| self.check_aggregate(index))
            .take_while(|entry| entry.hash == hash)
            .find(|entry| {
                entry.aggregate_id == key.aggregate_id && entry.aggregate_type == key.aggregate_type
            })?;
        let first = entry.first_posting as usize;
        let positions = (first..first + entry.records as usize)
            .map(|index| self.position(self.entry(4, index, POSTING_BYTES).u32()))
            .collect();
        Some((entry, positions))
    }

    /// Position of an aggregate's last record.
    #[must_use]
    pub fn last_position(&self, entry: &AggregateEntry<'_>) -> Position {
        let last = entry.first_posting as usize + entry.records as usize - 1;
        self.position(self.entry(4, last, POSTING_BYTES).u32())
    }

    /// Position of the event with this id.
    #[must_use]
    pub fn position_of(&self, id: Uuid) -> Option<Position> {
        let count = self.header.records as usize;
        let id_at = |index| self.entry(2, index, ID_ENTRY_BYTES).array();
        let at = partition_point(count, |index| id_at(index) < id.into_bytes());
        let mut fields = self.entry(2, at, ID_ENTRY_BYTES);
        (at < count && fields.array() == id.into_bytes()).then(|| self.position(fields.u32()))
    }

    /// Every event id with its position, by id.
    pub fn ids(&self) -> impl Iterator<Item = (Uuid, Position)> + '_ {
        (0..self.header.records as usize).map(|index| {
            let mut fields = self.entry(2, index, ID_ENTRY_BYTES);
            (Uuid::from_bytes(fields.array()), self.position(fields.u32()))
        })
    }

    /// Positions whose correlation id has this hash, ascending.
    #[must_use]
    pub fn correlated(&self, hash: u64) -> Vec<Position> {
        let count = self.header.correlations as usize;
        let entry = |index| {
            let mut fields = self.entry(3, index, CORRELATION_ENTRY_BYTES);
            (fields.u64(), fields.u32())
        };
        let first = partition_point(count, |index| entry(index).0 < hash);
        (first..count)
            .map(entry)
            .take_while(|(found, _)| *found == hash)
            .map(|(_, record)| self.position(record))
            .collect()
    }

    /// Whether the segment may have a record of this name: kind 0 aggregate type, 1 event type.
    #[must_use]
    pub fn may_have_name(&self, kind: u8, name: &str) -> bool {
        if !self.header.names_complete {
            return true;
        }
        let mut names = &self.bytes[self.sections[5]..self.sections[6]];
        while let [found_kind, length, rest @ ..] = names {
            let Some((found, rest)) = rest.split_at_checked(*length as usize) else { return true };
            if *found_kind == kind && found == name.as_bytes() {
                return true;
            }
            names = rest;
        }
        false
    }

    fn position(&self, record: u32) -> Position {
        Position(self.header.first_position.0.saturating_add(record.into()))
    }

    fn entry(&self, section: usize, index: usize, bytes: usize) -> Fields<'_> {
        let at = self.sections[section] + index * bytes;
        Fields::new(self.bytes.get(at..at + bytes).unwrap_or_default())
    }

    fn aggregate_hash(&self, index: usize) -> u64 {
        self.entry(1, index, AGGREGATE_ENTRY_BYTES).u64()
    }

    fn check_aggregate(&self, index: usize) -> Option<AggregateEntry<'_>> {
        let mut fields = self.entry(1, index, AGGREGATE_ENTRY_BYTES);
        let hash = fields.u64();
        let first_version = Version(fields.u64());
        let (records, first_posting) = (fields.u32(), fields.u32());
        let key_offset = fields.u32() as usize;
        let (type_bytes, id_bytes) = (fields.u16() as usize, fields.u16() as usize);
        let postings_end = u64::from(first_posting) + u64::from(records);
        first_version.0.checked_add(records.into())?;
        if records == 0 || first_version.0 == 0 || postings_end > self.records() {
            return None;
        }
        let keys = &self.bytes[self.sections[6]..self.sections[7]];
        let key = keys.get(key_offset..key_offset + type_bytes + id_bytes)?;
        let (aggregate_type, aggregate_id) = key.split_at(type_bytes);
        Some(AggregateEntry {
            hash,
            aggregate_type: str::from_utf8(aggregate_type).ok()?,
            aggregate_id: str::from_utf8(aggregate_id).ok()?,
            first_version,
            records,
            first_posting,
        })
    }
}

/// First index in `0..count` for which `before` is false, given that it is true up to there.
fn partition_point(count: usize, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
