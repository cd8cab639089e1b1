//! Makes what is derived, off the commit path: the index of each segment while it is written, from
//! the appends in memory (reading a sealed segment back would take a quarter of the disk), then the
//! run of what it holds, and fewer runs of many.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use quipu_types::Position;

use super::facts::Facts;
use super::generation::Generation;
use super::known::report_damage;
use super::merge::{self, Merge, MergeError};
use super::rebuild::{self, RebuildError};
use super::run::Run;
use super::run_maker::RunMaker;
use super::run_writer::write_generation;
use super::sealed::{FilterBits, Part, Waiting};
use super::sealed_index::SealedIndex;
use super::tiers::{merged_for_a_record, to_merge};
use crate::commit::placed::Placed;
use crate::format::group::{GROUP_HEADER_BYTES, GroupHeader};
use crate::format::run_file::Span;
use crate::host::tell;
use crate::segment::Segment;
use crate::shared::Shared;
use crate::storage::is_lack;

/// Records that may wait to be indexed, each about 100 bytes. Beyond it they are left out, and
/// their segment is read back when it is sealed.
const BACKLOG_RECORDS_MAX: usize = 500_000;

/// Groups for which the indexer is woken: nobody waits for it before a segment is sealed, and a
/// wake-up for each of them would cost those who wait for the group.
const WOKEN_FOR_GROUPS: usize = 64;

/// Entries that are merged together: each change between indexing and merging costs caches.
const MERGED_AT_ONCE: usize = 4_096;

/// Merges under way at once: one of each size that runs may have. Each has files open, and buffers.
const MERGES_MAX: usize = 8;

/// Something to index.
pub enum IndexWork {
    /// A group of records has become durable, and visible in its live segment.
    Group(Arc<Segment>, GroupHeader, Vec<Placed>),
    /// A segment has been sealed.
    Sealed(Arc<Segment>, GroupHeader),
    /// Segments may wait for their runs, and runs to be merged or, being damaged, made again.
    Tidy,
}

/// What the queue has for the indexer.
pub enum Next {
    /// This.
    Work(IndexWork),
    /// Nothing, for so long.
    Nothing,
    /// Nothing any more.
    Closed,
}

/// What waits for the indexer, in the order the sequencer published it.
#[derive(Default)]
pub struct IndexQueue {
    state: Mutex<Backlog>,
    arrived: Condvar,
}

#[derive(Default)]
struct Backlog {
    work: VecDeque<IndexWork>,
    records: usize,
    closed: bool,
}

impl IndexQueue {
    /// Adds work; a group is left out if too many wait.
    pub fn push(&self, work: IndexWork) {
        let mut state = self.state.lock();
        let records = work.records();
        if records > 0 && state.records + records > BACKLOG_RECORDS_MAX {
            return;
        }
        state.records += records;
        state.work.push_back(work);
        let is_due = records == 0 || state.work.len() >= WOKEN_FOR_GROUPS;
        drop(state);
        if is_due {
            self.arrived.notify_one();
        }
    }

    /// Takes the oldest work, if there is any.
    pub fn try_pop(&self) -> Option<IndexWork> {
        self.state.lock().pop()
    }

    /// Takes the oldest work; waits for it so long, or for ever.
    pub fn next(&self, patience: Option<Duration>) -> Next {
        let mut state = self.state.lock();
        let mut is_over = false;
        loop {
            match (state.pop(), patience) {
                (Some(work), _) => return Next::Work(work),
                (None, _) if state.closed => return Next::Closed,
                (None, _) if is_over => return Next::Nothing,
                (None, Some(time)) => {
                    is_over = self.arrived.wait_for(&mut state, time).timed_out();
                }
                (None, None) => self.arrived.wait(&mut state),
            }
        }
    }

    /// No more work will come.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

impl Backlog {
    fn pop(&mut self) -> Option<IndexWork> {
        let work = self.work.pop_front()?;
        self.records -= work.records();
        Some(work)
    }
}

impl IndexWork {
    fn records(&self) -> usize {
        match self {
            Self::Group(_, header, _) => header.records as usize,
            Self::Sealed(..) | Self::Tidy => 0,
        }
    }
}

/// Indexes what it is given, in order.
pub struct Indexer {
    log: Arc<Shared>,
    under_way: Option<UnderWay>,
    /// Sealed, and not indexed yet for want of files or memory.
    unindexed: Vec<(Arc<Segment>, GroupHeader)>,
    /// Merges under way, of disjoint runs. The smallest goes first, or small runs would pile up
    /// behind a large one, and each of them is asked for every new key.
    merges: Vec<Merge>,
    /// Entries that are to be merged for the records that came meanwhile.
    due: usize,
    /// In a run by now: kept until nobody else does, so that the sequencer never frees so much.
    done: Vec<Arc<Waiting>>,
}

/// The facts of the segment that is being written; every record so far is in them.
struct UnderWay {
    segment: u64,
    facts: Facts,
    next_position: Position,
}

impl Indexer {
    /// An indexer that has seen nothing.
    #[must_use]
    pub fn new(log: Arc<Shared>) -> Self {
        let (unindexed, merges, done) = (Vec::new(), Vec::new(), Vec::new());
        Self { log, under_way: None, unindexed, merges, due: 0, done }
    }

