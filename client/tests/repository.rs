//! Aggregates out of a log and back into it: versions, conflicts, several at once, and the past.
#![cfg(feature = "embedded")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::{BoxFuture, join_all};
use quipu_client::*;
use serde_json::json;
use tempfile::TempDir;

/// Counts up, never beyond its limit.
#[derive(Debug, Default, PartialEq)]
struct Counter {
    count: u64,
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the limit is reached")]
struct LimitReached;

impl Counter {
    fn count(&self, limit: u64) -> Result<Vec<UntypedEvent>, LimitReached> {
        if self.count < limit { Ok(vec![counted(1)]) } else { Err(LimitReached) }
    }
}

impl Aggregate for Counter {
    const TYPE: &'static str = "Counter";
    type Event = UntypedEvent;

    fn apply(&mut self, event: &UntypedEvent) -> Result<(), Inapplicable> {
        let by = event.data["by"].as_u64();
        self.count += by.ok_or_else(|| Inapplicable::because("`by` is no number"))?;
        Ok(())
    }
}

/// Keeps the last word.
#[derive(Debug, Default, PartialEq)]
struct Word(String);

impl Aggregate for Word {
    const TYPE: &'static str = "Word";
    type Event = UntypedEvent;

    fn apply(&mut self, event: &UntypedEvent) -> Result<(), Inapplicable> {
        self.0.clone_from(&event.event_type);
        Ok(())
    }
}

fn untyped(event_type: &str, data: serde_json::Value) -> UntypedEvent {
    UntypedEvent { event_type: event_type.to_owned(), schema_version: 1, data }
}

fn counted(by: u64) -> UntypedEvent {
    untyped("Counted", json!({ "by": by }))
}

/// One id after the other, one second after the other.
#[derive(Default)]
struct Seconds(AtomicU64);

impl Stamps for Seconds {
    fn next(&self) -> Stamp {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let timestamp = seconds(i64::try_from(number).unwrap());
        Stamp { event_id: Uuid::from_u128(number.into()), timestamp }
    }
}

fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

/// A log that can be told to do what logs do on a bad day.
struct BadDay {
    log: Embedded,
    /// So many appends are stored, but the answer is lost.
    lost_answers: AtomicU32,
    /// Somebody else writes before so many appends.
    beaten: AtomicU32,
    appends: AtomicU32,
    _folder: TempDir,
}

impl BadDay {
    fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(folder.path(), Options::default()).unwrap();
        let (lost_answers, beaten, appends) = Default::default();
        Arc::new(Self { log, lost_answers, beaten, appends, _folder: folder })
    }

    fn counters(self: &Arc<Self>) -> Repository<Self, Counter> {
        Repository::new(Arc::clone(self)).with_stamps(Arc::new(Seconds::default()))
    }

    async fn store(&self, key: &AggregateKey, event_type: &str, data: &str) {
        let event = self.log.new_event(key.clone(), event_type, data);
        self.log.append(Append::any(vec![event])).await.unwrap();
    }
}

fn take_one(left: &AtomicU32) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl EventStore for BadDay {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        async move {
            self.appends.fetch_add(1, Ordering::Relaxed);
            if take_one(&self.beaten) {
                let key = append.events[0].aggregate.clone();
                let other = self.log.new_event(key, "Counted", r#"{"by":100}"#);
                self.log.append(Append::any(vec![other])).await?;
            }
            let outcome = self.log.append(append).await?;
            if take_one(&self.lost_answers) {
                return Err(AppendError::OutcomeUnknown("the answer is lost".to_owned()));
            }
            Ok(outcome)
        }
        .boxed()
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.log.append_system(append)
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        self.log.read(request)
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

fn context() -> EventContext {
    EventContext::new()
}

fn key(id: &str) -> AggregateKey {
    AggregateKey::new(Counter::TYPE, id)
}

#[test]
fn an_aggregate_is_raised_saved_and_loaded() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        let mut counter = counters.load("a").await.unwrap();
        assert_eq!((counter.version(), counter.state().count), (Version(0), 0));
        counter.raise_all(vec![counted(2), counted(3)]).unwrap();
        assert_eq!((counter.version(), counter.state().count), (Version(0), 5));
        assert_eq!(counter.uncommitted_events(), [counted(2), counted(3)]);
        let outcome = counters.save(&mut counter, &context()).await.unwrap().unwrap();
        assert_eq!(outcome.positions, [Position(1), Position(2)]);
        assert_eq!(counter.version(), Version(2));
        assert!(counter.uncommitted_events().is_empty());
        counter.raise(counted(4)).unwrap();
        counters.save(&mut counter, &context()).await.unwrap();
        let loaded = counters.load("a").await.unwrap();
        assert_eq!((loaded.version(), loaded.state()), (Version(3), counter.state()));
        assert_eq!(counters.load("b").await.unwrap().version(), Version(0));
    });
}

