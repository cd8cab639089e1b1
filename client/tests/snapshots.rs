//! States of aggregates kept in the log: when they are taken, what loading then reads, and which
//! are passed over.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bus_support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bus_support::block_on;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use quipu_client::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::TempDir;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum(u64);

impl Aggregate for Sum {
    const TYPE: &'static str = "Sum";
    type Event = UntypedEvent;

    fn apply(&mut self, event: &UntypedEvent) -> Result<(), Inapplicable> {
        self.0 += event.data.as_u64().ok_or_else(|| Inapplicable::because("no number"))?;
        Ok(())
    }
}

impl Snapshotted for Sum {}

/// The same aggregate in a program whose states have other fields.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum2 {
    sum: u64,
}

impl Aggregate for Sum2 {
    const TYPE: &'static str = "Sum";
    type Event = UntypedEvent;

    fn apply(&mut self, event: &UntypedEvent) -> Result<(), Inapplicable> {
        self.sum += event.data.as_u64().ok_or_else(|| Inapplicable::because("no number"))?;
        Ok(())
    }
}

impl Snapshotted for Sum2 {
    const STATE_VERSION: u16 = 2;
}

fn add(number: u64) -> UntypedEvent {
    UntypedEvent { event_type: "Added".to_owned(), schema_version: 1, data: json!(number) }
}

/// A log that counts the events of hosts that were read from it.
struct Counting {
    log: Embedded,
    events_read: Arc<AtomicU64>,
    _folder: TempDir,
}

impl Counting {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(folder.path(), Options::default()).unwrap();
        Arc::new(Self { log, events_read: Arc::default(), _folder: folder })
    }

    /// Events that were read since the last time.
    fn take_read(&self) -> u64 {
        self.events_read.swap(0, Ordering::Relaxed)
    }

    async fn fill(&self, id: &str, events: u64) {
        let key = AggregateKey::new("Sum", id);
        let numbers: Vec<u64> = (1..=events).collect();
        for chunk in numbers.chunks(2_000) {
            let event = |n: &u64| self.log.new_event(key.clone(), "Added", n.to_string());
            self.append(Append::any(chunk.iter().map(event).collect())).await.unwrap();
        }
    }

    async fn kept(&self, id: &str) -> Vec<Record> {
        let filter = Filter::aggregate(AggregateKey::new(SNAPSHOT_TYPE, format!("Sum/{id}")));
        let kept = self.log.read(ReadRequest { filter, ..Default::default() });
        kept.map(Result::unwrap).collect().await
    }

    /// Puts something into the stream of an aggregate's kept states.
    async fn keep(&self, id: &str, state_version: u16, payload: serde_json::Value) {
        let stream = AggregateKey::new(SNAPSHOT_TYPE, format!("Sum/{id}"));
        let event = self.log.new_event(stream, "SnapshotTaken", payload.to_string());
        let event = NewEvent { schema_version: state_version, ..event };
        self.append_system(Append::any(vec![event])).await.unwrap();
    }
}

impl EventStore for Counting {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.log.append(append)
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.log.append_system(append)
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        let is_system = request.filter.include_system;
        let count = Arc::clone(&self.events_read);
        let pages = stream::unfold(self.log.read(request), move |mut records| {
            let count = Arc::clone(&count);
            async move {
                let page = records.next_batch().await;
                let read = page.as_ref().map_or(0, |page| page.len() as u64);
                if !is_system {
                    count.fetch_add(read, Ordering::Relaxed);
                }
                (read > 0 || page.is_err()).then_some((page, records))
            }
        });
        RecordStream::new(pages.boxed())
    }

    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        self.log.subscribe(request)
    }

    fn log_id(&self) -> Uuid {
        self.log.log_id()
    }

    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>> {
        self.log.version(key)
    }
}

