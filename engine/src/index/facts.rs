//! What a sealed segment's index file holds beside the live index: event ids, correlation ids,
//! where records stand, the names of types and the span of time.

use std::collections::BTreeSet;

use bytes::Bytes;
use quipu_types::record::RecordHeader;
use quipu_types::{Position, Timestamp, Uuid};

use super::live::{LiveIndex, Stream};
use crate::format::BLOCK_BYTES;
use crate::format::index_file::{IndexFile, RecordPlace, seal};
use crate::format::index_header::{IndexFault, IndexHeader};

/// More distinct type names than this are not listed.
const NAMES_MAX: usize = 1_024;

/// Facts of a segment's records, collected in their order.
pub struct Facts {
    first_position: Position,
    ids: Vec<(Uuid, u32)>,
    correlations: Vec<(u64, u32)>,
    places: Vec<RecordPlace>,
    names: BTreeSet<(u8, String)>,
    /// The last name of each kind: most records repeat it.
    last_names: [String; 2],
    timestamps: (Timestamp, Timestamp),
    last_recorded_at: Timestamp,
}

impl Facts {
    /// No facts yet of a segment that begins at this position.
    #[must_use]
    pub fn new(first_position: Position) -> Self {
        Self {
            first_position,
            ids: Vec::new(),
            correlations: Vec::new(),
            places: Vec::new(),
            names: BTreeSet::new(),
            last_names: Default::default(),
            timestamps: (Timestamp::from_micros(i64::MAX), Timestamp::from_micros(i64::MIN)),
            last_recorded_at: Timestamp::from_micros(0),
        }
    }

    /// Takes the next record's ids; the correlation id as its hash, if there is one.
    pub fn push_ids(&mut self, event_id: Uuid, correlation: Option<u64>) {
        let number = u32::try_from(self.ids.len()).unwrap_or(u32::MAX);
        self.ids.push((event_id, number));
        self.correlations.extend(correlation.map(|hash| (hash, number)));
    }

    /// Takes where the next record stands in the segment, and its header.
    pub fn push_place(&mut self, offset: u64, header: &RecordHeader) {
        self.places.push(RecordPlace { offset, header_sum: header.sum() });
    }

    /// Takes an aggregate type that occurs.
    pub fn push_aggregate_type(&mut self, name: &str) {
        self.push_name(0, name);
    }

    /// Takes an event type that occurs.
    pub fn push_event_type(&mut self, name: &str) {
        self.push_name(1, name);
    }

    /// Takes the span of timestamps of records, and when the log took them.
    pub fn push_times(&mut self, timestamps: (Timestamp, Timestamp), recorded_at: Timestamp) {
        self.timestamps.0 = self.timestamps.0.min(timestamps.0);
        self.timestamps.1 = self.timestamps.1.max(timestamps.1);
        self.last_recorded_at = recorded_at;
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

    /// The index file of the segment that these facts and this live index describe.
    ///
    /// # Errors
    /// That the records have versions or keys that no log gives.
    pub fn index_file(
        mut self,
        live: &LiveIndex,
        segment_id: Uuid,
        seal_sum: u64,
    ) -> Result<IndexFile, IndexFault> {
        self.ids.sort_unstable();
        self.correlations.sort_unstable();
        let names = self.encode_names();
        let streams = live.sorted_streams();
        let (aggregates, postings, keys) = self.encode_aggregates(&streams);
        let header = IndexHeader {
            names_complete: names.is_some(),
            segment_id,
            seal_sum,
            first_position: self.first_position,
            timestamps: self.timestamps,
            groups: count(live.groups().len()),
            aggregates: count(streams.len()),
            records: count(self.ids.len()),
            correlations: count(self.correlations.len()),
            name_bytes: count(names.as_ref().map_or(0, Vec::len)),
            key_bytes: count(keys.len()),
            last_recorded_at: self.last_recorded_at,
        };
        let mut out = header.encode();
        for group in live.groups() {
            let block = u32::try_from(group.offset / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
            out.extend_from_slice(&group.first_position.0.to_le_bytes());
            out.extend_from_slice(&block.to_le_bytes());
            out.extend_from_slice(&count(group.bytes / BLOCK_BYTES).to_le_bytes());
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
        out.extend(self.places.iter().flat_map(|place| place.encode()));
        out.extend_from_slice(&names.unwrap_or_default());
        out.extend_from_slice(&keys);
        let file = IndexFile::check(Bytes::from(seal(out)), segment_id, seal_sum)?;
        file.check_all()?;
        Ok(file)
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

    fn encode_aggregates(&self, streams: &[&Stream]) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        let (mut aggregates, mut postings, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        let mut first_posting = 0_u32;
        for stream in streams {
            let records = count(stream.postings.positions.len());
            aggregates.extend_from_slice(&stream.hash.to_le_bytes());
            aggregates.extend_from_slice(&stream.postings.first_version.0.to_le_bytes());
            aggregates.extend_from_slice(&records.to_le_bytes());
            aggregates.extend_from_slice(&first_posting.to_le_bytes());
            aggregates.extend_from_slice(&count(keys.len()).to_le_bytes());
            for part in [&stream.key.aggregate_type, &stream.key.aggregate_id] {
                let bytes = u16::try_from(part.len()).unwrap_or(u16::MAX);
                aggregates.extend_from_slice(&bytes.to_le_bytes());
                keys.extend_from_slice(part.as_bytes());
            }
            for position in &stream.postings.positions {
                let record = position.0.saturating_sub(self.first_position.0);
                let record = u32::try_from(record).unwrap_or(u32::MAX);
                postings.extend_from_slice(&record.to_le_bytes());
            }
            first_posting += records;
        }
        (aggregates, postings, keys)
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
