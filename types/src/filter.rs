//! Which records a reader or subscriber wants.

use crate::aggregate::{AggregateKey, is_system_type};
use crate::record::Record;
use crate::timestamp::Timestamp;

/// Conditions that a record must meet, all of them; the default takes every record that does not
/// belong to the system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this aggregate's stream.
    pub aggregate: Option<AggregateKey>,
    /// Only these aggregate types; empty means all.
    pub aggregate_types: Vec<String>,
    /// Only these event types; empty means all.
    pub event_types: Vec<String>,
    /// Only this correlation id.
    pub correlation_id: Option<String>,
    /// Only events that happened at or after this instant.
    pub since: Option<Timestamp>,
    /// Only events that happened before this instant.
    pub until: Option<Timestamp>,
    /// Only events that the log took at or after this instant.
    pub recorded_since: Option<Timestamp>,
    /// Also aggregates whose type begins with `$`.
    pub include_system: bool,
}

impl Filter {
    /// Only this aggregate's stream.
    #[must_use]
    pub fn aggregate(key: AggregateKey) -> Self {
        let include_system = is_system_type(&key.aggregate_type);
        Self { aggregate: Some(key), include_system, ..Self::default() }
    }

    /// Whether a record meets every condition.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        let aggregate_type = record.aggregate_type();
        (self.include_system || !is_system_type(aggregate_type))
            && self.aggregate.as_ref().is_none_or(|key| record.is_of(key))
            && contains(&self.aggregate_types, aggregate_type)
            && contains(&self.event_types, record.event_type())
            && self.correlation_id.as_deref().is_none_or(|id| record.correlation_id() == id)
            && self.since.is_none_or(|since| record.timestamp() >= since)
            && self.until.is_none_or(|until| record.timestamp() < until)
            && self.recorded_since.is_none_or(|since| record.recorded_at() >= since)
    }
}

fn contains(wanted: &[String], given: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|one| one == given)
}