#[test]
fn an_aggregate_of_100_000_events_is_loaded_by_its_snapshot_and_what_follows() {
    block_on(async {
        let store = Counting::new();
        store.fill("a", 100_000).await;
        let snapshots = Snapshots::default();
        let sums = Repository::<_, Sum>::new(store.clone()).with_snapshots(&snapshots);
        let whole = sums.load("a").await.unwrap();
        assert_eq!((whole.version(), store.take_read() >= 100_000), (Version(100_000), true));
        snapshots.settled().await;
        assert_eq!(snapshots.counts(), SnapshotCounts { taken: 1, ..Default::default() });
        store.take_read();
        store.fill("a", 17).await;
        let quick = sums.load("a").await.unwrap();
        assert_eq!(store.take_read(), 17, "only what follows the snapshot");
        let sum = 100_000 * 100_001 / 2 + 17 * 18 / 2;
        assert_eq!((quick.state(), quick.version()), (&Sum(sum), Version(100_017)));
        // Another program, or this one after a restart, finds it too.
        let other = Repository::<_, Sum>::new(store.clone()).with_snapshots(&Snapshots::default());
        assert_eq!(other.load("a").await.unwrap().state(), &Sum(sum));
        assert_eq!(store.take_read(), 17);
    });
}

#[test]
fn one_is_taken_each_time_that_a_multiple_is_passed_and_readers_do_not_see_it() {
    block_on(async {
        let store = Counting::new();
        let snapshots = Snapshots::every(10);
        let sums = Repository::<_, Sum>::new(store.clone()).with_snapshots(&snapshots);
        let context = EventContext::new();
        for round in 1..=35_u64 {
            let decide = |_: &Sum| Ok::<_, &str>(vec![add(1)]);
            sums.execute("a", &context, decide).await.unwrap();
            snapshots.settled().await;
            assert_eq!(store.kept("a").await.len() as u64, round / 10, "after {round}");
        }
        let kept = store.kept("a").await;
        let first: serde_json::Value = serde_json::from_slice(kept[0].payload()).unwrap();
        let expected = json!({
            "aggregate_type": "Sum", "aggregate_id": "a",
            "version": 10, "position": 10, "state": 10,
        });
        assert_eq!(first, expected);
        let seen: Vec<_> = store.read(ReadRequest::default()).collect().await;
        assert_eq!(seen.len(), 35);
    });
}

#[test]
fn a_kept_state_that_does_not_fit_is_passed_over() {
    block_on(async {
        let store = Counting::new();
        store.fill("a", 3).await;
        let good = |state: serde_json::Value| {
            json!({
                "aggregate_type": "Sum", "aggregate_id": "a", "version": 2, "position": 2,
                "state": state,
            })
        };
        store.keep("a", 1, good(json!(3))).await;
        let unfit = [
            (1, good(json!("no sum"))),
            (1, json!({ "version": 3 })),
            (1, json!(null)),
            // Of a newer program.
            (2, good(json!({ "sum": 99 }))),
            // Of another aggregate.
            (
                1,
                json!({ "aggregate_type": "Sum", "aggregate_id": "b", "version": 3, "position": 3,
                "state": 99 }),
            ),
            // Of a future that has not come.
            (
                1,
                json!({ "aggregate_type": "Sum", "aggregate_id": "a", "version": 9, "position": 99,
                "state": 99 }),
            ),
        ];
        for (version, payload) in unfit {
            store.keep("a", version, payload).await;
        }
        let sums = Repository::<_, Sum>::new(store.clone()).with_snapshots(&Snapshots::default());
        let root = sums.load("a").await.unwrap();
        assert_eq!((root.state(), root.version(), store.take_read()), (&Sum(6), Version(3), 1));
        // A program with other states takes its own.
        let new = Repository::<_, Sum2>::new(store.clone()).with_snapshots(&Snapshots::default());
        assert_eq!(new.load("a").await.unwrap().version(), Version(3));
        // Where none fits, the events say it all.
        for _ in 0..20 {
            store.keep("a", 3, json!(null)).await;
        }
        store.take_read();
        assert_eq!(sums.load("a").await.unwrap().state(), &Sum(6));
        assert_eq!(store.take_read(), 3);
    });
}