    /// Does one piece of work, and merges as much as is due for it.
    pub fn take(&mut self, work: IndexWork) {
        self.done.retain(|waiting| Arc::strong_count(waiting) > 1);
        let records = work.records();
        match work {
            IndexWork::Group(segment, header, appends) => self.group(&segment, &header, &appends),
            IndexWork::Sealed(segment, seal) => {
                let again = std::mem::take(&mut self.unindexed);
                self.sealed(segment, seal);
                for (segment, seal) in again {
                    self.sealed(segment, seal);
                }
                self.tidy();
            }
            IndexWork::Tidy => self.tidy(),
        }
        self.merge_at_the_pace_of(records);
    }

    /// Merges keep up with appends, and take no more from them than that: at full speed a large one
    /// would take a processor for many seconds.
    fn merge_at_the_pace_of(&mut self, records: usize) {
        let newest = self.merges.iter().map(|merge| merge.span().last_segment).max();
        let Some(segments) = newest else { return };
        self.due += records * merged_for_a_record(segments, self.log.options.index_fan_in);
        if self.due >= MERGED_AT_ONCE {
            let due = std::mem::take(&mut self.due);
            self.merge_some(due);
        }
    }

    fn group(&mut self, segment: &Segment, header: &GroupHeader, appends: &[Placed]) {
        let number = segment.header().number;
        let first_position = segment.header().first_position;
        if header.first_position == first_position {
            let (facts, next_position) = (Facts::new(first_position), first_position);
            self.under_way = Some(UnderWay { segment: number, facts, next_position });
        }
        // A gap: after a start in the middle of a segment, or when groups were left out.
        let continues =
            |it: &UnderWay| it.segment == number && it.next_position == header.first_position;
        let Some(mut under_way) = self.under_way.take().filter(continues) else { return };
        let mut frame_at = header.offset + GROUP_HEADER_BYTES as u64;
        for placed in appends {
            placed.tell(&mut under_way.facts, frame_at);
            frame_at += placed.frame_bytes();
        }
        under_way.next_position = header.next_position();
        self.under_way = Some(under_way);
    }

    /// Serves a sealed segment from its index from now on. A failure is reported and changes
    /// nothing: the segment goes on being served as before. For want of files or memory it is tried
    /// again with the next segment that is sealed, else at the next start.
    fn sealed(&mut self, segment: Arc<Segment>, seal: GroupHeader) {
        let header = segment.header();
        let is_whole =
            |it: &UnderWay| it.segment == header.number && it.next_position == seal.first_position;
        let whole = self.under_way.take().filter(is_whole);
        let built = whole.and_then(|UnderWay { facts, .. }| {
            segment.with_live_index(|live| facts.index_file(live, header.segment_id, seal.sum))
        });
        let index = match built {
            Some(built) => built.map_err(|fault| rebuild::unindexable(header, fault).into()),
            None => rebuild::build(&*self.log.env.storage, self.log.hasher, header),
        };
        match index {
            Ok(index) => {
                let storage = &self.log.env.storage;
                let made = SealedIndex::made(storage, header.clone(), seal, index);
                segment.become_sealed(made);
            }
            Err(error) => {
                tell!(error, segment = header.number, %error, "cannot index a sealed segment");
                if matches!(&error, RebuildError::Io(error) if is_lack(error)) {
                    self.unindexed.push((segment, seal));
                }
            }
        }
    }

    /// Writes the runs of segments that have none, makes damaged ones again, and begins to merge
    /// where there are many. What fails is tried again when the next segment is sealed.
    fn tidy(&mut self) {
        self.write_waiting();
        self.make_damaged_again();
        self.plan_merges();
    }

    fn write_waiting(&mut self) {
        for waiting in self.log.sealed.snapshot().waiting() {
            let (generation, span) = (&waiting.generation, waiting.span);
            match self.write(generation, span) {
                Ok(run) => {
                    self.done.push(Arc::clone(waiting));
                    self.log.sealed.replace(vec![Arc::new(run)]);
                }
                Err(error) => {
                    let segment = span.first_segment;
                    tell!(warn, segment, %error, "cannot write a run: it stays in memory");
                    return;
                }
            }
        }
    }

    fn write(&self, generation: &Generation, span: Span) -> io::Result<Run> {
        let Shared { env, log_id, options, .. } = &*self.log;
        let taken = self.log.sealed.snapshot().filter_bytes(&[]);
        let left = options.filter_bytes().saturating_sub(taken);
        let bits = FilterBits::within(left, generation.filtered());
        write_generation(&env.storage, *log_id, generation, span, bits)
    }

