//! Builds a sealed segment's index file from the segment's groups: at seal, and again whenever
//! the file is missing or not valid.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quipu_types::{Position, Record, Timestamp, Uuid, Version};

use super::keys::KeyHasher;
use crate::format::BLOCK_BYTES;
use crate::format::group::GroupHeader;
use crate::format::index_file::{IndexFault, IndexFile, IndexHeader};
use crate::format::sum::crc64;

/// More distinct type names than this are not listed.
const NAMES_MAX: usize = 1_024;

/// Collects what an index file holds, record by record, in order.
pub struct IndexBuilder {
    hasher: KeyHasher,
    first_position: Position,
    groups: Vec<(Position, u32, u32)>,
    /// By hash and key, so that the aggregates section comes out sorted.
    streams: BTreeMap<(u64, String, String), Stream>,
    ids: Vec<(Uuid, u32)>,
    correlations: Vec<(u64, u32)>,
    names: BTreeSet<(u8, String)>,
    /// The last name of each kind: most records repeat it.
    last_names: [String; 2],
    timestamps: (Timestamp, Timestamp),
    last_recorded_at: Timestamp,
}

struct Stream {
    first_version: Version,
    records: Vec<u32>,
}

impl IndexBuilder {
    /// An empty index of a segment.
    #[must_use]
    pub fn new(hasher: KeyHasher, first_position: Position) -> Self {
        Self {
            hasher,
            first_position,
            groups: Vec::new(),
            streams: BTreeMap::new(),
            ids: Vec::new(),
            correlations: Vec::new(),
            names: BTreeSet::new(),
            last_names: Default::default(),
            timestamps: (Timestamp::from_micros(i64::MAX), Timestamp::from_micros(i64::MIN)),
            last_recorded_at: Timestamp::from_micros(0),
        }
    }

    /// Takes the next group that has records.
    pub fn push_group(&mut self, header: &GroupHeader) {
        let block = u32::try_from(header.offset / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
        let blocks = u32::try_from(header.group_bytes as usize / BLOCK_BYTES).unwrap_or(u32::MAX);
        self.groups.push((header.first_position, block, blocks));
    }

    /// Takes the next record.
    pub fn push_record(&mut self, record: &Record) {
        let number = record.position().0.saturating_sub(self.first_position.0);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let (aggregate_type, aggregate_id) = (record.aggregate_type(), record.aggregate_id());
        let hash = self.hasher.parts(aggregate_type, aggregate_id);
        let key = (hash, aggregate_type.to_owned(), aggregate_id.to_owned());
        let stream = self
            .streams
            .entry(key)
            .or_insert_with(|| Stream { first_version: record.version(), records: Vec::new() });
        stream.records.push(number);
        self.ids.push((record.event_id(), number));
        if !record.correlation_id().is_empty() {
            self.correlations.push((self.hasher.correlation(record.correlation_id()), number));
        }
        self.push_name(0, aggregate_type);
        self.push_name(1, record.event_type());
        let timestamp = record.timestamp();
        self.timestamps.0 = self.timestamps.0.min(timestamp);
        self.timestamps.1 = self.timestamps.1.max(timestamp);
        self.last_recorded_at = record.recorded_at();
    }

    fn push_name(&mut self, kind: u8, name: &str) {
        let last = &mut self.last_names[usize::from(kind)];
        if last != name {
            name.clone_into(last);
            if self.names.len() <= NAMES_MAX {
                self.names.insert((kind, name.to_owned()));
            }
        }
    }

    /// The finished file.
    ///
    /// # Errors
    /// That the records have versions or keys that no log gives.
    pub fn finish(mut self, segment_id: Uuid, seal_sum: u64) -> Result<IndexFile, IndexFault> {
        self.ids.sort_unstable();
        self.correlations.sort_unstable();
        let names = self.encode_names();
        let (aggregates, postings, keys) = self.encode_aggregates();
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let header = IndexHeader {
            names_complete: names.is_some(),
            segment_id,
            seal_sum,
            first_position: self.first_position,
            timestamps: self.timestamps,
            groups: count(self.groups.len()),
            aggregates: count(self.streams.len()),
            records: count(self.ids.len()),
            correlations: count(self.correlations.len()),
            name_bytes: count(names.as_ref().map_or(0, Vec::len)),
            key_bytes: count(keys.len()),
            last_recorded_at: self.last_recorded_at,
        };
        let mut out = header.encode();
        for (first_position, block, blocks) in &self.groups {
            out.extend_from_slice(&first_position.0.to_le_bytes());
            out.extend_from_slice(&block.to_le_bytes());
            out.extend_from_slice(&blocks.to_le_bytes());
        }
        out.extend_from_slice(&aggregates);
        for (id, record) in &self.ids {
            out.extend_from_slice(id.as_bytes());
            out.extend_from_slice(&record.to_le_bytes());
        }
        for (hash, record) in &self.correlations {
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&record.to_le_bytes());
        }
        out.extend_from_slice(&postings);
        out.extend_from_slice(&names.unwrap_or_default());
        out.extend_from_slice(&keys);
        let sum = crc64(&out);
        out.extend_from_slice(&sum.to_le_bytes());
        IndexFile::check(Bytes::from(out), segment_id, seal_sum)
    }

    fn encode_names(&self) -> Option<Vec<u8>> {
        if self.names.len() > NAMES_MAX {
            return None;
        }
        let mut out = Vec::new();
        for (kind, name) in &self.names {
            out.push(*kind);
            out.push(u8::try_from(name.len()).ok()?);
            out.extend_from_slice(name.as_bytes());
        }
        Some(out)
    }

    fn encode_aggregates(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (mut aggregates, mut postings, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let mut first_posting = 0_u32;
        for ((hash, aggregate_type, aggregate_id), stream) in &self.streams {
            let records = count(stream.records.len());
            aggregates.extend_from_slice(&hash.to_le_bytes());
            aggregates.extend_from_slice(&stream.first_version.0.to_le_bytes());
            aggregates.extend_from_slice(&records.to_le_bytes());
            aggregates.extend_from_slice(&first_posting.to_le_bytes());
            aggregates.extend_from_slice(&count(keys.len()).to_le_bytes());
            for part in [aggregate_type, aggregate_id] {
                let bytes = u16::try_from(part.len()).unwrap_or(u16::MAX);
                aggregates.extend_from_slice(&bytes.to_le_bytes());
            }
            for record in &stream.records {
                postings.extend_from_slice(&record.to_le_bytes());
            }
            keys.extend_from_slice(aggregate_type.as_bytes());
            keys.extend_from_slice(aggregate_id.as_bytes());
            first_posting += records;
        }
        (aggregates, postings, keys)
    }
}
