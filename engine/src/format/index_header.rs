//! The fixed part of an index file: which segment it is of, and where its sections lie.

use quipu_types::{Position, Timestamp, Uuid};

use super::{BLOCK_BYTES, Fields};

pub(crate) const MAGIC: [u8; 8] = *b"QUIPUIDX";
pub(crate) const INDEX_FORMAT: u32 = 2;
/// Length of an index file's header.
pub const INDEX_HEADER_BYTES: usize = 96;
pub(crate) const GROUP_ENTRY_BYTES: usize = 16;
pub(crate) const AGGREGATE_ENTRY_BYTES: usize = 32;
pub(crate) const ID_ENTRY_BYTES: usize = 20;
pub(crate) const CORRELATION_ENTRY_BYTES: usize = 12;
pub(crate) const POSTING_BYTES: usize = 4;
pub(crate) const PLACE_BYTES: usize = 8;
pub(crate) const SUM_BYTES: usize = 8;

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
    /// Entries of the ids, of the postings and of the places section.
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
    /// this segment. The sums are another matter: `IndexFile::check`.
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

    /// Where each section begins, and the last one ends.
    pub(crate) fn sections(&self) -> [usize; SECTIONS + 1] {
        let lengths = [
            self.groups as usize * GROUP_ENTRY_BYTES,
            self.aggregates as usize * AGGREGATE_ENTRY_BYTES,
            self.records as usize * ID_ENTRY_BYTES,
            self.correlations as usize * CORRELATION_ENTRY_BYTES,
            self.records as usize * POSTING_BYTES,
            self.records as usize * PLACE_BYTES,
            self.name_bytes as usize,
            self.key_bytes as usize,
        ];
        let mut starts = [INDEX_HEADER_BYTES; SECTIONS + 1];
        for (section, length) in lengths.iter().enumerate() {
            starts[section + 1] = starts[section] + length;
        }
        starts
    }

    /// Where the sums of blocks begin, behind the last section.
    #[must_use]
    pub fn sums_at(&self) -> usize {
        self.sections()[SECTIONS]
    }

    fn file_bytes(&self) -> usize {
        let content = self.sums_at();
        content + content.div_ceil(BLOCK_BYTES) * SUM_BYTES + SUM_BYTES
    }
}

/// The sections, in their order in the file.
#[derive(Clone, Copy)]
pub(crate) enum Section {
    Groups,
    Aggregates,
    Ids,
    Correlations,
    Postings,
    Places,
    Names,
    Keys,
}

pub(crate) const SECTIONS: usize = 8;

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
