//! Checks the sorted runs of the index: every sum, the order, the filters, and, if asked, that they
//! hold what the segments hold.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use quipu_types::{Position, Uuid, Version};

use crate::format::run_file::{Entry, Key, RunFault, Span};
use crate::format::segment_set::SegmentSet;
use crate::index::keys::KeyHasher;
use crate::index::run::{Run, RunError};
use crate::index::table_reader::TableReader;
use crate::storage::{Storage, run_name};

/// Every id and aggregate that the segments up to some place hold.
#[derive(Default)]
pub(super) struct Held {
    pub(super) ids: HashMap<Key, Position>,
    pub(super) aggregates: HashMap<Key, HeldAggregate>,
}

/// What the segments hold of an aggregate.
pub(super) struct HeldAggregate {
    pub(super) version: Version,
    pub(super) first: Position,
    pub(super) last: Position,
    /// The segments that hold its events, in order.
    pub(super) segments: Vec<u64>,
}

/// What is wrong with a run, if anything: with its file, or, compared with what the segments up to
/// its last one hold, with its entries. A run that a writer has replaced meanwhile is none.
pub(super) fn problem(
    storage: &dyn Storage,
    log_id: Uuid,
    expected: &Span,
    held: Option<&Held>,
) -> Option<String> {
    let segments = (expected.first_segment, expected.last_segment);
    let checked = Run::open(storage, segments, log_id, u64::MAX).and_then(|run| {
        if run.span() == expected {
            check(storage, &Arc::new(run), held)
        } else {
            Err(RunFault::OtherLog.into())
        }
    });
    match checked {
        Ok(difference) => difference,
        Err(RunError::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(error.to_string()),
    }
    .map(|problem| format!("{}: {problem}", run_name(segments.0, segments.1)))
}

fn check(
    storage: &dyn Storage,
    run: &Arc<Run>,
    held: Option<&Held>,
) -> Result<Option<String>, RunError> {
    let hasher = KeyHasher::new(run.header().log_id);
    let id = |entry: &Entry<1>| {
        let position = Position(entry.value[0]);
        run.lets_through(&hasher.table_key(entry.key)).0
            && held.is_none_or(|held| held.ids.get(&entry.key) == Some(&position))
    };
    let span = run.span();
    let aggregate = |entry: &Entry<3>| {
        let [version, position, segments] = entry.value;
        let is_newest = |it: &HeldAggregate| {
            let covered = it.segments.iter().filter(|segment| span.covers(**segment));
            let sets = covered.map(|segment| SegmentSet::of(span, *segment));
            let holders = sets.fold(SegmentSet::EMPTY, SegmentSet::union);
            let is_told = SegmentSet(segments).stands_for(holders, span);
            it.version.0 == version && it.last.0 == position && is_told
        };
        run.lets_through(&hasher.table_key(entry.key)).1
            && held.is_none_or(|held| held.aggregates.get(&entry.key).is_some_and(is_newest))
    };
    let ids = every(TableReader::of_ids(storage, run)?, id)?;
    let aggregates = every(TableReader::of_aggregates(storage, run)?, aggregate)?;
    let counted = held.is_none_or(|held| {
        let first = run.span().first_position;
        let now = held.aggregates.values();
        let (written, born) = now.fold((0, 0), |(written, born), it| {
            (written + u64::from(it.last >= first), born + u64::from(it.first >= first))
        });
        ids == Some(run.span().records())
            && aggregates == Some(written)
            && run.header().born == born
    });
    let is_right = ids.is_some() && aggregates.is_some() && counted;
    Ok((!is_right).then(|| "it does not hold what its segments hold".to_owned()))
}

/// How many entries there are; `None` if one is wrong.
fn every<const N: usize>(
    mut table: TableReader<N>,
    is_right: impl Fn(&Entry<N>) -> bool,
) -> Result<Option<u64>, RunError> {
    let mut count = 0;
    while let Some(entry) = table.head() {
        if !is_right(&entry) {
            return Ok(None);
        }
        count += 1;
        table.advance()?;
    }
    Ok(Some(count))
}
