//! Settings of an embedded log.

use quipu_engine::{Backend, LogOptions, Mapping};
use quipu_types::Limits;

/// Settings of an embedded log; the default is right for most. All can change from one opening to
/// the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Sizes and limits.
    pub log: LogOptions,
    /// How groups reach the disk.
    pub backend: Backend,
    /// How sealed segments are read.
    pub mapping: Mapping,
}

impl Options {
    /// Settings with smaller segments, and the append limit that goes with them.
    #[must_use]
    pub fn with_segment_bytes(mut self, segment_bytes: u64) -> Self {
        self.log.segment_bytes = segment_bytes;
        let limits = &mut self.log.limits;
        let most = usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX);
        limits.append_bytes_max = limits.append_bytes_max.min(most);
        limits.event_bytes_max = limits.event_bytes_max.min(limits.append_bytes_max);
        self
    }

    /// Settings with these limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.log.limits = limits;
        self
    }
}
