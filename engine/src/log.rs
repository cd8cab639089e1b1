//! The event log: what a host embeds. Wiring only; the work is done by the modules below.

use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;
use quipu_types::record::EventBody;
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, Direction, ExpectedVersion, Filter,
    IdConflictReason, Invalid, Position, ReadError, ReadRequest, Record, SubscribeRequest, Version,
};

use crate::bug::{Bug, seeded};
use crate::commit::committer::Committer;
use crate::commit::inbox::{Admission, Submission};
use crate::commit::outcome::{Admitted, Reply};
use crate::commit::prepared::{Origin, PreparedAppend};
use crate::commit::sequencer::{Message, Sequencer, Step};
use crate::error::OpenError;
use crate::host::wake_all;
use crate::options::LogOptions;
use crate::read::cursor::{Cursor, PageLimits};
use crate::read::subscription::Subscription;
use crate::recovery::follow::Follower;
use crate::recovery::open::{self, Opened};
use crate::recovery::report::RecoveryReport;
use crate::segment::set::segment_of;
use crate::shared::{Environment, LogState, Shared};
use crate::storage::LockGuard;

/// An open log. Everything takes `&self`; share it in an `Arc`.
///
/// Dropping it closes it: what is queued is written, CLEAN is written, the lock is released.
pub struct EventLog {
    shared: Arc<Shared>,
    sequencer: Option<Arc<Mutex<Sequencer>>>,
    follower: Mutex<Option<Follower>>,
    /// Until it is closed.
    running: Mutex<Option<Running>>,
    report: RecoveryReport,
}

struct Running {
    /// None for a log without threads.
    committer: Option<Committer>,
    /// None for a log that was opened read-only.
    lock: Option<LockGuard>,
}

impl EventLog {
    /// Opens a log for writing, making it if the folder is empty. Blocks until everything found
    /// is proven durable; nothing is served before that.
    ///
    /// # Errors
    /// Why it cannot be opened. A damaged log opens read-only, see [`Self::recovery_report`].
    pub fn open(env: Environment, options: LogOptions) -> Result<Self, OpenError> {
        Self::open_with_progress(env, options, &mut |_, _| {})
    }

    /// As [`Self::open`]; `progress` is told how many segments of how many are loaded.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_progress(
        env: Environment,
        options: LogOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, OpenError> {
        let log = Self::open_stepped(env, options, progress)?;
        if let Some(sequencer) = &log.sequencer {
            let committer = Committer::start(&log.shared, sequencer)
                .map_err(OpenError::io("start the committer threads"))?;
            if let Some(running) = &mut *log.running.lock() {
                running.committer = Some(committer);
            }
        }
        Ok(log)
    }

    /// As [`Self::open`] but without threads: the caller drives the log by [`Self::step`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_stepped(
        env: Environment,
        options: LogOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, OpenError> {
        Ok(Self::from_opened(open::open(env, options, progress)?))
    }

    /// Opens a log for reading: takes no lock and writes nothing, so it works beside a running
    /// writer; shows what is proven durable. See [`Self::refresh`].
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open_read_only(env: Environment, options: LogOptions) -> Result<Self, OpenError> {
        Ok(Self::from_opened(open::open_read_only(env, options, &mut |_, _| {})?))
    }

    fn from_opened(opened: Opened) -> Self {
        let Opened { shared, start, follower, report, lock } = opened;
        let sequencer =
            start.map(|start| Arc::new(Mutex::new(Sequencer::new(Arc::clone(&shared), start))));
        Self {
            shared,
            sequencer,
            follower: Mutex::new(follower),
            running: Mutex::new(Some(Running { committer: None, lock })),
            report,
        }
    }

    /// One step of the sequencer, for a log without threads; `None` if it takes no appends.
    pub fn step(&self) -> Option<Step> {
        let step = self.sequencer.as_ref()?.lock().step();
        step.messages.iter().for_each(Message::tell);
        wake_all(self.shared.inbox.take_granted());
        if step.has_advanced {
            self.shared.watermark.wake();
        }
        Some(step)
    }

