//! Makes the runs of segments that no run covers, and merges them as it goes: each run keeps a file
//! open, and there may be thousands of segments.

use std::ops::Range;
use std::sync::Arc;

use quipu_types::Uuid;

use super::generation::Generation;
use super::merge::{Merge, MergeError, check_room, filtered};
use super::run::Run;
use super::run_writer::write_generation;
use super::sealed::FilterBits;
use super::tiers::to_merge;
use crate::format::run_file::Span;
use crate::host::tell;
use crate::options::LogOptions;
use crate::storage::Storage;

/// Runs of neighbouring segments, being made from the oldest on.
pub struct RunMaker {
    storage: Arc<dyn Storage>,
    log_id: Uuid,
    options: LogOptions,
    runs: Vec<Arc<Run>>,
}

impl RunMaker {
    /// None yet.
    #[must_use]
    pub fn new(storage: &Arc<dyn Storage>, log_id: Uuid, options: &LogOptions) -> Self {
        let (storage, options) = (Arc::clone(storage), options.clone());
        Self { storage, log_id, options, runs: Vec::new() }
    }

    /// Makes the run of the next segment; `others` is what filters of other runs take.
    ///
    /// # Errors
    /// That the disk refused: then there is no run of this segment, and the others stay.
    pub fn push(
        &mut self,
        generation: &Generation,
        span: Span,
        others: u64,
    ) -> std::io::Result<()> {
        let left = self.filter_bytes_left(others + self.filter_bytes());
        let bits = FilterBits::within(left, generation.filtered());
        let run = write_generation(&self.storage, self.log_id, generation, span, bits)?;
        self.runs.push(Arc::new(run));
        if let Err(error) = self.merge_all(others) {
            tell!(warn, %error, "runs cannot be merged now: they stay as they are");
        }
        Ok(())
    }

    fn merge_all(&mut self, others: u64) -> Result<(), MergeError> {
        let size = |run: &Arc<Run>| run.span().segments();
        let sizes = |runs: &[Arc<Run>]| runs.iter().map(size).collect::<Vec<_>>();
        while let Some(range) = to_merge(&sizes(&self.runs), self.options.index_fan_in) {
            self.merge(range, others)?;
        }
        Ok(())
    }

    fn merge(&mut self, range: Range<usize>, others: u64) -> Result<(), MergeError> {
        let runs = self.runs[range.clone()].to_vec();
        let bytes = runs.iter().map(|run| run.file_bytes()).sum();
        check_room(&*self.storage, bytes, self.options.reserve_bytes())?;
        let replaced: u64 = runs.iter().map(|run| run.memory().1).sum();
        let left = self.filter_bytes_left(others + self.filter_bytes() - replaced);
        let bits = FilterBits::within(left, filtered(&runs));
        let mut merge = Merge::begin(&self.storage, self.log_id, runs, bits)?;
        while !merge.step(usize::MAX)? {}
        let (merged, run) = merge.finish()?;
        self.runs.splice(range, [Arc::new(run)]);
        for run in &merged {
            self.remove(run);
        }
        Ok(())
    }

    fn filter_bytes_left(&self, taken: u64) -> u64 {
        self.options.filter_bytes().saturating_sub(taken)
    }

    /// Bytes that the filters of the runs made so far take.
    pub fn filter_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.memory().1).sum()
    }

    /// Those made since the last call, oldest first.
    pub fn take(&mut self) -> Vec<Arc<Run>> {
        std::mem::take(&mut self.runs)
    }

    /// Removes the files of what was made, and not taken.
    pub fn discard(self) {
        for run in &self.runs {
            self.remove(run);
        }
    }

    fn remove(&self, run: &Run) {
        let name = run.name();
        if let Err(error) = self.storage.remove(&name) {
            tell!(debug, name, %error, "the next start removes it");
        }
    }
}
