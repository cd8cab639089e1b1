//! The name of an aggregate: its type and its id.

use std::fmt;

/// Aggregate type and aggregate id: together the key whose events are one stream.
///
/// Compared by bytes. A key is plain data: it is checked against [`crate::Limits`] when an append
/// is prepared, so that the error can name the field, the limit and what was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AggregateKey {
    /// What kind of thing it is, such as `Call`. Types that begin with `$` belong to the system.
    pub aggregate_type: String,
    /// Which one, such as a UUID; any text without control characters.
    pub aggregate_id: String,
}

impl AggregateKey {
    /// A key from its two parts.
    pub fn new(aggregate_type: impl Into<String>, aggregate_id: impl Into<String>) -> Self {
        Self { aggregate_type: aggregate_type.into(), aggregate_id: aggregate_id.into() }
    }
}

/// The types of the system that clients write, by system appends only: places of consumers, notes
/// of handlers, who runs a bus, and kept states of aggregates.
pub const CLIENT_SYSTEM_TYPES: [&str; 4] = ["$checkpoint", "$handler", "$lease", "$snapshot"];

/// Whether an aggregate type belongs to the system and is hidden from ordinary readers.
#[must_use]
pub fn is_system_type(aggregate_type: &str) -> bool {
    aggregate_type.starts_with('$')
}

impl fmt::Display for AggregateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.aggregate_type, self.aggregate_id)
    }
}
