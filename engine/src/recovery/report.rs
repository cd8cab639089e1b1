//! What opening a log found and did, in words for an operator.

use std::fmt;

use quipu_types::{Corruption, Position, Uuid};

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The log.
    pub log_id: Uuid,
    /// The log was made.
    pub created: bool,
    /// Segments in it.
    pub segments: usize,
    /// Position of its last record.
    pub last_position: Position,
    /// This opening's epoch; 0 when it was opened read-only.
    pub epoch: u64,
    /// The last process closed it in order.
    pub clean: bool,
    /// What was cut off the end: never acknowledged.
    pub torn: Option<TornTail>,
    /// The copy of a next segment's header that was torn when the last process ended, and was made
    /// again.
    pub torn_header: Option<String>,
    /// Damage; the log is read-only until it is mended.
    pub damage: Option<Corruption>,
    /// A roll that a crash had interrupted was finished.
    pub finished_roll: bool,
    /// Segments whose index was missing or not valid, and was built again.
    pub rebuilt_indexes: Vec<u64>,
    /// Runs of the index that were missing or not valid, and were made again.
    pub made_runs: usize,
    /// Files that are none of a log's; they were left alone.
    pub unknown_files: Vec<String>,
    /// The end could not be proven durable (read-only beside a crash or a writer): so many bytes
    /// of groups beyond the last proven one are not shown.
    pub unproven_bytes: u64,
}

/// Writes in flight at a crash, none of them acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Number of the segment.
    pub segment: u64,
    /// Where the tail began.
    pub offset: u64,
    /// How long it was.
    pub bytes: u64,
    /// Whole groups among it, behind a hole.
    pub groups: usize,
    /// What was found at its beginning.
    pub problem: String,
    /// The file that keeps a copy, if one could be kept.
    pub copy: Option<String>,
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { log_id, segments, last_position, .. } = self;
        let verb = if self.created { "created" } else { "opened" };
        let segments = plural(*segments, "segment");
        write!(f, "{verb} log {log_id}: {segments}, last position {last_position}")?;
        if self.epoch > 0 {
            write!(f, ", epoch {}", self.epoch)?;
        }
        if !self.created {
            f.write_str(if self.clean { ", closed in order" } else { ", not closed in order" })?;
        }
        if let Some(torn) = &self.torn {
            write!(
                f,
                "\ncut a torn tail off segment {}: {} bytes at offset {} that were being written \
                 when the last process ended, none acknowledged ({}; {} behind a hole)",
                torn.segment,
                torn.bytes,
                torn.offset,
                torn.problem,
                plural(torn.groups, "whole group"),
            )?;
            match &torn.copy {
                Some(name) => write!(f, "; a copy is kept in {name}")?,
                None => f.write_str("; no copy could be kept")?,
            }
        }
        if let Some(name) = &self.torn_header {
            write!(
                f,
                "\nmade the file of the next segment again, whose header was being written when \
                 the last process ended; a copy is kept in {name}"
            )?;
        }
        if self.finished_roll {
            f.write_str("\nfinished the roll to a new segment that a crash had interrupted")?;
        }
        if !self.rebuilt_indexes.is_empty() {
            let built = plural(self.rebuilt_indexes.len(), "index file");
            write!(f, "\nbuilt {built} again, of segments {:?}", self.rebuilt_indexes)?;
        }
        if self.made_runs > 0 {
            write!(f, "\nmade {} of the index again", plural(self.made_runs, "run"))?;
        }
        if self.unproven_bytes > 0 {
            let bytes = self.unproven_bytes;
            write!(f, "\n{bytes} bytes at the end are not proven durable yet and not shown")?;
        }
        for name in &self.unknown_files {
            write!(f, "\nleft alone: {name} is none of the log's files")?;
        }
        if let Some(damage) = &self.damage {
            write!(
                f,
                "\nDAMAGED: {damage}\nthe log is read-only up to position {last_position}: keep a \
                 copy of the folder, run `quipu verify`, and restore the segment from a backup"
            )?;
        }
        Ok(())
    }
}

/// `1 run`, `2 runs`.
fn plural(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}
