//! Builds the index of each segment while it is written, from the appends in memory, off the commit
//! path: reading a sealed segment back would take a quarter of the disk.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use quipu_types::Position;

use super::facts::Facts;
use super::rebuild;
use crate::commit::placed::Placed;
use crate::format::group::GroupHeader;
use crate::format::index_file::IndexFile;
use crate::segment::Segment;
use crate::shared::Shared;

/// Records that may wait to be indexed, each about 100 bytes. Beyond it they are left out, and
/// their segment is read back when it is sealed.
const BACKLOG_RECORDS_MAX: usize = 500_000;

/// Something to index.
pub enum IndexWork {
    /// A group of records has become durable, and visible in its live segment.
    Group(Arc<Segment>, GroupHeader, Vec<Placed>),
    /// A segment has been sealed.
    Sealed(Arc<Segment>, GroupHeader),
}

/// What waits for the indexer, in the order the sequencer published it.
#[derive(Default)]
pub struct IndexQueue {
    state: Mutex<Waiting>,
    arrived: Condvar,
}

#[derive(Default)]
struct Waiting {
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
        drop(state);
        self.arrived.notify_one();
    }

    /// Takes the oldest work, if there is any.
    pub fn try_pop(&self) -> Option<IndexWork> {
        self.state.lock().pop()
    }

    /// Waits for work and takes it; `None` once the queue is closed and empty.
    pub fn pop(&self) -> Option<IndexWork> {
        let mut state = self.state.lock();
        loop {
            match state.pop() {
                Some(work) => return Some(work),
                None if state.closed => return None,
                None => self.arrived.wait(&mut state),
            }
        }
    }

    /// No more work will come.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

impl Waiting {
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
            Self::Sealed(..) => 0,
        }
    }
}

/// Indexes what it is given, in order.
pub struct Indexer {
    log: Arc<Shared>,
    under_way: Option<UnderWay>,
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
        Self { log, under_way: None }
    }

    /// Does one piece of work.
    pub fn take(&mut self, work: IndexWork) {
        match work {
            IndexWork::Group(segment, header, appends) => self.group(&segment, &header, &appends),
            IndexWork::Sealed(segment, seal) => self.sealed(&segment, &seal),
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
        for placed in appends {
            placed.tell(&mut under_way.facts);
        }
        under_way.next_position = header.next_position();
        self.under_way = Some(under_way);
    }

    /// Serves a sealed segment from its index from now on. A failure is reported and changes
    /// nothing: the segment goes on being served as before, and the next start tries again.
    fn sealed(&mut self, segment: &Segment, seal: &GroupHeader) {
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
            Ok(index) => self.serve(segment, index),
            Err(error) => {
                tracing::error!(segment = header.number, %error, "cannot index a sealed segment");
            }
        }
    }

    fn serve(&self, segment: &Segment, index: IndexFile) {
        rebuild::save(&*self.log.env.storage, segment.header().number, &index);
        segment.become_sealed(index);
    }
}
