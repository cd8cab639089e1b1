//! The index file of a sealed segment (segments-format.md §7): derived, searched in place, and
//! checked a block at a time, when one is first needed.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quipu_types::record::RECORD_ALIGN;
use quipu_types::{AggregateKey, Position, Uuid, Version};

use super::group::GroupSpan;
use super::index_header::{
    AGGREGATE_ENTRY_BYTES, CORRELATION_ENTRY_BYTES, GROUP_ENTRY_BYTES, ID_ENTRY_BYTES,
    INDEX_HEADER_BYTES, IndexFault, IndexHeader, PLACE_BYTES, POSTING_BYTES, SECTIONS, SUM_BYTES,
    Section,
};
use super::search::{first_not_less, partition_point};
use super::sum::{crc64, crc64_of};
use super::{BLOCK_BYTES, Fields};

/// Adds to header and sections what makes a file of them: the sum of each block, and that of the
/// header and these sums.
#[must_use]
pub fn seal(mut content: Vec<u8>) -> Vec<u8> {
    let sums_at = content.len();
    let sums: Vec<u64> = content.chunks(BLOCK_BYTES).map(crc64).collect();
    content.extend(sums.iter().flat_map(|sum| sum.to_le_bytes()));
    let sum = crc64_of(&[&content[..INDEX_HEADER_BYTES], &content[sums_at..]]);
    content.extend_from_slice(&sum.to_le_bytes());
    content
}

/// An index file, whose blocks are checked as they are needed.
///
/// Invariants:
/// 1. Header and sums of blocks are as they were written, and sections have the lengths that the
///    header says ([`IndexFile::check`]).
/// 2. No byte of a section is used before its block was found to be as its sum says, and nothing
///    that an entry points to before it is known to lie inside its section.
#[derive(Debug)]
pub struct IndexFile {
    header: IndexHeader,
    bytes: Bytes,
    sections: [usize; SECTIONS + 1],
    /// A bit for each block: whether it was found to be as its sum says.
    checked: Box<[AtomicU64]>,
}

/// Where a record stands in its segment, and what its header must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    /// Its offset in the segment.
    pub offset: u64,
    /// CRC-32 of its header.
    pub header_sum: u32,
}

impl RecordPlace {
    pub(crate) fn encode(self) -> [u8; PLACE_BYTES] {
        let unit = u32::try_from(self.offset / RECORD_ALIGN as u64).unwrap_or(u32::MAX);
        let mut out = [0; PLACE_BYTES];
        out[..4].copy_from_slice(&unit.to_le_bytes());
        out[4..].copy_from_slice(&self.header_sum.to_le_bytes());
        out
    }
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
    /// Takes an index file of this segment: checks header, length and the sums of blocks, and
    /// leaves the blocks for when they are needed.
    ///
    /// # Errors
    /// What is wrong with it; it is then rebuilt.
    pub fn check(bytes: Bytes, segment_id: Uuid, seal_sum: u64) -> Result<Self, IndexFault> {
        let header = IndexHeader::read(&bytes, bytes.len() as u64, segment_id, seal_sum)?;
        let sections = header.sections();
        let (content, sums) = bytes.split_at(sections[SECTIONS]);
        let (sums, sum) = sums.split_at(sums.len() - SUM_BYTES);
        if Fields::new(sum).u64() != crc64_of(&[&content[..INDEX_HEADER_BYTES], sums]) {
            return Err(IndexFault::Sum);
        }
        if header.first_position.0.checked_add(header.records.into()).is_none() {
            return Err(IndexFault::Entry);
        }
        let blocks = content.len().div_ceil(BLOCK_BYTES);
        let checked = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Ok(Self { header, bytes, sections, checked })
    }

