//! What the sequencer checks appends against: the position of every event id, and the newest
//! version of every aggregate, that were ever admitted.

use std::sync::Arc;

use quipu_types::{Position, Version};

use super::generation::Generation;
use super::rebuild::{RebuildError, ask_index};
use super::run::{Run, RunError};
use super::sealed::{Part, SealedSet, Waiting};
use crate::bug::{Bug, seeded};
use crate::commit::prepared::{PreparedAggregate, PreparedAppend, PreparedRecord};
use crate::format::index_file::IndexFile;
use crate::format::index_header::IndexFault;
use crate::format::run_file::Span;
use crate::index::indexer::IndexWork;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::storage::is_lack;

/// Ids and versions, of the active segment and of all sealed ones. Held by the sequencer alone.
///
/// Invariants:
/// 1. What was admitted is found from then on: in the active generation, in one that waits, or in a
///    run that covers its segment.
/// 2. A run is replaced only by runs that hold the same, and a generation only by a run of it.
/// 3. What a run cannot tell is looked up in its segments: damage to a run costs time, never a
///    wrong answer.
pub struct Known {
    active: Generation,
    sealed: Arc<SealedSet>,
}

/// It cannot be told whether an id or an aggregate is known.
#[derive(Debug, thiserror::Error)]
#[error("segment {segment} cannot be searched, nor can the run that covers it: {error}")]
pub struct Unsearchable {
    segment: u64,
    error: RebuildError,
}

impl Known {
    /// With what the active segment holds so far.
    #[must_use]
    pub fn new(active: Generation, log: &Shared) -> Self {
        Self { active, sealed: log.sealed.snapshot() }
    }

    /// Takes what the indexer has changed.
    pub fn refresh(&mut self, log: &Shared) {
        self.sealed = log.sealed.snapshot();
    }

    /// What the active segment has brought.
    pub fn active(&mut self) -> &mut Generation {
        &mut self.active
    }

    /// The active segment is sealed: the next one's begins.
    pub fn seal(&mut self, log: &Shared, span: Span) {
        let next = self.active.next(log.hasher);
        let mut generation = std::mem::replace(&mut self.active, next);
        generation.forget(log.hasher);
        log.sealed.push(Waiting { span, generation });
        self.refresh(log);
    }

    /// Its bytes in memory.
    pub fn active_bytes(&self) -> u64 {
        self.active.bytes()
    }

    /// Aggregates and ids known.
    pub fn known(&self) -> (u64, u64) {
        let sealed = self.sealed.known();
        (sealed.0 + self.active.born(), sealed.1 + self.active.ids().len() as u64)
    }

    /// Says what will be asked for next: the filters of large runs are in no cache.
    pub(crate) fn touch(&self, append: &PreparedAppend) {
        for run in self.sealed.runs() {
            let last = run.header().ids.last_key;
            let ids = append.records.iter().map(|record| record.id);
            run.touch_ids(ids.filter(|id| id.key <= last).map(|id| id.hash));
            run.touch_aggregates(append.aggregates.iter().map(|it| it.wide.hash));
        }
    }

    /// Where the event with this id stands, if it is known.
    ///
    /// # Errors
    /// That it cannot be told.
    pub(crate) fn position_of(
        &self,
        log: &Shared,
        record: &PreparedRecord,
    ) -> Result<Option<Position>, Unsearchable> {
        let id = &record.id;
        match self.active.position_of(id) {
            None if id.key > self.sealed.greatest_id() => Ok(None),
            None => self.find_sealed(
                log,
                |generation| generation.position_of(id),
                |run| run.position_of(id, &log.counters),
                |index| index.position_of(record.event_id()),
            ),
            found => Ok(found),
        }
    }

    /// The newest version of an aggregate, `Version::NONE` if it was never written.
    ///
    /// # Errors
    /// That it cannot be told.
    pub(crate) fn version(
        &self,
        log: &Shared,
        aggregate: &PreparedAggregate,
    ) -> Result<Version, Unsearchable> {
        let key = &aggregate.wide;
        if let Some(version) = self.active.version(key) {
            return Ok(version);
        }
        let in_segment = |index: &IndexFile| {
            let entry = index.aggregate(aggregate.hash, &aggregate.key)?;
            Ok(entry.map(|entry| entry.last_version()))
        };
        let in_run = |run: &Run| run.version(key, &log.counters);
        let found = self.find_sealed(log, |it| it.version(key), in_run, in_segment)?;
        Ok(found.unwrap_or(Version::NONE))
    }

    /// Asks what is sealed, newest first; where a run cannot tell, its segments.
    fn find_sealed<T>(
        &self,
        log: &Shared,
        in_generation: impl Fn(&Generation) -> Option<T>,
        in_run: impl Fn(&Run) -> Result<Option<T>, RunError>,
        in_segment: impl Fn(&IndexFile) -> Result<Option<T>, IndexFault>,
    ) -> Result<Option<T>, Unsearchable> {
        for part in self.sealed.parts().iter().rev() {
            let found = match part {
                Part::Waiting(_) if seeded(Bug::LooksInRunsOnly) => None,
                Part::Waiting(waiting) => in_generation(&waiting.generation),
                Part::Run(run) => match in_run(run) {
                    Ok(found) => found,
                    Err(_) if seeded(Bug::UnreadableRunKnowsNothing) => None,
                    Err(error) => {
                        report_damage(log, run, &error);
                        find_in_segments(log, run.span(), &in_segment)?
                    }
                },
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

/// Lets the indexer tell of a damaged run, and make it again.
pub(crate) fn report_damage(log: &Shared, run: &Arc<Run>, error: &RunError) {
    let is_whole = matches!(error, RunError::Io(error) if is_lack(error));
    if !is_whole && run.note_damage(error) {
        log.index_queue.push(IndexWork::Tidy);
    }
}

/// The newest find in the segments of a span, each searched by itself: slow, and right.
fn find_in_segments<T>(
    log: &Shared,
    span: &Span,
    in_segment: &impl Fn(&IndexFile) -> Result<Option<T>, IndexFault>,
) -> Result<Option<T>, Unsearchable> {
    let segments = log.segments.snapshot();
    let covered = |segment: &&Arc<Segment>| {
        (span.first_segment..=span.last_segment).contains(&segment.header().number)
    };
    for segment in segments.iter().rev().filter(covered) {
        let number = segment.header().number;
        let found = ask_index(log, segment, in_segment)
            .map_err(|error| Unsearchable { segment: number, error })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}
