//! Builds the index of each segment while it is written, from the groups in memory, off the commit
//! path: reading a sealed segment back would take a quarter of the disk.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use quipu_types::Position;

use super::builder::IndexBuilder;
use super::rebuild;
use crate::format::group::{Group, GroupFault, GroupHeader};
use crate::format::index_file::IndexFile;
use crate::segment::Segment;
use crate::shared::Shared;

/// Groups that may wait to be indexed. Beyond it they are left out, and their segment is read back
/// when it is sealed.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// Something to index.
pub enum IndexWork {
    /// A group of records has become durable.
    Group(Arc<Segment>, GroupHeader, Bytes),
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
    group_bytes: usize,
    closed: bool,
}

impl IndexQueue {
    /// Adds work; a group is left out if too many wait.
    pub fn push(&self, work: IndexWork) {
        let mut state = self.state.lock();
        let bytes = work.group_bytes();
        if bytes > 0 && state.group_bytes + bytes > BACKLOG_BYTES_MAX {
            return;
        }
        state.group_bytes += bytes;
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
        self.group_bytes -= work.group_bytes();
        Some(work)
    }
}

impl IndexWork {
    fn group_bytes(&self) -> usize {
        match self {
            Self::Group(_, _, bytes) => bytes.len(),
            Self::Sealed(..) => 0,
        }
    }
}

/// Indexes what it is given, in order.
pub struct Indexer {
    log: Arc<Shared>,
    under_way: Option<UnderWay>,
}

/// The index of the segment that is being written; every record so far is in it.
struct UnderWay {
    segment: u64,
    builder: IndexBuilder,
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
            IndexWork::Group(segment, header, bytes) => self.group(&segment, &header, &bytes),
            IndexWork::Sealed(segment, seal) => self.sealed(&segment, &seal),
        }
    }

    fn group(&mut self, segment: &Segment, header: &GroupHeader, bytes: &Bytes) {
        let number = segment.header().number;
        let first_position = segment.header().first_position;
        if header.first_position == first_position {
            let builder = IndexBuilder::new(self.log.hasher, first_position);
            let next_position = first_position;
            self.under_way = Some(UnderWay { segment: number, builder, next_position });
        }
        // A gap: after a start in the middle of a segment, or when groups were left out.
        let continues =
            |it: &UnderWay| it.segment == number && it.next_position == header.first_position;
        let Some(mut under_way) = self.under_way.take().filter(continues) else { return };
        match under_way.push(segment, header, bytes) {
            Ok(()) => self.under_way = Some(under_way),
            Err(fault) => tracing::error!(segment = number, %fault, "a group in memory is damaged"),
        }
    }

    /// Serves a sealed segment from its index from now on. A failure is reported and changes
    /// nothing: the segment goes on being served as before, and the next start tries again.
    fn sealed(&mut self, segment: &Segment, seal: &GroupHeader) {
        let header = segment.header();
        let is_whole =
            |it: &UnderWay| it.segment == header.number && it.next_position == seal.first_position;
        let index = match self.under_way.take().filter(is_whole) {
            Some(whole) => (whole.builder.finish(header.segment_id, seal.sum))
                .map_err(|fault| rebuild::unindexable(header, fault).into()),
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

impl UnderWay {
    fn push(
        &mut self,
        segment: &Segment,
        header: &GroupHeader,
        bytes: &Bytes,
    ) -> Result<(), GroupFault> {
        let of = segment.header();
        let group = Group::check(bytes, of.segment_id, header.offset, of.segment_bytes)?;
        self.builder.push_group(header);
        for record in group.records() {
            self.builder.push_record(&record?);
        }
        self.next_position = header.next_position();
        Ok(())
    }
}