#[test]
fn an_aggregate_of_many_pages_is_loaded_whole() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        let mut counter = Root::<Counter>::new("a");
        let mut other = Root::<Counter>::new("b");
        for _ in 0..3 {
            counter.raise_all((0..700).map(counted).collect()).unwrap();
            other.raise_all(vec![counted(1); 50]).unwrap();
            counters.save(&mut counter, &context()).await.unwrap();
            counters.save(&mut other, &context()).await.unwrap();
        }
        let loaded = counters.load("a").await.unwrap();
        assert_eq!(loaded.version(), Version(2_100));
        assert_eq!(loaded.state().count, 3 * (0..700).sum::<u64>());
    });
}

#[test]
fn nothing_raised_is_nothing_saved() {
    block_on(async {
        let log = BadDay::new();
        let mut counter = Root::<Counter>::new("a");
        assert_eq!(log.counters().save(&mut counter, &context()).await, Ok(None));
        let decided = log.counters().execute("a", &context(), |_| Ok::<_, ()>(Vec::new())).await;
        assert!(decided.unwrap().outcome.is_none());
        assert_eq!(log.appends.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn a_save_at_an_older_version_is_a_conflict_and_keeps_what_was_raised() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        let mut first = counters.load("a").await.unwrap();
        let mut second = counters.load("a").await.unwrap();
        first.raise(counted(1)).unwrap();
        second.raise(counted(2)).unwrap();
        counters.save(&mut first, &context()).await.unwrap();
        let error = counters.save(&mut second, &context()).await.unwrap_err();
        assert!(error.is_conflict(), "{error}");
        let expected = ExpectedVersion::Exact(Version(0));
        let conflict = VersionConflict { key: key("a"), expected, actual: Version(1) };
        assert_eq!(error, SaveError::Append(AppendError::Conflict(vec![conflict])));
        assert_eq!(second.uncommitted_events(), [counted(2)]);
    });
}

#[test]
fn a_decision_is_made_again_on_the_new_state_after_a_conflict() {
    block_on(async {
        let log = BadDay::new();
        log.beaten.store(2, Ordering::Relaxed);
        let decided = log.counters().execute("a", &context(), |counter| counter.count(1_000)).await;
        let counter = decided.unwrap().root;
        assert_eq!((counter.version(), counter.state().count), (Version(3), 201));
        log.beaten.store(1, Ordering::Relaxed);
        let refused = log.counters().execute("a", &context(), |counter| counter.count(300)).await;
        assert_eq!(refused.unwrap_err(), ExecuteError::Refused(LimitReached));
    });
}

#[test]
fn a_decision_is_tried_again_a_bounded_number_of_times() {
    block_on(async {
        for retries in [0, 3] {
            let log = BadDay::new();
            log.beaten.store(100, Ordering::Relaxed);
            let counters = log.counters().with_conflict_retries(retries);
            let error = counters.execute("a", &context(), |counter| counter.count(u64::MAX)).await;
            assert!(error.unwrap_err().is_conflict());
            assert_eq!(log.appends.load(Ordering::Relaxed), retries + 1);
        }
    });
}

#[test]
fn many_writers_of_one_aggregate_count_each_once() {
    let log = BadDay::new();
    let counters: Repository<_, Counter> =
        Repository::new(Arc::clone(&log)).with_conflict_retries(u32::MAX);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let counters = counters.clone();
            scope.spawn(move || {
                for _ in 0..25 {
                    let decide = |counter: &Counter| counter.count(90);
                    match block_on(counters.execute("a", &context(), decide)) {
                        Ok(_) | Err(ExecuteError::Refused(LimitReached)) => {}
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    let counter = block_on(counters.load("a")).unwrap();
    assert_eq!((counter.version(), counter.state().count), (Version(90), 90));
}

#[test]
fn a_save_whose_answer_was_lost_is_saved_again_and_stored_once() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        let mut counter = counters.load("a").await.unwrap();
        counter.raise_all(vec![counted(1), counted(2)]).unwrap();
        log.lost_answers.store(1, Ordering::Relaxed);
        let error = counters.save(&mut counter, &context()).await.unwrap_err();
        assert!(matches!(error, SaveError::Append(ref error) if error.is_outcome_unknown()));
        assert_eq!(counter.uncommitted_events().len(), 2);
        let outcome = counters.save(&mut counter, &context()).await.unwrap().unwrap();
        assert!(outcome.duplicate);
        assert_eq!(counter.version(), Version(2));
        counter.raise(counted(4)).unwrap();
        counters.save(&mut counter, &context()).await.unwrap();
        let loaded = counters.load("a").await.unwrap();
        assert_eq!((loaded.version(), loaded.state().count), (Version(3), 7));
    });
}

#[test]
fn aggregates_of_several_types_are_saved_all_or_none() {
    block_on(async {
        let log = BadDay::new();
        let stamps = Seconds::default();
        let mut counter = Root::<Counter>::new("a");
        let mut word = Root::<Word>::new("a");
        counter.raise(counted(1)).unwrap();
        word.raise(untyped("Hello", json!({}))).unwrap();
        let roots: &mut [&mut dyn Uncommitted] = &mut [&mut counter, &mut word];
        let outcome = save_all(&*log, &stamps, &context(), roots).await.unwrap().unwrap();
        assert_eq!(outcome.positions, [Position(1), Position(2)]);

        log.store(&key("a"), "Counted", r#"{"by":5}"#).await;
        word.raise(untyped("Again", json!({}))).unwrap();
        let roots: &mut [&mut dyn Uncommitted] = &mut [&mut word, &mut counter];
        let error = save_all(&*log, &stamps, &context(), roots).await.unwrap_err();
        assert!(error.is_conflict(), "the counter raised nothing, but its version is checked");
        let words = Repository::<_, Word>::new(Arc::clone(&log));
        let stored = words.load("a").await.unwrap();
        assert_eq!((stored.version(), stored.state().0.as_str()), (Version(1), "Hello"));
        assert_eq!((word.version(), word.uncommitted_events().len()), (Version(1), 1));
    });
}

#[test]
fn a_whole_transfer_is_tried_again_after_a_conflict() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        log.beaten.store(2, Ordering::Relaxed);
        let transfer = || async {
            let mut from = counters.load("from").await.unwrap();
            let mut to = counters.load("to").await.unwrap();
            from.raise(counted(1)).unwrap();
            to.raise(counted(2)).unwrap();
            let roots: &mut [&mut dyn Uncommitted] = &mut [&mut from, &mut to];
            save_all(&*log, &SystemStamps, &context(), roots).await
        };
        retry_conflicts(2, transfer).await.unwrap();
        assert_eq!(counters.load("from").await.unwrap().state().count, 201);
        assert_eq!(counters.load("to").await.unwrap().state().count, 2);
    });
}

