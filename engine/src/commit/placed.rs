//! An append that has its place: what the indexes need of it, without looking into its records.

use quipu_types::record::{HEADER_BYTES, RECORD_FORMAT, RecordHeader};
use quipu_types::{Position, Timestamp, Version};

use super::prepared::{PreparedAppend, PreparedRecord};
use crate::format::group::FRAME_HEADER_BYTES;
use crate::index::facts::Facts;
use crate::index::live::LiveIndex;

/// An append in a group, without its frame: its records begin at `first`, and its aggregates were
/// at the versions `before` it.
pub struct Placed {
    pub(crate) append: PreparedAppend,
    pub(crate) first: Position,
    pub(crate) before: Vec<Version>,
    pub(crate) recorded_at: Timestamp,
}

impl Placed {
    /// Adds its records to the index of the live segment.
    pub(crate) fn index(&self, index: &mut LiveIndex) {
        for (record, position, version) in self.records() {
            let aggregate = &self.append.aggregates[record.aggregate];
            index.push_record(aggregate.hash, &aggregate.key, version, position);
        }
    }

    /// Its records, their positions and versions.
    fn records(&self) -> impl Iterator<Item = (&PreparedRecord, Position, Version)> {
        let mut versions = self.before.clone();
        (self.first.0..).zip(&self.append.records).map(move |(position, record)| {
            let version = versions[record.aggregate].next();
            versions[record.aggregate] = version;
            (record, Position(position), version)
        })
    }

    /// Adds what its records tell beside that; its frame begins at this offset of the segment.
    pub(crate) fn tell(&self, facts: &mut Facts, frame_at: u64) {
        for (record, position, version) in self.records() {
            facts.push_ids(record.event_id(), record.correlation);
            let (archive_bytes, crc) = record.archive;
            let (recorded_at, format) = (self.recorded_at, RECORD_FORMAT);
            let stamps = RecordHeader { position, version, recorded_at, ..RecordHeader::default() };
            let header = RecordHeader { archive_bytes, crc, format, ..stamps };
            facts.push_place(frame_at + record.at as u64, &header);
        }
        for aggregate in self.append.aggregates.iter().filter(|it| it.events > 0) {
            facts.push_aggregate_type(&aggregate.key.aggregate_type);
        }
        for event_type in &self.append.event_types {
            facts.push_event_type(event_type);
        }
        facts.push_times(self.append.timestamps, self.recorded_at);
    }

    /// Bytes of its frame in the group.
    pub(crate) fn frame_bytes(&self) -> u64 {
        let archives = self.append.records.iter().map(|record| u64::from(record.archive.0));
        let headers = (FRAME_HEADER_BYTES + self.append.records.len() * HEADER_BYTES) as u64;
        headers + archives.sum::<u64>()
    }
}
