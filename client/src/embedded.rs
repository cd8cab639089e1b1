//! A log in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use blocking::unblock;
use futures::channel::oneshot;
use futures::future::{BoxFuture, select};
use futures::{FutureExt, StreamExt, stream};
use futures_timer::Delay;
use quipu_engine::commit::listeners::Listener;
use quipu_engine::commit::outcome::Admitted;
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::read::subscription::Subscription as Follow;
use quipu_engine::{
    Access, DiskStorage, Environment, EventLog, OpenError, Origin, RecoveryReport, Status, System,
};
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, NewEvent, ReadError, ReadRequest,
    SubscribeRequest, SubscriptionItem, Uuid, Version,
};

use crate::batches::{RecordStream, Subscription};
use crate::fresh::v7_id;
use crate::options::Options;
use crate::scan;
use crate::store::EventStore;

/// A log in this process. Cheap to clone: all clones are the same log, closed with the last one.
///
/// It needs no async runtime, and works under any.
#[derive(Clone)]
pub struct Embedded {
    log: Arc<EventLog>,
}

impl Embedded {
    /// Opens a log for writing, making it if the folder is missing or empty. Blocks until
    /// everything found in it is proven durable.
    ///
    /// # Errors
    /// Why it cannot be opened. A damaged log opens read-only: see [`Self::recovery_report`].
    pub fn open(folder: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        Self::open_with_progress(folder, options, &mut |_, _| {})
    }

    /// As [`Self::open`]; `progress` is told how many segments of how many are loaded.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_progress(
        folder: impl AsRef<Path>,
        options: Options,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, OpenError> {
        let env = environment(folder.as_ref(), Access::ReadWrite, &options)?;
        let log = EventLog::open_with_progress(env, options.log, progress)?;
        Ok(Self { log: Arc::new(log) })
    }

    /// Opens a log for reading: takes no lock and writes nothing, so it works beside a running
    /// writer; shows what is proven durable. See [`Self::refresh`].
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open_read_only(folder: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        let env = environment(folder.as_ref(), Access::ReadOnly, &options)?;
        let log = EventLog::open_read_only(env, options.log)?;
        Ok(Self { log: Arc::new(log) })
    }

    /// A log on other seams than this machine's disk and clock.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open_on(env: Environment, options: Options) -> Result<Self, OpenError> {
        Ok(Self { log: Arc::new(EventLog::open(env, options.log)?) })
    }

    /// A log in memory, for the tests of hosts: all of a log but the disk, and gone with its last
    /// clone.
    ///
    /// # Errors
    /// That the system gives no threads.
    #[cfg(feature = "testing")]
    pub fn in_memory(options: Options) -> Result<Self, OpenError> {
        let storage = Arc::new(crate::memory::MemoryStorage::default());
        let env = Environment { storage, clock: Arc::new(System), entropy: Arc::new(System) };
        Self::open_on(env, options)
    }

    /// A JSON event that happens now, with a fresh v7 id.
    pub fn new_event(
        &self,
        aggregate: AggregateKey,
        event_type: impl Into<String>,
        payload: impl Into<Vec<u8>>,
    ) -> NewEvent {
        let now = self.log.shared().env.clock.now();
        NewEvent::json(v7_id(now), aggregate, event_type, now, payload)
    }

    /// A fresh v7 id: the cheapest to look up, for it is newer than all that are stored.
    pub fn new_id(&self) -> Uuid {
        v7_id(self.log.shared().env.clock.now())
    }

    /// Appends only if the queue has room; the outcome comes when it is durable.
    ///
    /// # Errors
    /// `Overloaded` if it has none; else as [`EventStore::append`].
    pub fn try_append(
        &self,
        append: &Append,
    ) -> Result<BoxFuture<'_, Result<AppendOutcome, AppendError>>, AppendError> {
        let prepared = self.log.prepare(append, Origin::Client)?;
        let (sender, receiver) = oneshot::channel();
        // The receiver is gone if the caller has lost interest.
        self.log.try_submit(prepared, Box::new(move |result| drop(sender.send(result))))?;
        Ok(async move { self.settle(receiver.await).await }.boxed())
    }

    /// For a log that was opened read-only: shows what its writer has made durable since.
    ///
    /// # Errors
    /// What the disk says.
    pub fn refresh(&self) -> Result<(), ReadError> {
        self.log.refresh()
    }

    /// The log's state now.
    ///
    /// # Errors
    /// What the disk says.
    pub fn status(&self) -> std::io::Result<Status> {
        self.log.status()
    }

    /// What opening found and did, in words for an operator.
    pub fn recovery_report(&self) -> &RecoveryReport {
        self.log.recovery_report()
    }

    /// The engine's log.
    pub fn log(&self) -> &Arc<EventLog> {
        &self.log
    }

    /// Writes what is queued, marks the log as closed in order, and releases its lock. Happens by
    /// itself when the last clone is dropped.
    pub fn close(&self) {
        self.log.close();
    }

    async fn append_from(
        &self,
        origin: Origin,
        append: Append,
    ) -> Result<AppendOutcome, AppendError> {
        let prepared = self.log.prepare(&append, origin)?;
        drop(append);
        let (sender, receiver) = oneshot::channel();
        // The receiver is gone if the caller has lost interest.
        self.log.submit(prepared, Box::new(move |result| drop(sender.send(result))))?.await?;
        self.settle(receiver.await).await
    }

    /// A comparison with what is stored may read from disk: not on the caller's executor.
    async fn settle(
        &self,
        answer: Result<Result<Admitted, AppendError>, oneshot::Canceled>,
    ) -> Result<AppendOutcome, AppendError> {
        let lost = |oneshot::Canceled| {
            AppendError::OutcomeUnknown("the log ended without an answer".to_owned())
        };
        let admitted = answer.map_err(lost)??;
        if !self.log.settles_from_disk(&admitted) {
            return self.log.settle(admitted);
        }
        let log = Arc::clone(&self.log);
        unblock(move || log.settle(admitted)).await
    }
}

