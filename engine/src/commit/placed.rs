//! An append that has its place: what the indexes need of it, without looking into its records.

use quipu_types::{Position, Timestamp, Version};

use super::prepared::PreparedAppend;
use crate::index::facts::Facts;
use crate::index::live::LiveIndex;

/// An append in a group: its records begin at `first`, and its aggregates were at the versions
/// `before` it.
pub struct Placed {
    pub(crate) append: PreparedAppend,
    pub(crate) first: Position,
    pub(crate) before: Vec<Version>,
    pub(crate) recorded_at: Timestamp,
}

impl Placed {
    /// Adds its records to the index of the live segment.
    pub(crate) fn index(&self, index: &mut LiveIndex) {
        let mut versions = self.before.clone();
        for (number, record) in self.append.records.iter().enumerate() {
            let aggregate = &self.append.aggregates[record.aggregate];
            let version = versions[record.aggregate].next();
            versions[record.aggregate] = version;
            let position = Position(self.first.0 + number as u64);
            index.push_record(aggregate.hash, &aggregate.key, version, position);
        }
    }

    /// Adds what its records tell beside that.
    pub(crate) fn tell(&self, facts: &mut Facts) {
        for record in &self.append.records {
            facts.push_ids(record.event_id(), record.correlation);
        }
        for aggregate in self.append.aggregates.iter().filter(|it| it.events > 0) {
            facts.push_aggregate_type(&aggregate.key.aggregate_type);
        }
        for event_type in &self.append.event_types {
            facts.push_event_type(event_type);
        }
        facts.push_times(self.append.timestamps, self.recorded_at);
    }
}
