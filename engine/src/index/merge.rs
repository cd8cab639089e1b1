//! Several neighbouring runs made into one, in small steps: a segment that is sealed meanwhile does
//! not wait for the end of it.

use std::io;
use std::sync::Arc;

use quipu_types::Uuid;

use super::keys::are_spread;
use super::run::{Run, RunError};
use super::run_writer::{RunPlan, RunWriter};
use super::sealed::FilterBits;
use super::table_reader::TableReader;
use crate::bug::{Bug, seeded};
use crate::format::run_file::{Entry, Span};
use crate::format::segment_set::SegmentSet;
use crate::storage::Storage;

/// A merge under way.
pub struct Merge {
    runs: Vec<Arc<Run>>,
    /// Newest first: of several entries of a key, the first is the newest.
    ids: Vec<TableReader<1>>,
    aggregates: Vec<TableReader<3>>,
    writer: RunWriter,
    written: u64,
}

/// Why a merge came to nothing; the runs stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// One of the runs cannot be read.
    #[error("cannot read the run {}: {}", .0.name(), .1)]
    Unreadable(Arc<Run>, RunError),
    /// The disk refused the new one.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Merge {
    /// Begins to merge neighbours, oldest first.
    ///
    /// # Errors
    /// That the disk refused.
    pub fn begin(
        storage: &Arc<dyn Storage>,
        log_id: Uuid,
        runs: Vec<Arc<Run>>,
        filter_bits: FilterBits,
    ) -> Result<Self, MergeError> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput).into());
        };
        let (first, last) = (first.span(), last.span());
        let span = Span {
            first_segment: first.first_segment,
            first_position: first.first_position,
            ..*last
        };
        let born = runs.iter().map(|run| run.header().born).sum();
        let plan = RunPlan { span, born, entries: entries(&runs), filter_bits };
        let (mut ids, mut aggregates) = (Vec::new(), Vec::new());
        for run in runs.iter().rev() {
            let unreadable = |error| MergeError::Unreadable(Arc::clone(run), error);
            ids.push(TableReader::of_ids(&**storage, run).map_err(unreadable)?);
            aggregates.push(TableReader::of_aggregates(&**storage, run).map_err(unreadable)?);
        }
        if seeded(Bug::MergeKeepsTheOldest) {
            aggregates.reverse();
        }
        let writer = RunWriter::create(storage, log_id, plan)?;
        Ok(Self { runs, ids, aggregates, writer, written: 0 })
    }

    /// Takes so many entries; true when none is left.
    ///
    /// # Errors
    /// That a run cannot be read, or the disk refused.
    pub fn step(&mut self, entries: usize) -> Result<bool, MergeError> {
        for _ in 0..entries {
            if let Some(id) = pop_least(&mut self.ids, |_, _| {})? {
                self.writer.push_id(id)?;
            } else if let Some(aggregate) = self.pop_aggregate()? {
                self.writer.push_aggregate(aggregate)?;
            } else {
                return Ok(true);
            }
            self.written += 1;
            if seeded(Bug::SwapsInHalfARun) && self.is_half_done() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// As it is in the newest run that holds it, in all segments that do.
    fn pop_aggregate(&mut self) -> Result<Option<Entry<3>>, MergeError> {
        let whole = *self.writer.span();
        let mut all = SegmentSet::EMPTY;
        let collect = |of: &Run, entry: &Entry<3>| {
            let more = SegmentSet(entry.value[2]).within(&whole, of.span());
            if all == SegmentSet::EMPTY || !seeded(Bug::MergeLosesASegment) {
                all = all.union(more);
            }
        };
        let newest = pop_least(&mut self.aggregates, collect)?;
        Ok(newest.map(|Entry { key, value: [version, position, _] }| Entry {
            key,
            value: [version, position, all.0],
        }))
    }

    fn is_half_done(&self) -> bool {
        let (ids, aggregates) = entries(&self.runs);
        self.written * 2 >= ids + aggregates
    }

    /// What the run will cover.
    pub fn span(&self) -> &Span {
        self.writer.span()
    }

    /// Bytes of the run's file, at most.
    pub fn bytes_at_most(&self) -> u64 {
        self.runs.iter().map(|run| run.file_bytes()).sum()
    }

    /// Memory that the run's filters will take.
    pub fn filter_bytes(&self) -> u64 {
        self.writer.filter_bytes()
    }

    /// The runs that were merged, and the one in their place, durable.
    ///
    /// # Errors
    /// That the disk refused.
    pub fn finish(self) -> Result<(Vec<Arc<Run>>, Run), MergeError> {
        Ok((self.runs, self.writer.finish()?))
    }
}

/// Runs are made of others for speed alone: the space that is kept free is kept for appends.
///
/// # Errors
/// That so many bytes more would take of it, or that the disk does not say.
pub fn check_room(storage: &dyn Storage, needed: u64, reserve: u64) -> io::Result<()> {
    let free = storage.space()?.free;
    if free < reserve + needed {
        let lack = format!("{free} bytes are free; {needed} are needed and {reserve} must remain");
        return Err(io::Error::new(io::ErrorKind::StorageFull, lack));
    }
    Ok(())
}

/// Ids and aggregates that runs hold, those that several hold counted for each.
fn entries(runs: &[Arc<Run>]) -> (u64, u64) {
    let headers =
        runs.iter().map(|run| (run.header().ids.entries, run.header().aggregates.entries));
    headers.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
}

/// How many keys a run of them all needs filters for: ids, and aggregates.
pub fn filtered(runs: &[Arc<Run>]) -> (u64, u64) {
    let (ids, aggregates) = entries(runs);
    let ends = runs.iter().filter_map(|run| run.ids_from_to());
    let whole = ends.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let needs = whole.is_some_and(|(first, last)| are_spread(&first, &last));
    (if needs { ids } else { 0 }, aggregates)
}

/// The entry with the least key; of several with that key the first reader's. Each of them is shown
/// to `look`, with its run.
fn pop_least<const N: usize>(
    readers: &mut [TableReader<N>],
    mut look: impl FnMut(&Run, &Entry<N>),
) -> Result<Option<Entry<N>>, MergeError> {
    let heads = readers.iter().filter_map(TableReader::head);
    // `min_by_key` takes the first of equals.
    let Some(least) = heads.min_by_key(|entry| entry.key) else { return Ok(None) };
    for reader in readers.iter_mut() {
        let Some(head) = reader.head().filter(|head| head.key == least.key) else { continue };
        look(reader.run(), &head);
        let advanced = reader.advance();
        advanced.map_err(|error| MergeError::Unreadable(Arc::clone(reader.run()), error))?;
    }
    Ok(Some(least))
}
