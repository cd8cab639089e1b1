//! Several neighbouring runs made into one, in small steps: a segment that is sealed meanwhile does
//! not wait for the end of it.

use std::sync::Arc;

use quipu_types::Uuid;

use super::run::{Run, RunError};
use super::run_writer::{RunPlan, RunWriter};
use super::table_reader::TableReader;
use crate::bug::{Bug, seeded};
use crate::format::run_file::{Entry, Span};
use crate::storage::Storage;

/// A merge under way.
pub struct Merge {
    runs: Vec<Arc<Run>>,
    /// Newest first: of several entries of a key, the first is the newest.
    ids: Vec<TableReader<1>>,
    aggregates: Vec<TableReader<2>>,
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
    Io(#[from] std::io::Error),
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
        filter_bits: u64,
    ) -> Result<Self, MergeError> {
        let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput).into());
        };
        let (first, last) = (first.span(), last.span());
        let span = Span {
            first_segment: first.first_segment,
            first_position: first.first_position,
            ..*last
        };
        let sum = |of: fn(&Run) -> u64| runs.iter().map(|run| of(run)).sum::<u64>();
        let entries =
            (sum(|run| run.header().ids.entries), sum(|run| run.header().aggregates.entries));
        let plan = RunPlan { span, born: sum(|run| run.header().born), entries, filter_bits };
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
            if let Some(entry) = pop_least(&mut self.ids)? {
                self.writer.push_id(entry)?;
            } else if let Some(entry) = pop_least(&mut self.aggregates)? {
                self.writer.push_aggregate(entry)?;
            } else {
                return Ok(true);
            }
            self.written += 1;
            if seeded(Bug::SwapsInHalfARun) && self.written * 2 >= self.entries() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn entries(&self) -> u64 {
        let headers = self.runs.iter().map(|run| run.header());
        headers.map(|header| header.ids.entries + header.aggregates.entries).sum()
    }

    /// What is merged, oldest first.
    pub fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    /// The runs that were merged, and the one in their place, durable.
    ///
    /// # Errors
    /// That the disk refused.
    pub fn finish(self) -> Result<(Vec<Arc<Run>>, Run), MergeError> {
        Ok((self.runs, self.writer.finish()?))
    }
}

/// The entry with the least key; of several with that key the first reader's, and no other's.
fn pop_least<const N: usize>(
    readers: &mut [TableReader<N>],
) -> Result<Option<Entry<N>>, MergeError> {
    let heads = readers.iter().filter_map(TableReader::head);
    // `min_by_key` takes the first of equals.
    let Some(least) = heads.min_by_key(|entry| entry.key) else { return Ok(None) };
    for reader in readers.iter_mut() {
        if reader.head().is_some_and(|head| head.key == least.key) {
            let advanced = reader.advance();
            advanced.map_err(|error| MergeError::Unreadable(Arc::clone(reader.run()), error))?;
        }
    }
    Ok(Some(least))
}
