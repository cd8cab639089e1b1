//! Scans the active segment: its valid groups, and what stands behind them.

use std::io;
use std::sync::Arc;

use quipu_types::{Position, Record, Timestamp};

use super::decide::{TailFacts, decide};
use crate::format::group::{GroupHeader, GroupKind};
use crate::format::segment_header::SegmentHeader;
use crate::segment::scanner::{ScanEnd, Scanner, Source, WholeGroup};
use crate::storage::StorageFile;

/// What was found in the active segment.
pub struct ScannedTail {
    /// The last of its valid, continuing groups.
    pub last: Option<GroupHeader>,
    /// Why there are no more.
    pub end: ScanEnd,
    /// What stands behind them.
    pub facts: TailFacts,
    /// Valid groups behind a hole.
    pub strays: usize,
    /// Sum of the last group.
    pub chain: u64,
    /// Greatest epoch seen in any valid group, or the header.
    pub epoch: u64,
    /// Position of the next record.
    pub next_position: Position,
    /// `recorded_at` of the last record.
    pub last_recorded_at: Timestamp,
    /// The last group is CLEAN or SEAL.
    pub clean: bool,
}

/// Scans the whole of a segment's file, directly from the medium; `take` is given its valid,
/// continuing groups, so that they need not all be in memory.
///
/// # Errors
/// What the disk says.
pub fn scan(
    header: &SegmentHeader,
    file: &Arc<dyn StorageFile>,
    take: &mut dyn FnMut(WholeGroup),
) -> io::Result<ScannedTail> {
    let mut scanner = Scanner::new(Source::File(Arc::clone(file)), header.clone());
    let mut last: Option<GroupHeader> = None;
    let (mut durable_upto, mut epoch) = (0, header.epoch);
    let mut last_recorded_at = header.last_recorded_at;
    let end = loop {
        match scanner.next_group()? {
            Ok(whole) => {
                let group = whole.group.header;
                (durable_upto, epoch) =
                    (durable_upto.max(group.durable_upto), epoch.max(group.epoch));
                last_recorded_at =
                    whole.records.last().map_or(last_recorded_at, Record::recorded_at);
                last = Some(group);
                take(whole);
            }
            Err(end) => break end,
        }
    };
    let strays = scanner.stray_groups()?;
    for group in &strays.groups {
        (durable_upto, epoch) = (durable_upto.max(group.durable_upto), epoch.max(group.epoch));
    }
    let facts =
        TailFacts { end: scanner.point().offset, durable_upto, last_nonzero: strays.last_nonzero };
    Ok(ScannedTail {
        end,
        facts,
        strays: strays.groups.len(),
        chain: scanner.point().chain,
        epoch,
        next_position: scanner.point().next_position,
        last_recorded_at,
        clean: last.is_some_and(|it| matches!(it.kind, GroupKind::Clean | GroupKind::Seal)),
        last,
    })
}

/// As [`scan`], beside a writer: a group that was in flight when its place was read and durable
/// when the rest was read looks like damage, until one looks again. `take` is given each once.
///
/// # Errors
/// What the disk says.
pub fn scan_beside_writer(
    header: &SegmentHeader,
    file: &Arc<dyn StorageFile>,
    take: &mut dyn FnMut(WholeGroup),
) -> io::Result<ScannedTail> {
    let mut tail = scan(header, file, take)?;
    while decide(&tail.facts).is_damage() {
        let taken_upto = tail.facts.end;
        let again = scan(header, file, &mut |whole| {
            if whole.group.header.offset >= taken_upto {
                take(whole);
            }
        })?;
        if again.facts.end == tail.facts.end {
            break;
        }
        tail = again;
    }
    Ok(tail)
}