    /// What the log's parts share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What opening found and did.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.report
    }

    /// Whether it was opened for writing, and so holds the lock that keeps other writers away.
    pub fn takes_appends(&self) -> bool {
        self.sequencer.is_some()
    }

    /// Aggregates and ids known; zeros for a log that takes no appends.
    pub fn known(&self) -> (u64, u64) {
        self.sequencer.as_ref().map_or((0, 0), |sequencer| sequencer.lock().known())
    }

    /// Bytes in memory of what is known of the active segment.
    pub(crate) fn active_index_bytes(&self) -> u64 {
        self.sequencer.as_ref().map_or(0, |sequencer| sequencer.lock().index_bytes())
    }

    /// Checks and archives an append, in the caller's task.
    ///
    /// # Errors
    /// What can never be stored.
    pub fn prepare(&self, append: &Append, origin: Origin) -> Result<PreparedAppend, Invalid> {
        let events: Vec<EventBody<'_>> = append.events.iter().map(EventBody::from).collect();
        self.prepare_borrowed(&events, &append.expectations, origin)
    }

    /// As [`Self::prepare`], of events that stand in someone else's buffer.
    ///
    /// # Errors
    /// What can never be stored.
    pub fn prepare_borrowed(
        &self,
        events: &[EventBody<'_>],
        expectations: &[(AggregateKey, ExpectedVersion)],
        origin: Origin,
    ) -> Result<PreparedAppend, Invalid> {
        let (limits, hasher) = (&self.shared.options.limits, self.shared.hasher);
        PreparedAppend::new(events, expectations, limits, hasher, origin)
    }

    /// Queues an append; the future waits while the queue is full. `reply` is called once, from a
    /// thread of the log, when everything that it depends on is durable: it must not block.
    /// Dropping the future before it resolves withdraws the append.
    ///
    /// # Errors
    /// That the log takes no appends.
    pub fn submit(&self, append: PreparedAppend, reply: Reply) -> Result<Admission, AppendError> {
        self.check_writable()?;
        Ok(self.shared.inbox.push(Submission { append, reply }))
    }

    /// Has everything written that was submitted quietly ([`Admission::quiet`]).
    pub fn wake(&self) {
        self.shared.inbox.wake();
    }

    /// As [`Self::submit`], but a full queue is an error.
    ///
    /// # Errors
    /// `Overloaded`, or that the log takes no appends.
    pub fn try_submit(&self, append: PreparedAppend, reply: Reply) -> Result<(), AppendError> {
        self.check_writable()?;
        self.shared.inbox.try_push(Submission { append, reply })
    }

    fn check_writable(&self) -> Result<(), AppendError> {
        match (&self.sequencer, self.shared.state()) {
            (_, LogState::Closed) => Err(AppendError::Closed),
            (Some(_), _) => Ok(()),
            (None, LogState::NoSpace(reason)) => Err(AppendError::NoSpace(reason)),
            (None, state) => Err(AppendError::ReadOnly(state.to_string())),
        }
    }

    /// Turns the sequencer's answer into the append's outcome: compares what was known already.
    /// May read from disk.
    ///
    /// # Errors
    /// `IdConflict` if a known event has other content.
    pub fn settle(&self, admitted: Admitted) -> Result<AppendOutcome, AppendError> {
        match admitted {
            Admitted::Stored { first, events, versions } => Ok(AppendOutcome {
                duplicate: false,
                positions: (first.0..first.0 + events).map(Position).collect(),
                versions: (versions.into_iter())
                    .map(|(key, version)| (Arc::unwrap_or_clone(key), version))
                    .collect(),
            }),
            Admitted::Known { positions, append } => self.settle_known(positions, &append),
        }
    }

    /// Whether [`Self::settle`] may read from disk.
    pub fn settles_from_disk(&self, admitted: &Admitted) -> bool {
        let Admitted::Known { positions, .. } = admitted else { return false };
        let segments = self.shared.segments.snapshot();
        !positions.iter().all(|position| {
            segment_of(&segments, *position).is_some_and(|it| segments[it].is_in_memory(*position))
        })
    }

    fn settle_known(
        &self,
        positions: Vec<Position>,
        append: &PreparedAppend,
    ) -> Result<AppendOutcome, AppendError> {
        let mut versions: Vec<(AggregateKey, Version)> = Vec::new();
        let mut places = HashMap::new();
        for (index, position) in positions.iter().enumerate() {
            let stored = self.record_at(*position)?;
            let is_same = append.record(index).is_some_and(|it| it.has_content_of(&stored));
            if !is_same && !seeded(Bug::ComparesNoContent) {
                self.shared.counters.conflict();
                let (event_id, reason) = (stored.event_id(), IdConflictReason::OtherContent);
                return Err(AppendError::IdConflict { event_id, position: *position, reason });
            }
            let key = stored.aggregate();
            let place = *places.entry(key.clone()).or_insert(versions.len());
            match versions.get_mut(place) {
                Some((_, version)) => *version = stored.version().max(*version),
                None => versions.push((key, stored.version())),
            }
        }
        self.shared.counters.duplicate();
        Ok(AppendOutcome { duplicate: true, positions, versions })
    }

    /// Appends and blocks until the outcome is durable.
    ///
    /// # Errors
    /// Why it was not acknowledged.
    pub fn append(&self, append: &Append) -> Result<AppendOutcome, AppendError> {
        let prepared = self.prepare(append, Origin::Client)?;
        let (sender, receiver) = sync_channel(1);
        let reply: Reply = Box::new(move |result| {
            // The receiver is gone only if its thread has panicked.
            sender.send(result).ok();
        });
        block_on(self.submit(prepared, reply)?)?;
        self.settle(receiver.recv().map_err(|_| lost())??)
    }

    /// Begins a read of what is durable now.
    pub fn read(&self, request: ReadRequest) -> Cursor {
        Cursor::new(Arc::clone(&self.shared), request)
    }

    /// Begins a subscription.
    ///
    /// # Errors
    /// That a checkpoint is of another log, or lies past the end of this one.
    pub fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        Subscription::new(Arc::clone(&self.shared), request)
    }

    /// The record at a position.
    ///
    /// # Errors
    /// That there is none, or it cannot be read.
    pub fn record_at(&self, position: Position) -> Result<Record, ReadError> {
        if position == Position::START {
            // A read from here would begin with the first record.
            let end = self.shared.watermark.current();
            return Err(ReadError::PastEnd { given: position, end });
        }
        let segments = self.shared.segments.snapshot();
        if let Some(at) = segment_of(&segments, position)
            && let Some(record) = segments[at].record(&self.shared.open_files, position)?
        {
            return Ok(record);
        }
        let filter = Filter { include_system: true, ..Filter::default() };
        let request = ReadRequest {
            filter,
            from: Some(position.0),
            limit: Some(1),
            ..ReadRequest::default()
        };
        let page = self.read(request).next_page(PageLimits::default())?;
        let end = self.shared.watermark.current();
        page.records.into_iter().next().ok_or(ReadError::PastEnd { given: position, end })
    }

    /// The newest durable version of an aggregate, `Version::NONE` if it was never written.
    ///
    /// # Errors
    /// That its last record cannot be read, or may lie where the log is damaged.
    pub fn version(&self, key: &AggregateKey) -> Result<Version, ReadError> {
        // A read backward would end quietly at the version before the damage.
        if let Some(damage) = self.shared.damage() {
            return Err(damage.into());
        }
        let request = ReadRequest {
            filter: Filter::aggregate(key.clone()),
            direction: Direction::Backward,
            limit: Some(1),
            ..ReadRequest::default()
        };
        let page = self.read(request).next_page(PageLimits::default())?;
        Ok(page.records.first().map_or(Version::NONE, Record::version))
    }

    /// For a log that was opened read-only: shows what its writer has made durable since.
    ///
    /// # Errors
    /// What the disk says.
    pub fn refresh(&self) -> Result<(), ReadError> {
        let seen = || (self.shared.watermark.current(), self.shared.damage().is_some());
        let before = seen();
        let refreshed = match &mut *self.follower.lock() {
            Some(follower) => follower.refresh(&self.shared).map(|_| ()),
            None => Ok(()),
        };
        if seen() != before {
            self.shared.watermark.wake();
        }
        refreshed
    }

    /// Closes the log: writes what is queued and CLEAN, ends the threads, releases the lock.
    /// Appends from now on are refused; reads under way go on. While it is being closed, closing
    /// it again does nothing, and does not wait.
    pub fn close(&self) {
        self.shared.inbox.close();
        // Taken in a statement of its own: an answer may close the log, on a thread that the first
        // who closes it waits for.
        let running = self.running.lock().take();
        let Some(Running { committer, lock }) = running else { return };
        // Where nobody can be had to wait for the threads, it is never released: they may write.
        let (shared, lock) = (Arc::clone(&self.shared), ManuallyDrop::new(lock));
        let last = move || {
            shared.env.storage.quiesce();
            shared.set_state(LogState::Closed);
            drop(ManuallyDrop::into_inner(lock));
            shared.watermark.wake();
        };
        match committer {
            Some(committer) => committer.join(last),
            None => last(),
        }
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        self.close();
    }
}

