//! A log with a bus on it, and handlers that write down what they are given.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use event_listener::Event;
use futures::future::{BoxFuture, Either, select};
use futures::{FutureExt, StreamExt, stream};
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_client::*;
use tempfile::TempDir;

/// Longer than anything here takes on the slowest machine; a hang is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_mins(5);

/// A log in a temporary folder.
pub(crate) struct Log {
    pub(crate) store: Arc<Embedded>,
    pub(crate) folder: TempDir,
}

impl Log {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Embedded::open(folder.path(), Options::default()).unwrap());
        Self { store, folder }
    }

    /// Closes it and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { store, folder } = self;
        store.close();
        drop(store);
        let store = Arc::new(Embedded::open(folder.path(), Options::default()).unwrap());
        Self { store, folder }
    }

    pub(crate) async fn bus(&self) -> EventBus {
        self.bus_with(BusOptions::default()).await.unwrap()
    }

    pub(crate) async fn bus_with(&self, options: BusOptions) -> Result<EventBus, BusError> {
        EventBus::open(self.store.clone(), options).await
    }

    pub(crate) fn event(&self, id: &str, event_type: &str) -> NewEvent {
        self.store.new_event(AggregateKey::new("Call", id), event_type, "{}")
    }

    pub(crate) async fn store(&self, events: &[(&str, &str)]) -> Vec<u64> {
        let events = events.iter().map(|(id, event_type)| self.event(id, event_type)).collect();
        let outcome = self.store.append(Append::any(events)).await.unwrap();
        outcome.positions.iter().map(|position| position.0).collect()
    }

    /// So many events of so many aggregates.
    pub(crate) async fn fill(&self, events: u64, aggregates: u64) {
        let numbers: Vec<u64> = (0..events).collect();
        let appends = numbers.chunks(1_000).map(|chunk| {
            let event = |n: &u64| self.event(&(n % aggregates).to_string(), "Counted");
            self.store.append(Append::any(chunk.iter().map(event).collect()))
        });
        for outcome in futures::future::join_all(appends).await {
            outcome.unwrap();
        }
    }
}

/// When something happens.
pub(crate) enum Moment {
    /// When this aggregate has been read.
    Read(AggregateKey),
    /// When something has been stored for this aggregate of the system's.
    Stored(AggregateKey),
}

/// A log behind a server that answers some appends of one of the system's types with errors. What
/// is answered with "outcome unknown" is stored all the same.
pub(crate) struct Flaky {
    pub(crate) store: Arc<Embedded>,
    pub(crate) aggregate_type: &'static str,
    pub(crate) errors: Mutex<VecDeque<AppendError>>,
}

impl EventStore for Flaky {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.store.append(append)
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        let is_of_it = append.events[0].aggregate.aggregate_type == self.aggregate_type;
        async move {
            let error = if is_of_it { self.errors.lock().pop_front() } else { None };
            match error {
                Some(error) if !error.is_outcome_unknown() => Err(error),
                error => {
                    let outcome = self.store.append_system(append).await?;
                    error.map_or(Ok(outcome), Err)
                }
            }
        }
        .boxed()
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        self.store.read(request)
    }

    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        self.store.subscribe(request)
    }

    fn log_id(&self) -> Uuid {
        self.store.log_id()
    }

    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>> {
        self.store.version(key)
    }
}

/// A log behind a server of which handlers' reads, or their subscriptions, fail for now.
pub(crate) struct Outage {
    pub(crate) store: Arc<Embedded>,
    pub(crate) of_reads: AtomicBool,
    pub(crate) of_subscriptions: AtomicBool,
    /// Reads of events, not of the system's.
    pub(crate) reads: AtomicUsize,
}

impl Outage {
    pub(crate) fn of(log: &Log) -> Arc<Self> {
        let (of_reads, of_subscriptions) = (AtomicBool::new(false), AtomicBool::new(false));
        let (store, reads) = (log.store.clone(), AtomicUsize::new(0));
        Arc::new(Self { store, of_reads, of_subscriptions, reads })
    }

    fn fails(filter: &Filter, is_down: &AtomicBool) -> Option<ReadError> {
        let is_of_events = !filter.include_system && filter.aggregate.is_none();
        let down = || ReadError::Unavailable("the server is down".to_owned());
        (is_of_events && is_down.load(Ordering::SeqCst)).then(down)
    }
}

impl EventStore for Outage {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.store.append(append)
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.store.append_system(append)
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        if request.filter == Filter::default() {
            self.reads.fetch_add(1, Ordering::SeqCst);
        }
        match Self::fails(&request.filter, &self.of_reads) {
            Some(error) => RecordStream::new(stream::iter([Err(error)]).boxed()),
            None => self.store.read(request),
        }
    }

    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        match Self::fails(&request.filter, &self.of_subscriptions) {
            Some(error) => Err(error),
            None => self.store.subscribe(request),
        }
    }

    fn is_exclusive(&self) -> bool {
        self.store.is_exclusive()
    }

    fn log_id(&self) -> Uuid {
        self.store.log_id()
    }

    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>> {
        self.store.version(key)
    }
}

