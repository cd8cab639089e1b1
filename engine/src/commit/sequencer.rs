//! The single sequencer: gives every append its place, forms groups, and turns durable groups
//! into visible records and answers.
//!
//! It is one synchronous state machine. [`Sequencer::step`] never blocks and never touches the
//! disk: it takes what has arrived and says what to write. Threads, a simulator, or one day a
//! replicated log drive it alike.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quipu_types::{AppendError, Position, Timestamp};

use super::head::{Head, Room};
use super::inbox::Submission;
use super::outcome::Answer;
use super::placed::Placed;
use super::pool::BlockPool;
use super::preparer::{PrepareJob, Spare};
use crate::bug::{Bug, seeded};
use crate::format::block_ceil;
use crate::format::group::{GROUP_HEADER_BYTES, GroupBuilder, GroupHeader, GroupKind};
use crate::host::tell;
use crate::index::generation::Generation;
use crate::index::indexer::IndexWork;
use crate::index::known::Known;
use crate::segment::Segment;
use crate::shared::{LogState, Shared};
use crate::storage::{Completion, GroupWrite};

mod admit;
mod defects;
mod roll;
mod space;

/// Where the sequencer begins: what recovery found.
pub struct Start {
    /// The write head.
    pub head: Head,
    /// The next segment's file, if it is there already.
    pub spare: Option<Spare>,
    /// Ids and versions that the active segment holds.
    pub active: Generation,
    /// Position of the next record.
    pub next_position: Position,
    /// `recorded_at` of the last record.
    pub last_recorded_at: Timestamp,
    /// This opening's epoch.
    pub epoch: u64,
}

/// The sequencer.
///
/// Invariants:
/// 1. Positions and versions are given in the order appends leave the inbox, and so are places in
///    the segment; `known` holds everything that was given, durable or not.
/// 2. A group is retired (published, answered) only when it and all before it are durable.
/// 3. An answer that depends on what is not yet durable is kept with the newest group in flight.
/// 4. After a failed write nothing is submitted, published or acknowledged any more.
/// 5. SEAL is submitted only with no group in flight and the next segment's file ready; the next
///    header only when SEAL is durable; groups there only when that header is.
pub struct Sequencer {
    log: Arc<Shared>,
    pool: Arc<BlockPool>,
    head: Head,
    spare: Option<Spare>,
    roll: roll::Roll,
    known: Known,
    next_position: Position,
    last_recorded_at: Timestamp,
    epoch: u64,
    in_flight: VecDeque<InFlight>,
    next_ticket: u64,
    preparing: bool,
    no_space: Option<(String, Duration)>,
    /// Groups of appends were written that no later group has covered yet.
    unwitnessed: bool,
    idle_since: Duration,
    failed: Option<String>,
    closing: Closing,
    messages: Vec<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    Asked,
    Marked,
    Done,
}

struct InFlight {
    ticket: u64,
    begun: Duration,
    durable: bool,
    written: Written,
    answers: Vec<Answer>,
}

enum Written {
    Group { header: GroupHeader, bytes: Bytes, appends: Vec<Placed> },
    SegmentHeader(Arc<Segment>, Spare),
}

/// For the host's log, which may come back into this one: told under no lock.
pub enum Message {
    /// The log has failed.
    Failed(String),
    /// There is no space.
    NoSpace(String),
}

impl Message {
    /// Tells it.
    pub fn tell(&self) {
        match self {
            Self::Failed(reason) => {
                tell!(error, reason, "the log has failed; it is read-only until opened again");
            }
            Self::NoSpace(reason) => {
                tell!(warn, reason, "no space: appends are refused until there is");
            }
        }
    }
}

/// What one step asks its driver to do, in this order.
#[derive(Default)]
pub struct Step {
    /// The watermark has advanced: wake those who wait for it.
    pub has_advanced: bool,
    /// Send these answers.
    pub answers: Vec<Answer>,
    /// Tell these.
    pub messages: Vec<Message>,
    /// Hand this to a background thread.
    pub prepare: Option<PrepareJob>,
    /// Submit this.
    pub write: Option<GroupWrite>,
    /// Another step may have something to submit right now.
    pub more: bool,
    /// Step again after this time even if nothing arrives.
    pub timeout: Option<Duration>,
    /// What had arrived when this step began.
    pub arrivals: u64,
    /// There will be nothing to do any more.
    pub closed: bool,
}

