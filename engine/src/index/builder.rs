//! Builds a sealed segment's index file from the segment's groups, where the file is missing or not
//! valid.

use std::sync::Arc;

use quipu_types::{Position, Record, Uuid};

use super::facts::Facts;
use super::keys::KeyHasher;
use super::live::LiveIndex;
use crate::format::group::GroupKind;
use crate::format::index_file::IndexFile;
use crate::format::index_header::IndexFault;
use crate::segment::scanner::WholeGroup;

/// Collects what an index file holds, record by record, in order.
pub struct IndexBuilder {
    hasher: KeyHasher,
    live: LiveIndex,
    facts: Facts,
}

impl IndexBuilder {
    /// An empty index of a segment.
    #[must_use]
    pub fn new(hasher: KeyHasher, first_position: Position) -> Self {
        Self { hasher, live: LiveIndex::default(), facts: Facts::new(first_position) }
    }

    /// Takes the next group and its records, if it has any.
    pub fn push_group(&mut self, whole: &WholeGroup) {
        if whole.group.header.kind == GroupKind::Data {
            self.live.push_group(&whole.group.header);
        }
        for (record, offset) in whole.records.iter().zip(whole.group.offsets()) {
            self.push_record(record, offset);
        }
    }

    /// Takes the next record, which stands at this offset of the segment.
    pub fn push_record(&mut self, record: &Record, offset: u64) {
        let key = Arc::new(record.aggregate());
        let hash = self.hasher.aggregate(&key);
        self.live.push_record(hash, &key, record.version(), record.position());
        let correlation = Some(record.correlation_id()).filter(|id| !id.is_empty());
        self.facts.push_ids(record.event_id(), correlation.map(|id| self.hasher.correlation(id)));
        self.facts.push_place(offset, &record.header());
        self.facts.push_aggregate_type(record.aggregate_type());
        self.facts.push_event_type(record.event_type());
        self.facts.push_times((record.timestamp(), record.timestamp()), record.recorded_at());
    }

    /// The finished file.
    ///
    /// # Errors
    /// That the records have versions or keys that no log gives.
    pub fn finish(self, segment_id: Uuid, seal_sum: u64) -> Result<IndexFile, IndexFault> {
        self.facts.index_file(&self.live, segment_id, seal_sum)
    }
}
