//! What can be set when a log is opened.

use quipu_types::Limits;
use quipu_types::limits::{APPEND_BYTES_HARD_MAX, APPEND_EVENTS_HARD_MAX, EVENT_BYTES_HARD_MAX};

use crate::commit::inbox::QueueLimits;
use crate::format::{
    BLOCK_BYTES, GROUP_BYTES_MAX, GROUPS_IN_FLIGHT_MAX, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};

const MIB: usize = 1 << 20;
/// Blocks of a segment that hold no appends: its header, START, WITNESS or CLEAN, and SEAL.
const OVERHEAD_BLOCKS: u64 = 4;

/// Settings of a log. All can change from one opening to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Size at which a segment is sealed, in bytes; a multiple of 4,096. Default 256 MiB, at most
    /// 1 GiB, at least 4 × the append limit.
    pub segment_bytes: u64,
    /// Limits of events and appends.
    pub limits: Limits,
    /// A group is closed at this size, in bytes, but holds at least one append. Default 512 KiB.
    pub group_bytes: usize,
    /// Groups in flight at once, 1 to 4. Default 2.
    pub groups_in_flight: usize,
    /// Bytes of appends that may wait for the sequencer. Default 64 MiB.
    pub queue_bytes: usize,
    /// Appends that may wait for the sequencer. Default 16,384.
    pub queue_appends: usize,
    /// Bytes of the newest groups kept in memory for those who follow the log. Default 64 MiB.
    pub tail_bytes: usize,
    /// Bytes of memory for the index of ids and versions. Default 1 GiB. Three quarters of
    /// `segment_bytes` go to the newest segments; of what is left, half to filters, half to those
    /// being made anew. Where they have less than 2 bytes an event, look-ups read the disk more
    /// often; below half a byte, always. Not counted: 16 bytes for each block of a run, that is a
    /// quarter of a byte an event at most.
    pub index_memory: u64,
    /// Runs of one size that are merged into one, 2 to 16. Default 4: fewer are fewer look-ups,
    /// more are fewer writes.
    pub index_fan_in: usize,
    /// After so long without work, in microseconds, a WITNESS covers the last group. Default
    /// 2,000.
    pub witness_after_us: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 256 * MIB as u64,
            limits: Limits::default(),
            group_bytes: 512 * 1024,
            groups_in_flight: 2,
            queue_bytes: 64 * MIB,
            queue_appends: 16_384,
            tail_bytes: 64 * MIB,
            index_memory: 1024 * MIB as u64,
            index_fan_in: 4,
            witness_after_us: 2_000,
        }
    }
}

/// A setting outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("option {option} is {given}, it must be {range}")]
pub struct OptionError {
    /// Which one.
    pub option: &'static str,
    /// What was given.
    pub given: u64,
    /// What it may be.
    pub range: String,
}

impl LogOptions {
    /// Checks every setting against its range.
    ///
    /// # Errors
    /// The first that is outside.
    pub fn check(&self) -> Result<(), OptionError> {
        let limits = &self.limits;
        within("groups_in_flight", self.groups_in_flight, 1, GROUPS_IN_FLIGHT_MAX)?;
        within("group_bytes", self.group_bytes, BLOCK_BYTES, GROUP_BYTES_MAX)?;
        within("event_bytes_max", limits.event_bytes_max, 1, EVENT_BYTES_HARD_MAX)?;
        within("append_events_max", limits.append_events_max, 1, APPEND_EVENTS_HARD_MAX)?;
        within("append_bytes_max", limits.append_bytes_max, 1024, APPEND_BYTES_HARD_MAX)?;
        within("index_fan_in", self.index_fan_in, 2, 16)?;
        within("queue_bytes", self.queue_bytes, 1, usize::MAX)?;
        within("queue_appends", self.queue_appends, 1, usize::MAX)?;
        let blocks = (limits.append_bytes_max + BLOCK_BYTES).next_multiple_of(BLOCK_BYTES) as u64;
        let overhead = OVERHEAD_BLOCKS * BLOCK_BYTES as u64;
        let least = (4 * limits.append_bytes_max as u64).max(blocks + overhead);
        let least = least.max(SEGMENT_BYTES_MIN).next_multiple_of(BLOCK_BYTES as u64);
        let whole = self.segment_bytes.is_multiple_of(BLOCK_BYTES as u64);
        if !whole || !(least..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes) {
            return Err(OptionError {
                option: "segment_bytes",
                given: self.segment_bytes,
                range: format!(
                    "a multiple of {BLOCK_BYTES} from {least} (4 × append_bytes_max) to \
                     {SEGMENT_BYTES_MAX}"
                ),
            });
        }
        Ok(())
    }

    /// Free space below which the log takes no more: two segments and 1 GiB, or less for small
    /// segments.
    #[must_use]
    pub fn reserve_bytes(&self) -> u64 {
        2 * self.segment_bytes + (4 * self.segment_bytes).min(1 << 30)
    }

    /// Bytes that the filters of the index may have in memory.
    #[must_use]
    pub fn filter_bytes(&self) -> u64 {
        self.index_memory.saturating_sub(self.segment_bytes / 4 * 3) / 2
    }

    pub(crate) fn queue_limits(&self) -> QueueLimits {
        QueueLimits { bytes: self.queue_bytes, appends: self.queue_appends }
    }
}

fn within(
    option: &'static str,
    given: usize,
    least: usize,
    most: usize,
) -> Result<(), OptionError> {
    if (least..=most).contains(&given) {
        return Ok(());
    }
    let range = format!("from {least} to {most}");
    Err(OptionError { option, given: given as u64, range })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_a_small_segment_names_the_append_limit() {
        assert_eq!(LogOptions::default().check(), Ok(()));
        let small = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
        let error = small.check().unwrap_err().to_string();
        assert!(error.contains("1048576") && error.contains("33554432"), "{error}");
    }
}