impl Sequencer {
    /// A sequencer that goes on where recovery ended.
    #[must_use]
    pub fn new(log: Arc<Shared>, start: Start) -> Self {
        let idle_since = log.env.clock.monotonic();
        let pool = Arc::default();
        let known = Known::new(start.active, &log);
        Self {
            log,
            pool,
            head: start.head,
            spare: start.spare,
            roll: roll::Roll::No,
            known,
            next_position: start.next_position,
            last_recorded_at: start.last_recorded_at,
            epoch: start.epoch,
            in_flight: VecDeque::new(),
            next_ticket: 0,
            preparing: false,
            no_space: None,
            unwitnessed: false,
            idle_since,
            failed: None,
            closing: Closing::No,
            messages: Vec::new(),
        }
    }

    /// Takes what has arrived and says what to do next.
    pub fn step(&mut self) -> Step {
        let finished = self.log.inbox.take_finished();
        let durable = self.log.watermark.current();
        let mut step = Step { arrivals: finished.arrivals, ..Step::default() };
        if finished.closing && self.closing == Closing::No {
            self.closing = Closing::Asked;
        }
        for (ticket, result) in finished.written {
            self.take_written(ticket, result);
        }
        if let Some(prepared) = finished.prepared {
            self.take_prepared(prepared);
        }
        self.retire(&mut step);
        if self.failed.is_none() {
            step.write = self.next_write(&mut step);
            step.more = step.write.is_some() && !self.log.inbox.is_empty();
            step.prepare = self.next_prepare();
        }
        if let Some(reason) = self.failed.clone() {
            for write in self.in_flight.drain(..) {
                let failed = write.answers.into_iter().map(|it| it.failed(&reason, true));
                step.answers.extend(failed);
            }
            self.refuse_all(&mut step, &AppendError::NotWritten(reason));
        }
        step.has_advanced = self.log.watermark.current() > durable;
        self.finish_closing();
        step.closed = self.closing == Closing::Done;
        step.timeout = self.timeout();
        step.messages = std::mem::take(&mut self.messages);
        step
    }

    /// Bytes of what is known of the active segment.
    pub fn index_bytes(&self) -> u64 {
        self.known.active_bytes()
    }

    /// Aggregates and ids known.
    pub fn known(&self) -> (u64, u64) {
        self.known.known()
    }

    fn take_written(&mut self, ticket: u64, result: io::Result<()>) {
        match result {
            Ok(()) => {
                if let Some(write) = self.in_flight.iter_mut().find(|it| it.ticket == ticket) {
                    write.durable = true;
                    let now = self.log.env.clock.monotonic();
                    self.log.counters.flush(now.saturating_sub(write.begun));
                }
            }
            Err(_) if seeded(Bug::GoesOnAfterAFailure) => {
                self.in_flight.retain(|it| it.ticket != ticket);
            }
            Err(error) => self.fail(&format!(
                "writing segment {} failed: {error}",
                self.head.segment().header().number
            )),
        }
    }

    /// Publishes and answers what is durable, in order (invariant 2).
    fn retire(&mut self, step: &mut Step) {
        if self.break_retiring(step) {
            return;
        }
        while self.failed.is_none() && self.in_flight.front().is_some_and(|it| it.durable) {
            let Some(write) = self.in_flight.pop_front() else { return };
            match write.written {
                Written::Group { header, bytes, appends } => {
                    self.publish(&header, bytes, appends);
                }
                Written::SegmentHeader(segment, spare) => self.activated(segment, &spare),
            }
            step.answers.extend(write.answers);
        }
    }

    fn publish(&mut self, header: &GroupHeader, bytes: Bytes, appends: Vec<Placed>) {
        self.head.durable(header);
        match header.kind {
            GroupKind::Data => {
                let segment = Arc::clone(self.head.segment());
                segment.publish(header, bytes, |index| {
                    for placed in &appends {
                        placed.index(index);
                    }
                });
                // Readers who see the watermark find the records (its invariant 2).
                let ahead = u64::from(seeded(Bug::WatermarkAheadByOne));
                self.log.watermark.advance(Position(header.next_position().previous().0 + ahead));
                self.break_publishing(&appends);
                let (count, events) = (appends.len() as u64, u64::from(header.records));
                self.log.counters.group(count, events, u64::from(header.group_bytes));
                self.log.index_queue.push(IndexWork::Group(segment, *header, appends));
            }
            GroupKind::Seal => self.sealed(header),
            GroupKind::Clean => self.closing = Closing::Done,
            GroupKind::Start | GroupKind::Witness => {}
        }
    }