    /// Checks all that is left for when it is needed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_all(&self) -> Result<(), IndexFault> {
        self.checked_bytes(0..self.sections[SECTIONS])?;
        self.names()?;
        (0..self.header.aggregates as usize)
            .try_for_each(|index| self.aggregate_at(index).map(drop))
    }

    /// Takes every block as it is; see [`crate::bug`].
    pub(crate) fn trust(&self) {
        self.checked.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
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

    /// The group that holds a position.
    ///
    /// # Errors
    /// That the file is damaged where it would say so; as of every question below.
    pub fn group_of(&self, position: Position) -> Result<Option<GroupSpan>, IndexFault> {
        let groups = self.header.groups as usize;
        let after =
            partition_point(groups, |index| Ok(self.group(index)?.first_position <= position))?;
        after.checked_sub(1).map(|index| self.group(index)).transpose()
    }

    /// The `index`th group of records.
    fn group(&self, index: usize) -> Result<GroupSpan, IndexFault> {
        let mut fields = self.entry(Section::Groups, index, GROUP_ENTRY_BYTES)?;
        let first_position = Position(fields.u64());
        let (block, blocks) = (fields.u32(), fields.u32());
        let offset = u64::from(block) * BLOCK_BYTES as u64;
        Ok(GroupSpan { first_position, offset, bytes: blocks as usize * BLOCK_BYTES })
    }

    /// Where the record at a position stands, if it is one of the segment's.
    ///
    /// # Errors
    /// See [`Self::group_of`].
    pub fn place_of(&self, position: Position) -> Result<Option<RecordPlace>, IndexFault> {
        let record = position.0.wrapping_sub(self.header.first_position.0);
        if record >= self.records() {
            return Ok(None);
        }
        let index = usize::try_from(record).map_err(|_| IndexFault::Entry)?;
        let mut fields = self.entry(Section::Places, index, PLACE_BYTES)?;
        let offset = u64::from(fields.u32()) * RECORD_ALIGN as u64;
        Ok(Some(RecordPlace { offset, header_sum: fields.u32() }))
    }

    /// The aggregates, by hash.
    pub fn aggregates(&self) -> impl Iterator<Item = Result<AggregateEntry<'_>, IndexFault>> {
        (0..self.header.aggregates as usize).map(|index| self.aggregate_at(index))
    }

    /// An aggregate's entry.
    ///
    /// # Errors
    /// See [`Self::group_of`].
    pub fn aggregate(
        &self,
        hash: u64,
        key: &AggregateKey,
    ) -> Result<Option<AggregateEntry<'_>>, IndexFault> {
        let count = self.header.aggregates as usize;
        for index in first_not_less(count, hash, |index| self.aggregate_hash(index))?..count {
            if self.aggregate_hash(index)? != hash {
                break;
            }
            let entry = self.aggregate_at(index)?;
            if entry.aggregate_id == key.aggregate_id && entry.aggregate_type == key.aggregate_type
            {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// An aggregate's positions, ascending.
    ///
    /// # Errors
    /// See [`Self::group_of`].
    pub fn positions(&self, entry: &AggregateEntry<'_>) -> Result<Vec<Position>, IndexFault> {
        let first = entry.first_posting as usize;
        (first..first + entry.records as usize).map(|index| self.posting(index)).collect()
    }

    /// Position of an aggregate's last record.
    ///
    /// # Errors
    /// See [`Self::group_of`].
    pub fn last_position(&self, entry: &AggregateEntry<'_>) -> Result<Position, IndexFault> {
        self.posting(entry.first_posting as usize + entry.records as usize - 1)
    }

    fn posting(&self, index: usize) -> Result<Position, IndexFault> {
        Ok(self.position(self.entry(Section::Postings, index, POSTING_BYTES)?.u32()))
    }

    /// Position of the event with this id.
    ///
    /// # Errors
    /// See [`Self::group_of`].
    pub fn position_of(&self, id: Uuid) -> Result<Option<Position>, IndexFault> {
        let count = self.header.records as usize;
        let at = partition_point(count, |index| Ok(self.id(index)?.0 < id))?;
        if at == count {
            return Ok(None);
        }
        let (found, position) = self.id(at)?;
        Ok((found == id).then_some(position))
    }

    /// Every event id with its position, by id.
    pub fn ids(&self) -> impl Iterator<Item = Result<(Uuid, Position), IndexFault>> + '_ {
        (0..self.header.records as usize).map(|index| self.id(index))
    }

    fn id(&self, index: usize) -> Result<(Uuid, Position), IndexFault> {
        let mut fields = self.entry(Section::Ids, index, ID_ENTRY_BYTES)?;
        Ok((Uuid::from_bytes(fields.array()), self.position(fields.u32())))
    }

    /// Positions whose correlation id has this hash, ascending.
    ///
    /// # Errors
    /// See [`Self::group_of`].
    pub fn correlated(&self, hash: u64) -> Result<Vec<Position>, IndexFault> {
        let count = self.header.correlations as usize;
        let entry = |index| {
            let mut fields = self.entry(Section::Correlations, index, CORRELATION_ENTRY_BYTES)?;
            Ok((fields.u64(), fields.u32()))
        };
        let mut positions = Vec::new();
        for index in first_not_less(count, hash, |index| Ok(entry(index)?.0))?..count {
            let (found, record) = entry(index)?;
            if found != hash {
                break;
            }
            positions.push(self.position(record));
        }
        Ok(positions)
    }

    /// Whether the segment may have a record of this name: kind 0 aggregate type, 1 event type.
    ///
    /// # Errors
    /// See [`Self::group_of`].
    pub fn may_have_name(&self, kind: u8, name: &str) -> Result<bool, IndexFault> {
        if !self.header.names_complete {
            return Ok(true);
        }
        Ok(self.names()?.contains(&(kind, name.as_bytes())))
    }

    fn names(&self) -> Result<Vec<(u8, &[u8])>, IndexFault> {
        let mut rest = self.section(Section::Names, 0..self.header.name_bytes as usize)?;
        let mut names = Vec::new();
        while let [kind, length, more @ ..] = rest {
            let name;
            (name, rest) = more.split_at_checked(*length as usize).ok_or(IndexFault::Entry)?;
            names.push((*kind, name));
        }
        if rest.is_empty() { Ok(names) } else { Err(IndexFault::Entry) }
    }

    fn position(&self, record: u32) -> Position {
        Position(self.header.first_position.0.saturating_add(record.into()))
    }

    fn entry(
        &self,
        section: Section,
        index: usize,
        bytes: usize,
    ) -> Result<Fields<'_>, IndexFault> {
        Ok(Fields::new(self.section(section, index * bytes..(index + 1) * bytes)?))
    }

    /// Bytes of a section, checked.
    fn section(&self, section: Section, range: Range<usize>) -> Result<&[u8], IndexFault> {
        let [start, end] = [section as usize, section as usize + 1].map(|it| self.sections[it]);
        if range.end > end - start {
            return Err(IndexFault::Entry);
        }
        self.checked_bytes(start + range.start..start + range.end)
    }

    /// Bytes before the sums; their blocks are checked if nobody has done it.
    fn checked_bytes(&self, range: Range<usize>) -> Result<&[u8], IndexFault> {
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            let (word, bit) = (&self.checked[block / 64], 1 << (block % 64));
            // Whoever comes at the same time may check it, too: nothing else hangs on the bit.
            if word.load(Ordering::Relaxed) & bit == 0 {
                self.check_block(block)?;
                word.fetch_or(bit, Ordering::Relaxed);
            }
        }
        Ok(&self.bytes[range])
    }

    fn check_block(&self, block: usize) -> Result<(), IndexFault> {
        let (content, sums) = self.bytes.split_at(self.sections[SECTIONS]);
        let start = block * BLOCK_BYTES;
        let bytes = &content[start..content.len().min(start + BLOCK_BYTES)];
        let is_good = crc64(bytes) == Fields::new(&sums[block * SUM_BYTES..]).u64();
        if is_good { Ok(()) } else { Err(IndexFault::Sum) }
    }

    fn aggregate_hash(&self, index: usize) -> Result<u64, IndexFault> {
        Ok(self.entry(Section::Aggregates, index, AGGREGATE_ENTRY_BYTES)?.u64())
    }

    fn aggregate_at(&self, index: usize) -> Result<AggregateEntry<'_>, IndexFault> {
        let mut fields = self.entry(Section::Aggregates, index, AGGREGATE_ENTRY_BYTES)?;
        let hash = fields.u64();
        let first_version = Version(fields.u64());
        let (records, first_posting) = (fields.u32(), fields.u32());
        let key_offset = fields.u32() as usize;
        let (type_bytes, id_bytes) = (fields.u16() as usize, fields.u16() as usize);
        let postings_end = u64::from(first_posting) + u64::from(records);
        let has_versions = first_version.0.checked_add(records.into()).is_some();
        if records == 0 || first_version.0 == 0 || !has_versions || postings_end > self.records() {
            return Err(IndexFault::Entry);
        }
        let key = self.section(Section::Keys, key_offset..key_offset + type_bytes + id_bytes)?;
        let text = |bytes| str::from_utf8(bytes).map_err(|_| IndexFault::Entry);
        let (aggregate_type, aggregate_id) = key.split_at(type_bytes);
        Ok(AggregateEntry {
            hash,
            aggregate_type: text(aggregate_type)?,
            aggregate_id: text(aggregate_id)?,
            first_version,
            records,
            first_posting,
        })
    }
}