#[test]
fn the_past_is_as_it_was() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        for id in ["a", "b", "a", "b", "a"] {
            counters.execute(id, &context(), |counter| counter.count(9)).await.unwrap();
        }
        let at = |at| counters.state_at("a", at);
        for (version, position) in [(0, 0), (1, 1), (2, 3), (3, 5)] {
            let then = at(At::Version(Version(version))).await.unwrap();
            assert_eq!((then.state.count, then.position), (version, Position(position)));
        }
        for (position, count) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (99, 3)] {
            let then = at(At::Position(Position(position))).await.unwrap();
            assert_eq!((then.state.count, then.version), (count, Version(count)), "{position}");
        }
        for (second, count) in [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (99, 3)] {
            let then = at(At::Timestamp(seconds(second))).await.unwrap();
            assert_eq!(then.state.count, count, "{second}");
        }
        let error = at(At::Version(Version(4))).await.unwrap_err();
        let (given, actual) = (Version(4), Version(3));
        assert_eq!(error, LoadError::NoSuchVersion { key: key("a"), given, actual });
    });
}

#[test]
fn the_past_ends_before_the_first_event_that_is_younger() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        for second in [10, 30, 20] {
            let late = context().happened_at(seconds(second));
            counters.execute("a", &late, |counter| counter.count(9)).await.unwrap();
        }
        for (second, count) in [(9, 0), (10, 1), (25, 1), (30, 3)] {
            let then = counters.state_at("a", At::Timestamp(seconds(second))).await.unwrap();
            assert_eq!(then.state.count, count, "{second}");
        }
        let history = log.log.read(ReadRequest::default()).next_batch().await.unwrap();
        for (record, count) in history.iter().zip([1, 2, 3]) {
            let known = counters.state_at("a", At::Recorded(record.recorded_at())).await.unwrap();
            assert!(known.state.count >= count);
        }
        let nothing = counters.state_at("a", At::Recorded(seconds(0))).await.unwrap();
        assert_eq!(nothing.version, Version(0));
    });
}

