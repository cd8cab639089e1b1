//! Gathers the sorted runs of the index at start: those that are there and belong to this state of
//! the log, and new ones of the segments that none covers.

use std::io;
use std::sync::Arc;

use super::chain::Placed;
use crate::bug::{Bug, seeded};
use crate::format::run_file::{RunFault, Span};
use crate::host::tell;
use crate::index::generation::Generation;
use crate::index::keys::KeyHasher;
use crate::index::rebuild::RebuildError;
use crate::index::run::{Run, RunError};
use crate::index::run_maker::RunMaker;
use crate::index::sealed::{Part, SealedSet, Waiting};
use crate::index::sealed_index::SealedIndex;
use crate::options::LogOptions;
use crate::storage::{Storage, is_lack, run_name};

/// What is known of sealed segments, gathered from the oldest on.
pub struct Gathering {
    storage: Arc<dyn Storage>,
    log_id: quipu_types::Uuid,
    hasher: KeyHasher,
    filter_bytes: u64,
    maker: RunMaker,
    /// First and last segments of the run files there are.
    found: Vec<(u64, u64)>,
    set: SealedSet,
    /// Number of the last segment that is gathered.
    covered: u64,
    made: usize,
}

/// What was gathered.
pub struct Gathered {
    /// What is known of sealed segments.
    pub set: SealedSet,
    /// Runs that were made, because none was there.
    pub made: usize,
    /// Names of the files of runs that are of no use.
    pub useless: Vec<String>,
}

impl Gathering {
    /// Nothing yet, of these files of runs.
    #[must_use]
    pub fn new(
        storage: &Arc<dyn Storage>,
        log_id: quipu_types::Uuid,
        options: &LogOptions,
        found: Vec<(u64, u64)>,
    ) -> Self {
        Self {
            storage: Arc::clone(storage),
            log_id,
            hasher: KeyHasher::new(log_id),
            filter_bytes: options.filter_bytes(),
            maker: RunMaker::new(storage, log_id, options),
            found,
            set: SealedSet::default(),
            covered: 0,
            made: 0,
        }
    }

    /// Takes the next sealed segment, `segments[at]`. Its index is needed where no run covers it.
    ///
    /// # Errors
    /// That there is no index to be had.
    pub fn take(
        &mut self,
        segments: &[Placed],
        at: usize,
        index: &SealedIndex,
    ) -> Result<(), RebuildError> {
        let number = segments[at].header.number;
        if number <= self.covered {
            return Ok(());
        }
        self.covered = number;
        if let Some(run) = self.longest_run(segments, at)? {
            self.covered = run.span().last_segment;
            self.take_made();
            self.set.push(Part::Run(Arc::new(run)));
            return Ok(());
        }
        if seeded(Bug::ReplaysTooLate) && self.made == 0 && number > 1 {
            self.made += 1;
            return Ok(());
        }
        let (generation, span) = index.ask_for_all(|index| {
            Ok((Generation::of_index(index, self.hasher)?, Span::of_index(number, index)))
        })?;
        self.made += 1;
        self.make(generation, span);
        Ok(())
    }

    /// The valid run from this segment on that covers the most.
    ///
    /// # Errors
    /// That it cannot be told now whether one is valid.
    fn longest_run(&self, segments: &[Placed], at: usize) -> io::Result<Option<Run>> {
        let first = segments[at].header.number;
        let mut found: Vec<(u64, u64)> =
            self.found.iter().filter(|found| found.0 == first).copied().collect();
        found.sort_unstable();
        for found in found.into_iter().rev() {
            match self.open_run(found, segments, at) {
                Ok(run) => return Ok(Some(run)),
                Err(RunError::Io(error)) if is_lack(&error) => return Err(error),
                Err(error) => {
                    tell!(info, run = run_name(found.0, found.1), %error, "a run is of no use");
                }
            }
        }
        Ok(None)
    }

    fn open_run(&self, found: (u64, u64), segments: &[Placed], at: usize) -> Result<Run, RunError> {
        let taken = self.set.filter_bytes(&[]) + self.maker.filter_bytes();
        let filter_bytes = self.filter_bytes.saturating_sub(taken);
        let run = Run::open(&*self.storage, found, self.log_id, filter_bytes)?;
        let last = usize::try_from(found.1 - found.0).ok().and_then(|more| segments.get(at + more));
        let seal = last.and_then(|last| last.seal.as_ref());
        let is_ours = seal.is_some_and(|seal| {
            let span = Span::of_segment(found.0, segments[at].header.first_position, seal);
            *run.span() == Span { last_segment: found.1, ..span }
        });
        if is_ours || seeded(Bug::TakesAForeignRun) {
            Ok(run)
        } else {
            Err(RunFault::OtherLog.into())
        }
    }

    /// Makes a run of a segment; where it cannot be written, what it would hold is kept.
    fn make(&mut self, generation: Generation, span: Span) {
        if let Err(error) = self.maker.push(&generation, span, self.set.filter_bytes(&[])) {
            let segment = span.first_segment;
            tell!(warn, segment, %error, "cannot write a run: it stays in memory");
            self.take_made();
            self.set.push(Part::Waiting(Arc::new(Waiting { span, generation })));
        }
    }

    fn take_made(&mut self) {
        for run in self.maker.take() {
            self.set.push(Part::Run(run));
        }
    }

    /// Everything gathered.
    #[must_use]
    pub fn finish(mut self) -> Gathered {
        self.take_made();
        let used: Vec<(u64, u64)> = self
            .set
            .runs()
            .map(|run| (run.span().first_segment, run.span().last_segment))
            .collect();
        let useless = self.found.iter().filter(|found| !used.contains(found));
        let useless = useless.map(|found| run_name(found.0, found.1)).collect();
        Gathered { set: self.set, made: self.made, useless }
    }
}