    fn next_write(&mut self, step: &mut Step) -> Option<GroupWrite> {
        if self.roll.is_no() {
            if self.in_flight.len() >= self.log.options.groups_in_flight {
                return None;
            }
            // Either may find that the segment is full, and so begin a roll.
            let mut write = self.next_group(step);
            if write.is_none() && self.roll.is_no() {
                write = self.next_mark();
            }
            if write.is_some() || self.roll.is_no() {
                return write;
            }
        }
        self.next_roll_write(step)
    }

    /// The next group of appends, if any waits and there is room.
    fn next_group(&mut self, step: &mut Step) -> Option<GroupWrite> {
        let first_bytes = self.log.inbox.next_bytes()?;
        self.known.refresh(&self.log);
        let mut builder = self.builder(first_bytes);
        let now = self.log.env.clock.now();
        let mut placed = Vec::new();
        let mut answers = Vec::new();
        while self.failed.is_none()
            && let Some(submission) = self.next_submission(&builder, step)
        {
            self.admit(submission, now, &mut builder, &mut placed, &mut answers);
        }
        if let Some(reason) = &self.failed {
            step.answers.extend(answers.into_iter().map(|answer| answer.failed(reason, false)));
            return None;
        }
        if builder.is_empty() {
            // Invariant 3: these answers rest on what the newest group in flight will make true.
            match self.in_flight.back_mut() {
                Some(newest) if !seeded(Bug::AnswersConflictsEarly) => {
                    newest.answers.extend(answers);
                }
                _ => step.answers.extend(answers),
            }
            return None;
        }
        self.unwitnessed = true;
        Some(self.submit(builder, GroupKind::Data, placed, answers))
    }

    /// An empty group with room for what waits. Not for more: groups stay in memory for readers.
    fn builder(&self, first_bytes: usize) -> GroupBuilder {
        let (queued_bytes, _) = self.log.inbox.depth();
        // A group closes at `group_bytes` with its header: one byte more would double the buffer.
        let queued = (queued_bytes + GROUP_HEADER_BYTES).min(self.log.options.group_bytes);
        let buffer = self.pool.take(block_ceil(queued.max(first_bytes + GROUP_HEADER_BYTES)));
        GroupBuilder::new(self.head.place(self.epoch, self.next_position), buffer)
    }

    /// Takes the oldest append if the group may still take it and there is room for it.
    fn next_submission(&mut self, builder: &GroupBuilder, step: &mut Step) -> Option<Submission> {
        let mut found = None;
        let group_bytes = self.log.options.group_bytes;
        let submission = self.log.inbox.pop_if(|bytes| {
            let bytes = builder.bytes_with(bytes);
            let room = self.head.room(bytes as u64);
            found = Some(room);
            room == Room::Fits && (builder.is_empty() || bytes <= group_bytes)
        });
        if submission.is_none() && builder.is_empty() {
            match found {
                Some(Room::SegmentFull) => self.roll = roll::Roll::Wanted,
                Some(Room::NotAllocated | Room::BeingZeroed) => self.refuse_without_space(step),
                Some(Room::Fits) | None => {}
            }
        }
        submission
    }

    fn refuse_all(&self, step: &mut Step, error: &AppendError) {
        for Submission { reply, .. } in self.log.inbox.drain() {
            step.answers.push(Answer::new(reply, Err(error.clone())));
        }
    }

    /// While a roll waits for space a WITNESS covers the last group, for that may take hours. When
    /// the log is to close it does so at once, in CLEAN's place: there is room for one of them, and
    /// for the START of the next opening.
    fn next_mark_in_roll(&mut self) -> Option<GroupWrite> {
        let is_due = self.quiet_for() >= self.witness_after() || self.closing == Closing::Asked;
        if !self.lacks_witness_in_roll() || !is_due {
            return None;
        }
        self.unwitnessed = false;
        let builder = self.builder(0);
        Some(self.submit(builder, GroupKind::Witness, Vec::new(), Vec::new()))
    }