#[test]
fn an_event_that_the_state_cannot_take_is_reported_with_its_place() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        counters.execute("a", &context(), |counter| counter.count(9)).await.unwrap();
        log.store(&key("b"), "Counted", r#"{"by":1}"#).await;
        log.store(&key("a"), "Counted", r#"{"by":"two"}"#).await;
        match counters.load("a").await.unwrap_err() {
            LoadError::Fold(error) => {
                assert_eq!((error.version, error.position), (Version(2), Position(3)));
                let text = error.to_string();
                for part in ["Counter/a", "position 3", "Counted", "`by` is no number"] {
                    assert!(text.contains(part), "{part} is not in: {text}");
                }
            }
            other => panic!("{other}"),
        }
        assert_eq!(counters.state_at("a", At::Position(Position(2))).await.unwrap().state.count, 1);
        let refused = counters.execute("a", &context(), |counter| counter.count(9)).await;
        assert!(matches!(refused, Err(ExecuteError::Load(LoadError::Fold(_)))));
    });
}

#[test]
fn a_record_that_is_no_event_is_reported_with_its_place() {
    block_on(async {
        let log = BadDay::new();
        let mut event = log.log.new_event(key("a"), "Counted", [0xff]);
        event.content_type = "image/png".to_owned();
        log.append(Append::any(vec![event])).await.unwrap();
        match log.counters().load("a").await.unwrap_err() {
            LoadError::Decode(error) => {
                assert_eq!(error.position, Position(1));
                assert_eq!(error.problem, DecodeProblem::NotJson { given: "image/png".to_owned() });
            }
            other => panic!("{other}"),
        }
    });
}

