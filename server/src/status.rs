//! The state of a log as one JSON document: what `quipu status --json` prints and a server answers.

use std::io;

use quipu_engine::{EventLog, LogState, RecoveryReport, Status};
use quipu_types::Corruption;
use serde_json::{Value, json};

/// The state of a log now.
///
/// # Errors
/// What the disk says.
pub fn document(log: &EventLog) -> io::Result<Value> {
    Ok(document_of(&log.status()?, log.recovery_report()))
}

/// The document of a state.
#[must_use]
pub fn document_of(status: &Status, report: &RecoveryReport) -> Value {
    json!({
        "log_id": status.log_id.to_string(),
        "state": state(status),
        "damaged": matches!(status.state, LogState::Damaged(_)) || status.found_damage.is_some(),
        "ends_in_damage": matches!(status.state, LogState::Damaged(_)),
        "found_damage": status.found_damage.as_ref().map(damage),
        "closed_in_order": report.clean,
        "unproven_bytes": report.unproven_bytes,
        "first_position": first_position(status),
        "last_position": status.last_position,
        "segments": status.segments.len(),
        "index": {
            "runs": status.index.runs,
            "run_bytes": status.index.run_bytes,
            "memory_bytes": status.index.memory_bytes,
            "memory_limit_bytes": status.index.memory_limit_bytes,
            "waiting_segments": status.index.waiting_segments,
            "reads": status.index.reads,
        },
        "bytes_on_disk": status.bytes_on_disk,
        "free_bytes": status.free_bytes,
        "space_is_low": status.space_is_low,
        "clock_lag_us": status.clock_lag_us,
        "storage": status.storage,
        "counts": {
            "appends": status.counts.appends,
            "events": status.counts.events,
            "groups": status.counts.groups,
            "group_bytes": status.counts.group_bytes,
            "duplicates": status.counts.duplicates,
            "conflicts": status.counts.conflicts,
        },
    })
}

/// Damage that a read has met inside a sealed segment of a log that goes on without it.
fn damage(damage: &Corruption) -> Value {
    json!({
        "segment": damage.segment,
        "first": damage.first,
        "last": damage.last,
        "problem": damage.problem,
    })
}

/// The position of the first record that the log still has.
#[must_use]
pub fn first_position(status: &Status) -> u64 {
    status.segments.first().map_or(1, |segment| segment.first_position.0)
}

/// The state in words.
#[must_use]
pub fn state(status: &Status) -> String {
    match &status.state {
        LogState::ReadOnly => "sound".to_owned(),
        state => state.to_string(),
    }
}