    fn lacks_witness_in_roll(&self) -> bool {
        self.unwitnessed && self.in_flight.is_empty() && self.head.room_for_mark() == Room::Fits
    }

    /// A group without appends, if it is time for one: WITNESS when quiet, CLEAN at the end.
    fn next_mark(&mut self) -> Option<GroupWrite> {
        if !self.in_flight.is_empty() {
            return None;
        }
        let kind = match self.closing {
            Closing::Asked if self.log.inbox.is_empty() => GroupKind::Clean,
            Closing::No if self.unwitnessed && self.quiet_for() >= self.witness_after() => {
                GroupKind::Witness
            }
            _ => return None,
        };
        match (self.head.room_for_mark(), kind) {
            (Room::Fits, _) => {}
            (Room::SegmentFull, _) => {
                // SEAL covers the last group as well as WITNESS would; CLEAN goes behind the roll.
                self.roll = roll::Roll::Wanted;
                return None;
            }
            (Room::NotAllocated | Room::BeingZeroed, GroupKind::Clean)
                if self.no_space.is_some() =>
            {
                self.closing = Closing::Done;
                return None;
            }
            (Room::NotAllocated | Room::BeingZeroed, _) => return None,
        }
        self.unwitnessed = false;
        if kind == GroupKind::Clean {
            self.closing = Closing::Marked;
        }
        let builder = self.builder(0);
        Some(self.submit(builder, kind, Vec::new(), Vec::new()))
    }

    fn submit(
        &mut self,
        builder: GroupBuilder,
        kind: GroupKind,
        appends: Vec<Placed>,
        answers: Vec<Answer>,
    ) -> GroupWrite {
        self.next_position = builder.next_position();
        let (header, buffer) = builder.finish(kind);
        let bytes = self.pool.share(buffer);
        self.head.submitted(&header);
        self.idle_since = self.log.env.clock.monotonic();
        let file = Arc::clone(self.head.file());
        let done = self.completion();
        let ticket = done.ticket();
        let written = Written::Group { header, bytes: bytes.clone(), appends };
        let begun = self.idle_since;
        self.in_flight.push_back(InFlight { ticket, begun, durable: false, written, answers });
        GroupWrite { file, offset: header.offset, bytes, done }
    }

    fn completion(&mut self) -> Completion {
        self.next_ticket += 1;
        let sink = Arc::clone(&self.log.inbox);
        Completion::new(self.next_ticket, sink)
    }

    fn quiet_for(&self) -> Duration {
        self.log.env.clock.monotonic().saturating_sub(self.idle_since)
    }

    fn witness_after(&self) -> Duration {
        Duration::from_micros(self.log.options.witness_after_us)
    }

    fn timeout(&self) -> Option<Duration> {
        if self.failed.is_some() {
            return None;
        }
        // While the mark waits for space, the end of the preparation is an arrival.
        let may_mark = match &self.roll {
            roll::Roll::No => {
                self.unwitnessed
                    && self.in_flight.is_empty()
                    && matches!(self.head.room_for_mark(), Room::Fits | Room::SegmentFull)
            }
            roll::Roll::Wanted => self.lacks_witness_in_roll(),
            _ => false,
        };
        let witness = may_mark.then(|| self.witness_after().saturating_sub(self.quiet_for()));
        let now = self.log.env.clock.monotonic();
        // While space is being prepared, its end is an arrival.
        let no_space = self.no_space.as_ref().filter(|_| !self.preparing);
        let retry = no_space.map(|(_, at)| at.saturating_sub(now));
        witness.into_iter().chain(retry).min()
    }

    /// From here on invariant 4 holds: nothing is written or acknowledged any more.
    pub(super) fn fail(&mut self, reason: &str) {
        self.messages.push(Message::Failed(reason.to_owned()));
        self.log.set_state(LogState::Failed(reason.to_owned()));
        self.failed.get_or_insert_with(|| reason.to_owned());
    }

    /// Closes without CLEAN where it cannot be written: recovery needs no CLEAN.
    fn finish_closing(&mut self) {
        let stuck_in_roll = matches!(self.roll, roll::Roll::Wanted)
            && self.no_space.is_some()
            && self.in_flight.is_empty()
            && self.log.inbox.is_empty()
            && !self.lacks_witness_in_roll();
        if self.closing != Closing::No && (self.failed.is_some() || stuck_in_roll) {
            self.closing = Closing::Done;
        }
    }
}