/// A log in which something happens at a moment, once.
pub(crate) struct Unlucky {
    pub(crate) store: Arc<Embedded>,
    pub(crate) moment: Moment,
    pub(crate) happens: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl EventStore for Unlucky {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.store.append(append)
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        let is_now =
            matches!(&self.moment, Moment::Stored(key) if append.events[0].aggregate == *key);
        let happens = self.happens.lock().take_if(|_| is_now);
        async move {
            let outcome = self.store.append_system(append).await;
            if let Some(happens) = happens {
                happens.await;
            }
            outcome
        }
        .boxed()
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        let key = request.filter.aggregate.as_ref();
        let is_now = matches!(&self.moment, Moment::Read(read) if Some(read) == key);
        let happens = self.happens.lock().take_if(|_| is_now);
        let records = self.store.read(request).map(|record| Ok(vec![record?]));
        let end = stream::iter(happens).then(async |happens| {
            happens.await;
            Ok(Vec::new())
        });
        RecordStream::new(records.chain(end).boxed())
    }

    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        self.store.subscribe(request)
    }

    fn log_id(&self) -> Uuid {
        self.store.log_id()
    }

    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>> {
        self.store.version(key)
    }
}

/// What a handler was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) position: u64,
    pub(crate) id: String,
    pub(crate) attempt: u32,
    pub(crate) is_replay: bool,
    pub(crate) was_parked: bool,
}

/// A place where handlers write down what they are given.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<(Mutex<Vec<Heard>>, Event)>);

impl Book {
    pub(crate) fn write(&self, delivery: &Delivery) {
        let record = delivery.record();
        let heard = Heard {
            position: record.position().0,
            id: record.aggregate_id().to_owned(),
            attempt: delivery.attempt(),
            is_replay: delivery.is_replay(),
            was_parked: delivery.was_parked(),
        };
        self.0.0.lock().push(heard);
        self.0.1.notify(usize::MAX);
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.0.0.lock().clone()
    }

    pub(crate) fn positions(&self) -> Vec<u64> {
        self.0.0.lock().iter().map(|heard| heard.position).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.0.lock().len()
    }

    /// Waits until so many lines are written.
    pub(crate) async fn filled(&self, lines: usize) -> Vec<Heard> {
        within(async {
            loop {
                let more = self.0.1.listen();
                if self.len() >= lines {
                    return self.heard();
                }
                more.await;
            }
        })
        .await
    }

    /// A handler that writes all down.
    pub(crate) fn writer(&self) -> impl Fn(&Delivery) -> Result<(), HandlerError> + use<> {
        let book = self.clone();
        move |delivery| {
            book.write(delivery);
            Ok(())
        }
    }
}

/// What handlers can wait at.
#[derive(Default)]
pub(crate) struct Gate {
    is_open: AtomicBool,
    opened: Event,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
        self.opened.notify(usize::MAX);
    }

    /// Waits until it is open.
    pub(crate) async fn opened(&self) {
        loop {
            let opened = self.opened.listen();
            if self.is_open.load(Ordering::SeqCst) {
                return;
            }
            opened.await;
        }
    }
}

/// Runs a test; a hang is a failure.
pub(crate) fn block_on<T>(test: impl Future<Output = T>) -> T {
    futures::executor::block_on(within(test))
}

/// What `future` gives; a hang is a failure.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    match select(Box::pin(future), Delay::new(PATIENCE)).await {
        Either::Left((value, _)) => value,
        Either::Right(_) => panic!("nothing came within {PATIENCE:?}"),
    }
}

/// Looks until it is so.
pub(crate) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    within(async {
        while !is_so().await {
            Delay::new(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Pauses that a test can wait for: so many attempts after the first.
pub(crate) fn hasty(retries: usize) -> Backoff {
    Backoff { pauses: vec![Duration::from_millis(10); retries], jitter: 0.5 }
}

pub(crate) async fn parked(bus: &EventBus, handler: &str) -> Vec<ParkedEvent> {
    bus.notes(handler).await.unwrap().parked().await.unwrap()
}

/// Waits until so many events are parked.
pub(crate) async fn until_parked(bus: &EventBus, handler: &str, count: usize) -> Vec<ParkedEvent> {
    until(async || parked(bus, handler).await.len() == count).await;
    parked(bus, handler).await
}

pub(crate) async fn metrics(bus: &EventBus, handler: &str) -> HandlerMetrics {
    bus.metrics().await.unwrap().remove(handler).unwrap()
}

/// Waits until the handler has stopped; says why.
pub(crate) async fn until_stopped(bus: &EventBus, handler: &str) -> String {
    let reason = async || match metrics(bus, handler).await.status {
        HandlerStatus::Stopped(reason) => Some(reason),
        _ => None,
    };
    until(async || reason().await.is_some()).await;
    reason().await.unwrap()
}