#[test]
fn a_state_takes_only_the_next_event_of_its_own() {
    block_on(async {
        let log = BadDay::new();
        for id in ["a", "a", "b"] {
            log.store(&key(id), "Counted", r#"{"by":1}"#).await;
        }
        let history = log.log.read(ReadRequest::default()).next_batch().await.unwrap();
        let refused = |records: &[&Record]| {
            let mut folded = Folded::<Counter>::default();
            records.iter().find_map(|record| folded.take(&key("a"), record).err())
        };
        let (first, second, of_another) = (&history[0], &history[1], &history[2]);
        assert_eq!(refused(&[first, second]), None);
        for wrong in [vec![second], vec![first, first], vec![of_another]] {
            assert!(matches!(refused(&wrong), Some(LoadError::NotTheNext { .. })), "{wrong:?}");
        }
    });
}

#[test]
fn an_aggregate_that_contradicts_itself_saves_nothing() {
    block_on(async {
        let log = BadDay::new();
        let decide = |_: &Counter| Ok::<_, LimitReached>(vec![counted(1), untyped("X", json!({}))]);
        let error = log.counters().execute("a", &context(), decide).await.unwrap_err();
        assert!(matches!(error, ExecuteError::Contradiction { .. }), "{error}");
        assert_eq!(log.appends.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn metadata_is_carried_through_and_a_cause_goes_on() {
    block_on(async {
        let log = BadDay::new();
        let counters = log.counters();
        let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = EventContext::new()
            .by_user(Uuid::from_u128(5))
            .correlated("order 1")
            .caused_by_command("click")
            .from_ip([192, 0, 2, 1].into())
            .user_agent("agent/1.0")
            .traceparent(traceparent.parse().unwrap())
            .custom("tenant", "north")
            .custom("attempt", 2);
        counters.execute("a", &context, |counter| counter.count(9)).await.unwrap();
        let first = log.log.read(ReadRequest::default()).next_batch().await.unwrap().remove(0);
        assert_eq!(first.user_id(), Some(Uuid::from_u128(5)));
        assert_eq!((first.correlation_id(), first.causation_id()), ("order 1", "click"));
        assert_eq!((first.ip_address(), first.user_agent()), ("192.0.2.1", "agent/1.0"));
        assert_eq!(first.traceparent(), traceparent);
        assert_eq!(first.custom(), br#"{"attempt":2,"tenant":"north"}"#);

        let caused = EventContext::caused_by(&first).metadata().unwrap();
        assert_eq!(caused.causation_id, first.event_id().to_string());
        assert_eq!(caused.correlation_id, "order 1");
        assert_eq!((caused.user_id, caused.custom.as_slice()), (None, &[][..]));
    });
}

#[test]
fn a_cause_without_a_correlation_begins_one() {
    let log = BadDay::new();
    block_on(log.store(&key("a"), "Counted", r#"{"by":1}"#));
    let cause = block_on(log.log.read(ReadRequest::default()).next_batch()).unwrap().remove(0);
    let caused = EventContext::caused_by(&cause).metadata().unwrap();
    assert_eq!(caused.correlation_id, cause.event_id().to_string());
    assert_eq!(caused.causation_id, cause.event_id().to_string());
}

#[test]
fn the_nil_user_is_refused_rather_than_stored_as_nobody() {
    let log = BadDay::new();
    let nobody = context().by_user(Uuid::nil());
    let refused = block_on(log.counters().execute("a", &nobody, |counter| counter.count(9)));
    assert_eq!(refused.unwrap_err(), ExecuteError::Save(EncodeError::NilUser.into()));
}

#[test]
fn a_store_may_be_a_trait_object_and_futures_may_move_between_threads() {
    fn sendable<T: Send>(future: T) -> T {
        future
    }
    let store: Arc<dyn EventStore> = BadDay::new();
    let counters = Repository::<dyn EventStore, Counter>::new(store);
    let context = context();
    let decided = sendable(counters.execute("a", &context, |counter| counter.count(9)));
    assert_eq!(block_on(decided).unwrap().root.version(), Version(1));
}

#[test]
fn many_loads_run_together() {
    let log = BadDay::new();
    let counters = log.counters();
    let ids: Vec<String> = (0..20).map(|id| id.to_string()).collect();
    let context = context();
    let all = ids.iter().map(|id| counters.execute(id, &context, |counter| counter.count(9)));
    for decided in block_on(join_all(all)) {
        assert_eq!(decided.unwrap().root.version(), Version(1));
    }
}