#[test]
fn the_past_begins_with_a_state_that_was_kept_by_then() {
    block_on(async {
        let store = Counting::new();
        let snapshots = Snapshots::every(10);
        let sums = Repository::<_, Sum>::new(store.clone()).with_snapshots(&snapshots);
        for _ in 0..3 {
            store.fill("a", 10).await;
            sums.load("a").await.unwrap();
            snapshots.settled().await;
        }
        store.take_read();
        for (at, sum) in [(29, 2 * 55 + 45), (20, 2 * 55), (9, 45), (0, 0)] {
            let then = sums.state_at("a", At::Version(Version(at))).await.unwrap();
            assert_eq!((then.state, then.version), (Sum(sum), Version(at)));
        }
        let recorded = sums.state_at("a", At::Recorded(Timestamp::from_micros(0))).await.unwrap();
        assert_eq!(recorded.version, Version::NONE);
    });
}

#[test]
fn what_cannot_be_kept_is_counted_and_loads_as_before() {
    block_on(async {
        let store = Counting::new();
        let long = "x".repeat(255);
        store.fill(&long, 10).await;
        let snapshots = Snapshots::every(10);
        let sums = Repository::<_, Sum>::new(store.clone()).with_snapshots(&snapshots);
        assert_eq!(sums.load(&long).await.unwrap().state(), &Sum(55));
        snapshots.settled().await;
        let SnapshotCounts { failed, last_error, .. } = snapshots.counts();
        let told = last_error.unwrap().to_string();
        assert!(failed == 1 && told.contains("255") && told.contains("259"), "{told}");
        // It would fail each time: the next multiple is soon enough.
        for (more, tries) in [(9, 1), (1, 2), (1, 2)] {
            store.fill(&long, more).await;
            sums.load(&long).await.unwrap();
            snapshots.settled().await;
            assert_eq!(snapshots.counts().failed, tries);
        }
    });
}

#[test]
fn the_log_is_free_when_its_holders_are_gone() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let store = Arc::new(Embedded::open(folder.path(), Options::default()).unwrap());
        let sums = Repository::<_, Sum>::new(store).with_snapshots(&Snapshots::every(1));
        block_on(async {
            let mut sum = sums.load("a").await.unwrap();
            assert_eq!(sum.version(), Version(round));
            sum.raise(add(1)).unwrap();
            sums.save(&mut sum, &EventContext::new()).await.unwrap();
        });
    }
}

/// A state that panics when it is kept.
#[derive(Debug, Default, Deserialize)]
struct Fragile(u64);

impl Serialize for Fragile {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a bug of the host");
    }
}

impl Aggregate for Fragile {
    const TYPE: &'static str = "Sum";
    type Event = UntypedEvent;

    fn apply(&mut self, _: &UntypedEvent) -> Result<(), Inapplicable> {
        self.0 += 1;
        Ok(())
    }
}

impl Snapshotted for Fragile {}

#[test]
#[expect(clippy::disallowed_methods, reason = "a thread that hangs must not hold up the test")]
fn a_state_that_panics_when_it_is_kept_holds_up_nobody() {
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        block_on(async {
            let log = Counting::new();
            log.fill("a", 150).await;
            log.fill("b", 150).await;
            let snapshots = Snapshots::default();
            let fragile = Repository::<_, Fragile>::new(log.clone()).with_snapshots(&snapshots);
            fragile.load("a").await.unwrap();
            snapshots.settled().await;
            let counts = snapshots.counts();
            let error = counts.last_error.unwrap().to_string();
            assert!(counts.failed == 1 && error.contains("panicked"), "{error}");
            // The queue goes on.
            let sums = Repository::<_, Sum>::new(log).with_snapshots(&snapshots);
            sums.load("b").await.unwrap();
            snapshots.settled().await;
            assert_eq!(snapshots.counts().taken, 1);
        });
        done.send(()).unwrap();
    });
    is_done.recv_timeout(std::time::Duration::from_mins(1)).expect("it ends");
}