fn lost() -> AppendError {
    AppendError::OutcomeUnknown("the log ended without an answer".to_owned())
}

/// Blocks this thread until the append is let in.
fn block_on(mut admission: Admission) -> Result<(), AppendError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match std::pin::Pin::new(&mut admission).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park_timeout(Duration::from_secs(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use quipu_types::{ExpectedVersion, NewEvent, Timestamp, Uuid};

    use super::*;
    use crate::clock::System;
    use crate::storage::{Access, Backend, DiskStorage, Mapping};

    fn options() -> LogOptions {
        let mut options = LogOptions { segment_bytes: 64 * 1024, ..LogOptions::default() };
        options.limits.append_bytes_max = 16 * 1024;
        options
    }

    fn environment(folder: &std::path::Path) -> Environment {
        let storage =
            DiskStorage::open(folder, Access::ReadWrite, Backend::Auto, Mapping::Mapped).unwrap();
        Environment {
            storage: Arc::new(storage),
            clock: Arc::new(System),
            entropy: Arc::new(System),
        }
    }

    fn open(folder: &std::path::Path) -> EventLog {
        EventLog::open(environment(folder), options()).unwrap()
    }

    fn event(id: u128) -> NewEvent {
        let key = AggregateKey::new("Call", (id % 3).to_string());
        let payload = format!("{{\"n\":{id}}}");
        NewEvent::json(Uuid::from_u128(id), key, "Created", Timestamp::from_micros(1), payload)
    }

    fn all(log: &EventLog) -> Vec<(u64, u128, u64)> {
        let mut cursor = log.read(ReadRequest::default());
        let mut found = Vec::new();
        loop {
            let page = cursor.next_page(PageLimits::default()).unwrap();
            found.extend(page.records.iter().map(|record| {
                (record.position().0, record.event_id().as_u128(), record.version().0)
            }));
            if page.is_last {
                return found;
            }
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread that may never come back")]
    fn an_answer_may_close_the_log_that_is_being_closed() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(open(folder.path()));
        let append = Append::one(event(1), ExpectedVersion::Any);
        let prepared = log.prepare(&append, Origin::Client).unwrap();
        let (tell, told) = sync_channel(1);
        let again = Arc::clone(&log);
        let reply: Reply = Box::new(move |_| {
            // The test is closing it by now, most likely: it waits for this thread.
            std::thread::park_timeout(Duration::from_millis(300));
            again.close();
            tell.send(()).unwrap();
        });
        log.try_submit(prepared, reply).unwrap();
        let closing = std::thread::Builder::new().spawn(move || log.close()).unwrap();
        told.recv_timeout(Duration::from_secs(30)).expect("a deadlock");
        closing.join().unwrap();
        assert_eq!(all(&open(folder.path())).len(), 1, "the lock is released");
    }

    #[test]
    fn the_last_handle_may_be_dropped_where_an_answer_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, answered) = sync_channel(1);
        let log = Arc::new(open(folder.path()));
        let append = Append::one(event(1), ExpectedVersion::Any);
        let prepared = log.prepare(&append, Origin::Client).unwrap();
        let (last, dropped_here) = (Arc::clone(&log), sync_channel::<()>(1));
        let reply: Reply = Box::new(move |result| {
            // The test has let go of its handle by now.
            dropped_here.1.recv().unwrap();
            drop(last);
            sender.send(result.is_ok()).unwrap();
        });
        log.try_submit(prepared, reply).unwrap();
        drop(log);
        dropped_here.0.send(()).unwrap();
        assert_eq!(answered.recv_timeout(Duration::from_secs(30)), Ok(true), "a deadlock");
        let again = (0..300).find_map(|_| {
            std::thread::park_timeout(Duration::from_millis(100));
            EventLog::open(environment(folder.path()), options()).ok()
        });
        assert_eq!(all(&again.expect("the lock is released")).len(), 1);
    }

    #[test]
    fn appends_survive_rolls_and_reopening_and_repeat_as_duplicates() {
        let folder = tempfile::tempdir().unwrap();
        let log = open(folder.path());
        for id in 1..=60_u64 {
            let version = Version((id - 1) / 3);
            let append = Append::one(event(id.into()), ExpectedVersion::Exact(version));
            let outcome = log.append(&append).unwrap();
            assert_eq!(outcome.positions, [Position(id)]);
            assert!(!outcome.duplicate);
        }
        assert!(log.segments().unwrap().len() > 2, "small segments roll");
        let before = all(&log);
        assert_eq!(before.len(), 60);
        drop(log);
        let log = open(folder.path());
        assert!(log.recovery_report().clean, "{}", log.recovery_report());
        assert_eq!(all(&log), before);
        let again = log.append(&Append::one(event(7), ExpectedVersion::NoStream)).unwrap();
        assert!(again.duplicate);
        assert_eq!(again.positions, [Position(7)]);
        let key = AggregateKey::new("Call", "1");
        assert_eq!(log.version(&key), Ok(Version(20)));
        let late = log.append(&Append::one(event(61), ExpectedVersion::Exact(Version(3))));
        assert!(matches!(late, Err(AppendError::Conflict(_))), "{late:?}");
    }
}
