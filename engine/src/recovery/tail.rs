//! Scans the active segment: its valid groups, and what stands behind them.

use std::io;
use std::sync::Arc;

use quipu_types::{Position, Record, Timestamp};

use super::decide::{TailCase, TailFacts, decide};
use crate::format::group::{Group, GroupKind};
use crate::format::segment_header::SegmentHeader;
use crate::segment::scanner::{ScanEnd, Scanner, Source};
use crate::storage::StorageFile;

/// What was found in the active segment.
pub struct ScannedTail {
    /// Its valid, continuing groups.
    pub groups: Vec<Group>,
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

/// Scans the whole of a segment's file, directly from the medium.
///
/// # Errors
/// What the disk says.
pub fn scan(header: &SegmentHeader, file: &Arc<dyn StorageFile>) -> io::Result<ScannedTail> {
    let mut scanner = Scanner::new(Source::File(Arc::clone(file)), header.clone());
    let mut groups: Vec<Group> = Vec::new();
    let end = loop {
        match scanner.next_group()? {
            Ok(group) => groups.push(group),
            Err(end) => break end,
        }
    };
    let strays = scanner.stray_groups()?;
    let all = || groups.iter().map(|group| &group.header).chain(&strays.groups);
    let facts = TailFacts {
        end: scanner.point().offset,
        durable_upto: all().map(|group| group.durable_upto).max().unwrap_or(0),
        last_nonzero: strays.last_nonzero,
        last_stray: strays.groups.last().map(|group| group.offset),
    };
    let last_kind = groups.last().map(|group| group.header.kind);
    let epoch = all().map(|group| group.epoch).max().unwrap_or(0).max(header.epoch);
    let last_record = groups.iter().rev().find_map(last_record);
    Ok(ScannedTail {
        end,
        facts,
        strays: strays.groups.len(),
        chain: scanner.point().chain,
        epoch,
        next_position: scanner.point().next_position,
        last_recorded_at: last_record.map_or(header.last_recorded_at, |it| it.recorded_at()),
        clean: matches!(last_kind, Some(GroupKind::Clean | GroupKind::Seal)),
        groups,
    })
}

/// As [`scan`], beside a writer: a group that was in flight when its place was read and durable
/// when the rest was read looks like damage, until one looks again.
///
/// # Errors
/// What the disk says.
pub fn scan_beside_writer(
    header: &SegmentHeader,
    file: &Arc<dyn StorageFile>,
) -> io::Result<ScannedTail> {
    let mut tail = scan(header, file)?;
    while decide(&tail.facts) == TailCase::AcknowledgedDamaged {
        let again = scan(header, file)?;
        if again.facts.end == tail.facts.end {
            break;
        }
        tail = again;
    }
    Ok(tail)
}

fn last_record(group: &Group) -> Option<Record> {
    (group.header.kind == GroupKind::Data)
        .then(|| group.record(group.header.next_position().previous()).ok())
        .flatten()
}
