//! What an operator asks of a running log.

use quipu_types::{Corruption, Position, Timestamp, Uuid};

use crate::log::EventLog;
use crate::shared::{Counts, LogState};
use crate::storage::{FileEntry, FileKind, segment_name};

/// The state of a log at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// The log's id.
    pub log_id: Uuid,
    /// Whether it takes appends, and if not, why.
    pub state: LogState,
    /// Damage inside a sealed segment that a read has met; the log goes on without it.
    pub found_damage: Option<Corruption>,
    /// Position of the last durable record.
    pub last_position: Position,
    /// This opening's epoch; 0 when opened read-only.
    pub epoch: u64,
    /// The segments, oldest first.
    pub segments: Vec<SegmentInfo>,
    /// Aggregates known; 0 when opened read-only.
    pub aggregates: u64,
    /// Event ids known; 0 when opened read-only.
    pub ids: u64,
    /// The index of ids and versions.
    pub index: IndexStatus,
    /// Bytes of all files in the folder.
    pub bytes_on_disk: u64,
    /// Bytes free on the file system.
    pub free_bytes: u64,
    /// Whether free space is low: below 10 GiB or 5 %, whichever is less.
    pub space_is_low: bool,
    /// How far `recorded_at` of the last record runs ahead of the clock, in microseconds; it does
    /// where the clock was set back.
    pub clock_lag_us: i64,
    /// What was done since the log was opened.
    pub counts: Counts,
    /// Bytes and number of appends that wait for the sequencer.
    pub queued: (usize, usize),
    /// What stands behind the storage seam.
    pub storage: String,
}

/// The index of ids and versions at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexStatus {
    /// Files of runs in the folder.
    pub runs: usize,
    /// Bytes of these.
    pub run_bytes: u64,
    /// Bytes in memory; 0 when opened read-only.
    pub memory_bytes: u64,
    /// What the setting `index_memory` says.
    pub memory_limit_bytes: u64,
    /// Sealed segments that are in no run yet.
    pub waiting_segments: usize,
    /// Look-ups that have read a run's file since the log was opened.
    pub reads: u64,
}

/// One segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub number: u64,
    /// Its file's name.
    pub name: String,
    /// Whether it takes no more groups and is served from its index file.
    pub indexed: bool,
    /// Whether it is the one being written.
    pub active: bool,
    /// Position of its first record.
    pub first_position: Position,
    /// Position of its last record; the one before its first if it has none.
    pub last_position: Position,
    /// Bytes of its file.
    pub bytes: u64,
    /// When it was activated.
    pub created_at: Timestamp,
    /// The epoch in which it was activated.
    pub epoch: u64,
}

const LOW_SPACE_BYTES: u64 = 10 << 30;

impl EventLog {
    /// The log's state now.
    ///
    /// # Errors
    /// What the disk says.
    pub fn status(&self) -> std::io::Result<Status> {
        let shared = self.shared();
        let segments = self.segments()?;
        let space = shared.env.storage.space()?;
        let files = shared.env.storage.list()?;
        let (aggregates, ids) = self.known();
        let last_position = shared.watermark.current();
        let last_recorded_at = match last_position {
            Position::START => None,
            last => self.record_at(last).ok().map(|record| record.recorded_at()),
        };
        let now = shared.env.clock.now();
        Ok(Status {
            log_id: shared.log_id,
            state: shared.state(),
            found_damage: shared.found_damage(),
            last_position,
            epoch: self.recovery_report().epoch,
            segments,
            aggregates,
            ids,
            index: self.index_status(&files),
            bytes_on_disk: files.iter().map(|file| file.bytes).sum(),
            free_bytes: space.free,
            space_is_low: space.free < LOW_SPACE_BYTES.min(space.total / 20),
            clock_lag_us: last_recorded_at
                .map_or(0, |last: Timestamp| (last.as_micros() - now.as_micros()).max(0)),
            counts: shared.counters.counts(),
            queued: shared.inbox.depth(),
            storage: shared.env.storage.describe(),
        })
    }

    fn index_status(&self, files: &[FileEntry]) -> IndexStatus {
        let shared = self.shared();
        let is_run = |file: &&FileEntry| matches!(FileKind::of(&file.name), FileKind::Run(..));
        let runs = files.iter().filter(is_run);
        let set = shared.sealed.snapshot();
        IndexStatus {
            runs: runs.clone().count(),
            run_bytes: runs.map(|file| file.bytes).sum(),
            memory_bytes: set.memory_bytes() + self.active_index_bytes(),
            memory_limit_bytes: shared.options.index_memory,
            waiting_segments: set.waiting().count(),
            reads: shared.counters.index_reads(),
        }
    }

    /// The segments, oldest first.
    ///
    /// # Errors
    /// What the disk says.
    pub fn segments(&self) -> std::io::Result<Vec<SegmentInfo>> {
        let segments = self.shared().segments.snapshot();
        let last = segments.len().saturating_sub(1);
        (segments.iter().enumerate())
            .map(|(index, segment)| {
                let header = segment.header();
                Ok(SegmentInfo {
                    number: header.number,
                    name: segment_name(header.number),
                    indexed: segment.is_indexed(),
                    active: index == last,
                    first_position: header.first_position,
                    last_position: segment.last_position(),
                    bytes: segment.file_bytes(&self.shared().open_files)?,
                    created_at: header.created_at,
                    epoch: header.epoch,
                })
            })
            .collect()
    }
}