impl EventStore for Embedded {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.append_from(Origin::Client, append).boxed()
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.append_from(Origin::SystemClient, append).boxed()
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        RecordStream::new(scan::pages(&self.log, request))
    }

    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        let follow = Some(self.log.subscribe(request)?);
        let batches = stream::unfold(follow, |follow| async move {
            let (batch, follow) = next_items(follow?).await;
            let follow = Some(follow).filter(|_| batch.is_ok());
            Some((batch, follow))
        });
        Ok(Subscription::new(batches.boxed()))
    }

    fn log_id(&self) -> Uuid {
        self.log.shared().log_id
    }

    fn is_exclusive(&self) -> bool {
        self.log.takes_appends()
    }

    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>> {
        let (log, key) = (Arc::clone(&self.log), key.clone());
        unblock(move || log.version(&key)).boxed()
    }
}

async fn next_items(mut follow: Follow) -> (Result<Vec<SubscriptionItem>, ReadError>, Follow) {
    loop {
        // Taken before looking, so that an advance in between is not missed.
        let advanced = follow.listen();
        let items = if !follow.has_more() || follow.is_in_memory() {
            follow.try_next(PageLimits::default())
        } else {
            let (items, back) =
                unblock(move || (follow.try_next(PageLimits::default()), follow)).await;
            follow = back;
            items
        };
        match items {
            Ok(items) if items.is_empty() && !follow.has_more() => {
                wait(advanced, follow.checkpoint_due_in()).await;
            }
            Ok(items) if items.is_empty() => {}
            items => return (items, follow),
        }
    }
}

/// Waits for an advance, or until a checkpoint is due.
async fn wait(advanced: Listener, due_in: Option<Duration>) {
    match due_in {
        None => advanced.await,
        Some(due_in) => {
            select(advanced, Delay::new(due_in)).await;
        }
    }
}

fn environment(folder: &Path, access: Access, options: &Options) -> Result<Environment, OpenError> {
    let storage = DiskStorage::open(folder, access, options.backend, options.mapping).map_err(
        |error| match (error.kind(), access) {
            (std::io::ErrorKind::NotFound, Access::ReadOnly) => OpenError::NoLog,
            _ => OpenError::Io { action: format!("open the folder {}", folder.display()), error },
        },
    )?;
    Ok(Environment {
        storage: Arc::new(storage),
        clock: Arc::new(System),
        entropy: Arc::new(System),
    })
}