    fn plan_merges(&mut self) {
        while self.merges.len() < MERGES_MAX
            && let Some(runs) = self.next_to_merge()
        {
            let Shared { env, log_id, options, .. } = &*self.log;
            let to_come: u64 = self.merges.iter().map(Merge::filter_bytes).sum();
            let taken = self.log.sealed.snapshot().filter_bytes(&runs) + to_come;
            let left = options.filter_bytes().saturating_sub(taken);
            let bits = FilterBits::within(left, merge::filtered(&runs));
            if let Err(error) = self.check_room(&runs) {
                return self.merge_failed(&error.into());
            }
            match Merge::begin(&env.storage, *log_id, runs, bits) {
                Ok(merge) => self.merges.push(merge),
                Err(error) => return self.merge_failed(&error),
            }
        }
    }

    fn check_room(&self, runs: &[Arc<Run>]) -> io::Result<()> {
        let begun: u64 = self.merges.iter().map(Merge::bytes_at_most).sum();
        let needed = begun + runs.iter().map(|run| run.file_bytes()).sum::<u64>();
        merge::check_room(&*self.log.env.storage, needed, self.log.options.reserve_bytes())
    }

    fn next_to_merge(&self) -> Option<Vec<Arc<Run>>> {
        let set = self.log.sealed.snapshot();
        let is_merged =
            |run: &Run| self.merges.iter().any(|it| it.span().covers(run.span().first_segment));
        let size = |part: &Part| match part {
            Part::Run(run) if !run.is_damaged() && !is_merged(run) => run.span().segments(),
            Part::Run(_) | Part::Waiting(_) => 0,
        };
        let sizes: Vec<u64> = set.parts().iter().map(size).collect();
        let range = to_merge(&sizes, self.log.options.index_fan_in)?;
        let run = |part: &Part| match part {
            Part::Run(run) => Some(Arc::clone(run)),
            Part::Waiting(_) => None,
        };
        set.parts()[range].iter().map(run).collect()
    }

    /// Whether runs are being merged: [`Self::merge_some`] has something to do.
    pub fn is_merging(&self) -> bool {
        !self.merges.is_empty()
    }

    /// Merges so many entries more; the last of a merge swaps its runs.
    pub fn merge_some(&mut self, entries: usize) {
        let size = |at: &usize| self.merges[*at].span().segments();
        let Some(smallest) = (0..self.merges.len()).min_by_key(size) else { return };
        match self.merges[smallest].step(entries) {
            Ok(false) => {}
            Ok(true) => self.end_merge(smallest),
            Err(error) => {
                self.merges.remove(smallest);
                self.merge_failed(&error);
            }
        }
    }

    fn end_merge(&mut self, at: usize) {
        match self.merges.remove(at).finish() {
            Ok((runs, run)) => {
                self.log.sealed.replace(vec![Arc::new(run)]);
                for run in &runs {
                    self.remove_file(&run.name());
                }
                self.plan_merges();
            }
            Err(error) => self.merge_failed(&error),
        }
    }

    fn merge_failed(&self, error: &MergeError) {
        tell!(warn, %error, "runs cannot be merged now: they stay as they are");
        if let MergeError::Unreadable(run, error) = error {
            report_damage(&self.log, run, error);
        }
    }

    /// Of the runs that there are now: one may have been merged away since it was found damaged.
    fn make_damaged_again(&mut self) {
        for run in self.log.sealed.snapshot().runs() {
            let Some(damage) = run.damage() else { continue };
            let name = run.name();
            tell!(error, run = name, damage, "a damaged run is made again");
            if let Err(error) = self.make_again(run) {
                tell!(error, run = name, %error, "a damaged run cannot be made again now");
            }
        }
    }

    /// Replaces a damaged run by what its segments hold.
    fn make_again(&mut self, damaged: &Arc<Run>) -> Result<(), RebuildError> {
        self.merges.retain(|merge| !merge.span().covers(damaged.span().first_segment));
        let Shared { env, log_id, options, .. } = &*self.log;
        merge::check_room(&*env.storage, damaged.file_bytes(), options.reserve_bytes())?;
        let mut maker = RunMaker::new(&env.storage, *log_id, options);
        if let Err(error) = self.make_runs(damaged, &mut maker) {
            maker.discard();
            return Err(error);
        }
        let runs = maker.take();
        let is_in_its_place = runs.iter().any(|run| run.name() == damaged.name());
        self.log.sealed.replace(runs);
        if !is_in_its_place {
            self.remove_file(&damaged.name());
        }
        Ok(())
    }

    fn make_runs(&self, damaged: &Arc<Run>, maker: &mut RunMaker) -> Result<(), RebuildError> {
        let others = self.log.sealed.snapshot().filter_bytes(std::slice::from_ref(damaged));
        for segment in self.log.segments.snapshot().iter() {
            let number = segment.header().number;
            if damaged.span().covers(number) {
                let (generation, span) = rebuild::ask_index(&self.log, segment, |index| {
                    let generation = Generation::of_index(index, self.log.hasher)?;
                    Ok((generation, Span::of_index(number, index)))
                })?;
                maker.push(&generation, span, others)?;
            }
        }
        Ok(())
    }

    /// A file that stays is not taken at the next start, and removed there.
    fn remove_file(&self, name: &str) {
        if let Err(error) = self.log.env.storage.remove(name) {
            tell!(debug, name, %error, "the next start removes it");
        }
    }
}
