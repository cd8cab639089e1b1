//! Builds a sealed segment's index file from the segment's groups, where the file is missing or not
//! valid.

use std::sync::Arc;

use quipu_types::{Position, Record, Uuid};

use super::facts::Facts;
use super::keys::KeyHasher;
use super::live::LiveIndex;
use crate::format::group::GroupHeader;
use crate::format::index_file::{IndexFault, IndexFile};

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

    /// Takes the next group that has records.
    pub fn push_group(&mut self, header: &GroupHeader) {
        self.live.push_group(header);
    }

    /// Takes the next record.
    pub fn push_record(&mut self, record: &Record) {
        let key = Arc::new(record.aggregate());
        let hash = self.hasher.aggregate(&key);
        self.live.push_record(hash, &key, record.version(), record.position());
        let correlation = Some(record.correlation_id()).filter(|id| !id.is_empty());
        self.facts.push_ids(record.event_id(), correlation.map(|id| self.hasher.correlation(id)));
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
