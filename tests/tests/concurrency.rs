//! Many at once: writers that contend, subscribers that follow, queues that are full, and a log
//! that is dropped under them.
#![expect(clippy::unwrap_used, reason = "a failure is a panic with its reason")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::scope;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{Either, join_all, select};
use futures::task::noop_waker;
use futures::{FutureExt, StreamExt};
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_client::{Embedded, EventStore, LogState, Options, Subscription};
use quipu_engine::commit::listeners::Listener;
use quipu_engine::{Access, DiskStorage, Environment, EventLog, Origin, System};
use quipu_tests::events::event;
use quipu_tests::faulty_disk::{Fault, Faults, FaultyDisk, Operation};
use quipu_tests::host_log;
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::patience::PATIENCE;
use quipu_tests::stepped_log::SteppedLog;
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, ExpectedVersion, Filter, NewEvent, Position,
    ReadRequest, Record, SubscribeRequest, SubscriptionItem, Version,
};
use tempfile::TempDir;

fn small() -> Options {
    let mut options = Options::default().with_segment_bytes(64 * 1024);
    options.log.witness_after_us = 10_000_000;
    options
}

fn call(id: u64) -> AggregateKey {
    AggregateKey::new("Call", id.to_string())
}

fn exact(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exact(Version(version))
}

fn single(id: u64, key: &AggregateKey) -> Append {
    Append::any(vec![event(id.into(), key, "Created")])
}

fn all(log: &Embedded) -> Vec<Record> {
    let filter = Filter { include_system: true, ..Filter::default() };
    let request = ReadRequest { filter, ..ReadRequest::default() };
    block_on(log.read(request).map(Result::unwrap).collect())
}

/// What `future` gives; a hang is a failure.
fn within<T>(future: impl Future<Output = T>) -> T {
    match block_on(select(Box::pin(future), Delay::new(PATIENCE))) {
        Either::Left((value, _)) => value,
        Either::Right(_) => panic!("nothing came within {PATIENCE:?}"),
    }
}

/// Small, repeatable randomness.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % sides
    }
}

mod contention {
    use super::*;

    const THREADS: u64 = 64;
    const AGGREGATES: u64 = 100;
    const ATTEMPTS: u64 = 60;

    /// What one thread was told.
    #[derive(Default)]
    struct Told {
        stored: Vec<(Append, AppendOutcome)>,
        conflicts: Vec<Conflict>,
        refused_ids: HashSet<u128>,
    }

    struct Conflict {
        key: AggregateKey,
        expected: ExpectedVersion,
        actual: Version,
        /// The newest version this thread knew to be durable before it asked.
        seen_before: Version,
    }

    /// Appends to 1 to 3 aggregates at the versions the thread believes in, and learns from what
    /// it is told.
    fn contend(log: &Embedded, thread: u64) -> Told {
        let mut dice = Dice(thread);
        let mut seen: HashMap<AggregateKey, Version> = HashMap::new();
        let mut told = Told::default();
        for attempt in 0..ATTEMPTS {
            let keys: HashSet<u64> = (0..=dice.roll(3)).map(|_| dice.roll(AGGREGATES)).collect();
            let mut append = Append::default();
            for (number, key) in keys.into_iter().map(call).enumerate() {
                let version = seen.get(&key).copied().unwrap_or_default();
                let id = 1 + u128::from((thread * ATTEMPTS + attempt) * 10 + number as u64);
                append.events.push(event(id, &key, "Created"));
                append = append.expect(key, ExpectedVersion::Exact(version));
            }
            match within(log.append(append.clone())) {
                Ok(outcome) => {
                    seen.extend(outcome.versions.iter().cloned());
                    told.stored.push((append, outcome));
                }
                Err(AppendError::Conflict(conflicts)) => {
                    told.refused_ids.extend(append.events.iter().map(|it| it.event_id.as_u128()));
                    for conflict in conflicts {
                        let (key, actual) = (conflict.key, conflict.actual);
                        let seen_before = seen.insert(key.clone(), actual).unwrap_or_default();
                        let expected = conflict.expected;
                        told.conflicts.push(Conflict { key, expected, actual, seen_before });
                    }
                }
                Err(other) => panic!("{other}"),
            }
        }
        told
    }

    #[test]
    fn contended_appends_are_exact_and_every_conflict_is_justified() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(folder.path(), small()).unwrap();
        let told: Mutex<Vec<Told>> = Mutex::default();
        scope(|scope| {
            for thread in 0..THREADS {
                let (log, told) = (&log, &told);
                scope.spawn(move || {
                    let mine = contend(log, thread);
                    told.lock().push(mine);
                });
            }
        });
        let told = told.into_inner();
        check(&all(&log), &told);
        drop(log);
        let log = Embedded::open(folder.path(), small()).unwrap();
        check(&all(&log), &told);
    }

    fn check(records: &[Record], told: &[Told]) {
        let mut versions: BTreeMap<AggregateKey, u64> = BTreeMap::new();
        let mut by_id: HashMap<u128, &Record> = HashMap::new();
        for (at, record) in (1..).zip(records) {
            assert_eq!(record.position(), Position(at));
            let version = versions.entry(record.aggregate()).or_default();
            *version += 1;
            assert_eq!(record.version(), Version(*version), "no gap in {}", record.aggregate());
            assert!(by_id.insert(record.event_id().as_u128(), record).is_none(), "ids are unique");
        }
        let mut stored = 0;
        for (append, outcome) in told.iter().flat_map(|told| &told.stored) {
            assert!(!outcome.duplicate);
            for (event, position) in append.events.iter().zip(&outcome.positions) {
                stored += 1;
                let record = by_id[&event.event_id.as_u128()];
                assert_eq!(record.position(), *position);
                let versions: &Vec<_> = &outcome.versions;
                assert!(versions.contains(&(record.aggregate(), record.version())));
                let expected = ExpectedVersion::Exact(Version(record.version().0 - 1));
                assert!(append.expectations.contains(&(record.aggregate(), expected)));
            }
            let first = outcome.positions[0].0;
            let contiguous: Vec<Position> =
                (first..).take(outcome.positions.len()).map(Position).collect();
            assert_eq!(outcome.positions, contiguous, "an append is one piece");
        }
        assert_eq!(stored, records.len(), "what is stored was acknowledged, and the reverse");
        let conflicts: Vec<&Conflict> = told.iter().flat_map(|told| &told.conflicts).collect();
        assert!(conflicts.len() > 100, "only {} conflicts: no contention", conflicts.len());
        for conflict in conflicts {
            let last = versions.get(&conflict.key).copied().unwrap_or_default();
            assert!(!conflict.expected.is_met_by(conflict.actual));
            assert!(conflict.actual.0 <= last, "a version that never was");
            assert!(conflict.actual >= conflict.seen_before, "a version that is long past");
        }
        let refused = told.iter().flat_map(|told| &told.refused_ids);
        assert!(refused.into_iter().all(|id| !by_id.contains_key(id)), "refused is not stored");
    }
}

mod following {
    use super::*;

    const WRITERS: u64 = 8;
    const EACH: u64 = 500;
    const END: u64 = WRITERS * EACH;

    fn written(writer: u64, number: u64) -> NewEvent {
        let event_type = if number.is_multiple_of(3) { "Third" } else { "Other" };
        let mut event = event((1 + writer * EACH + number).into(), &call(writer), event_type);
        event.metadata.correlation_id = format!("business {}", number % 7);
        event
    }

    fn write(log: &Embedded, writer: u64) {
        let mut number = 0;
        let mut dice = Dice(writer);
        while number < EACH {
            let count = (1 + dice.roll(4)).min(EACH - number);
            let events = (number..number + count).map(|number| written(writer, number));
            within(log.append(Append::any(events.collect()))).unwrap();
            number += count;
        }
    }

    /// Follows until it is safe up to the end; checks order and durability of each item.
    fn follow(log: &Embedded, filter: &Filter) -> Vec<Record> {
        let request = SubscribeRequest { filter: filter.clone(), ..SubscribeRequest::default() };
        let mut subscription = log.subscribe(request).unwrap();
        let watermark = &log.log().shared().watermark;
        let (mut records, mut safe) = (Vec::<Record>::new(), 0);
        while safe < END {
            for item in within(subscription.next_batch()).unwrap() {
                let at = match item {
                    SubscriptionItem::Event(record) => {
                        let last = records.last().map_or(0, |last| last.position().0);
                        assert!(record.position().0 > last, "once, in order");
                        records.push(record);
                        records[records.len() - 1].position()
                    }
                    SubscriptionItem::Checkpoint(at)
                    | SubscriptionItem::CaughtUp(at)
                    | SubscriptionItem::FellBehind(at) => at,
                    other => panic!("{other:?}"),
                };
                assert!(at <= watermark.current(), "{at} is not durable");
                assert!(at.0 >= safe, "{at} goes back behind {safe}");
                safe = at.0;
            }
        }
        records
    }

    fn filters() -> [Filter; 4] {
        [
            Filter::default(),
            Filter { event_types: vec!["Third".to_owned()], ..Filter::default() },
            Filter::aggregate(call(3)),
            Filter { correlation_id: Some("business 5".to_owned()), ..Filter::default() },
        ]
    }

    #[test]
    fn subscribers_see_each_record_once_in_order_across_the_handover_to_live() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(folder.path(), small()).unwrap();
        let followed: Mutex<Vec<(Filter, Vec<Record>)>> = Mutex::default();
        scope(|scope| {
            for filter in filters() {
                let (log, followed) = (&log, &followed);
                // Twice: one begins before anything is written, one in the middle of it.
                for begin_at in [0, END / 2] {
                    let filter = filter.clone();
                    scope.spawn(move || {
                        within(async {
                            while log.log().shared().watermark.current().0 < begin_at {
                                Delay::new(Duration::from_millis(1)).await;
                            }
                        });
                        let records = follow(log, &filter);
                        followed.lock().push((filter, records));
                    });
                }
            }
            for writer in 0..WRITERS {
                let log = &log;
                scope.spawn(move || write(log, writer));
            }
        });
        let stored = all(&log);
        assert_eq!(stored.len() as u64, END);
        let followed = followed.into_inner();
        assert_eq!(followed.len(), 8);
        for (filter, records) in followed {
            let wanted: Vec<&Record> = stored.iter().filter(|it| filter.matches(it)).collect();
            assert!(!wanted.is_empty());
            assert_eq!(records.iter().collect::<Vec<_>>(), wanted, "{filter:?}");
        }
    }

    #[test]
    fn a_subscriber_that_is_dropped_and_begins_again_misses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(folder.path(), small()).unwrap();
        scope(|scope| {
            for writer in 0..WRITERS {
                let log = &log;
                scope.spawn(move || write(log, writer));
            }
            let mut after = 0;
            while after < END {
                let start = quipu_types::StartAfter::Position(Position(after));
                let request = SubscribeRequest { after: start, ..SubscribeRequest::default() };
                let mut subscription = log.subscribe(request).unwrap();
                let batch = within(subscription.next_batch()).unwrap();
                for item in batch {
                    if let SubscriptionItem::Event(record) = item {
                        after += 1;
                        assert_eq!(record.position().0, after);
                    }
                }
            }
        });
    }
}

/// A log whose disk can be held.
struct Held {
    faults: Arc<Faults>,
    log: Embedded,
    /// Dropped last.
    _folder: TempDir,
}

impl Held {
    fn open(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let faults = Arc::new(Faults::default());
        let disk =
            DiskStorage::open(folder.path(), Access::ReadWrite, options.backend, options.mapping);
        let storage = FaultyDisk::new(disk.unwrap(), Arc::clone(&faults));
        let env = Environment {
            storage: Arc::new(storage),
            clock: Arc::new(System),
            entropy: Arc::new(System),
        };
        let log = Embedded::open_on(env, options).unwrap();
        Self { faults, log, _folder: folder }
    }

    /// Two groups wait for the disk, one append each; what comes now is queued.
    fn hold_two(&self) -> Vec<impl Future<Output = Result<AppendOutcome, AppendError>> + '_> {
        self.faults.pause();
        (1..=2_u64)
            .map(|id| {
                let append = self.log.try_append(&single(id, &call(1))).unwrap();
                self.faults.wait_for_paused(usize::try_from(id).unwrap());
                append
            })
            .collect()
    }
}

impl Drop for Held {
    /// A log on a held disk cannot be closed: a failed test would hang.
    fn drop(&mut self) {
        self.faults.resume();
    }
}

fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    future.poll_unpin(&mut Context::from_waker(&noop_waker()))
}

mod queue {
    use super::*;

    const QUEUED: u64 = 4;

    fn narrow() -> Options {
        let mut options = small();
        options.log.queue_appends = usize::try_from(QUEUED).unwrap();
        options
    }

    /// Two in flight (ids 1, 2) and a full queue (ids 3 to 6).
    fn fill(
        held: &Held,
    ) -> Vec<futures::future::BoxFuture<'_, Result<AppendOutcome, AppendError>>> {
        let mut all: Vec<_> = held.hold_two().into_iter().map(FutureExt::boxed).collect();
        for id in 3..3 + QUEUED {
            all.push(held.log.try_append(&single(id, &call(2))).unwrap());
        }
        all
    }

    #[test]
    fn a_full_queue_is_said_by_try_append_and_waited_for_by_append() {
        let held = Held::open(narrow());
        let let_in = fill(&held);
        let refused = held.log.try_append(&single(7, &call(6))).map(drop);
        let Err(AppendError::Overloaded { queued_bytes, queued_appends }) = refused else {
            panic!("the queue is full, yet {refused:?}")
        };
        assert_eq!(queued_appends as u64, QUEUED);
        assert_eq!((queued_bytes, queued_appends), held.log.status().unwrap().queued);
        assert!(queued_bytes > 0);
        let mut waiting: Vec<_> = (7..17).map(|id| held.log.append(single(id, &call(3)))).collect();
        assert!(waiting.iter_mut().all(|append| poll_once(append).is_pending()));
        let status = held.log.status().unwrap();
        assert_eq!(status.queued.1 as u64, QUEUED, "those who wait are not in the queue");
        assert_eq!(status.last_position, Position(0));
        held.faults.resume();
        let outcomes = within(join_all(let_in.into_iter().chain(waiting)));
        for (position, outcome) in (1..).zip(outcomes) {
            assert_eq!(
                outcome.unwrap().positions,
                [Position(position)],
                "first come, first served"
            );
        }
    }

    /// The waker of an executor that runs its tasks at once: it comes back into the log.
    struct Reentrant {
        log: Weak<EventLog>,
        answered: Sender<Result<(), AppendError>>,
    }

    impl Wake for Reentrant {
        fn wake(self: Arc<Self>) {
            let log = self.log.upgrade().unwrap();
            assert_eq!(log.known(), (1, 1));
            let append = log.prepare(&single(9, &call(9)), Origin::Client).unwrap();
            self.answered.send(log.try_submit(append, Box::new(|_| {}))).unwrap();
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread that may hang")]
    fn a_waker_may_come_back_into_the_log() {
        let (answered, answers) = channel();
        // Not joined: a deadlock shall fail the test, not hang it.
        std::thread::spawn(move || {
            let mut options = small().log;
            options.queue_appends = 1;
            let env = MemoryDisk::default().environment();
            let log = Arc::new(EventLog::open_stepped(env, options, &mut |_, _| {}).unwrap());
            let prepare = |id| log.prepare(&single(id, &call(1)), Origin::Client).unwrap();
            log.try_submit(prepare(1), Box::new(|_| {})).unwrap();
            let mut waiting = log.submit(prepare(2), Box::new(|_| {})).unwrap();
            let waker = Waker::from(Arc::new(Reentrant { log: Arc::downgrade(&log), answered }));
            assert!(waiting.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            log.step();
        });
        let answer = answers.recv_timeout(PATIENCE).expect("woken, and no deadlock");
        assert!(matches!(answer, Err(AppendError::Overloaded { .. })), "{answer:?}");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread that may hang")]
    fn who_is_woken_by_an_advance_may_come_back_into_the_log() {
        let (answered, answers) = channel();
        // Not joined: a deadlock shall fail the test, not hang it.
        std::thread::spawn(move || {
            let env = MemoryDisk::default().environment();
            let log = SteppedLog::open(env, small().log).unwrap();
            let weak = Arc::downgrade(log.log());
            let waker = Waker::from(Arc::new(Reentrant { log: weak, answered }));
            let mut advanced = log.log().shared().watermark.listen();
            assert!(advanced.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            log.append_each(&[single(1, &call(1))]);
        });
        answers.recv_timeout(PATIENCE).expect("woken, and no deadlock").unwrap();
    }

    /// Polls a subscription of the same log, and drops one, as an executor does that runs its tasks
    /// at once.
    struct Subscriber {
        log: Weak<EventLog>,
        other: Mutex<Option<Listener>>,
        woken: Sender<()>,
    }

    impl Wake for Subscriber {
        fn wake(self: Arc<Self>) {
            let log = self.log.upgrade().unwrap();
            drop(self.other.lock().take());
            let mut next = log.shared().watermark.listen();
            assert!(next.poll_unpin(&mut Context::from_waker(&noop_waker())).is_pending());
            self.woken.send(()).unwrap();
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread that may hang")]
    fn who_is_woken_by_an_advance_may_subscribe_and_let_subscriptions_go() {
        let (sender, woken) = channel();
        // Not joined: a deadlock shall fail the test, not hang it.
        std::thread::spawn(move || {
            let env = MemoryDisk::default().environment();
            let log = SteppedLog::open(env, small().log).unwrap();
            let listen = || log.log().shared().watermark.listen();
            let mut listeners = Vec::new();
            for _ in 0..3 {
                let mut other = listen();
                assert!(other.poll_unpin(&mut Context::from_waker(&noop_waker())).is_pending());
                let (weak, other) = (Arc::downgrade(log.log()), Mutex::new(Some(other)));
                let subscriber = Subscriber { log: weak, other, woken: sender.clone() };
                let waker = Waker::from(Arc::new(subscriber));
                listeners.push(listen());
                let listener = listeners.last_mut().unwrap();
                assert!(listener.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            }
            log.append_each(&[single(1, &call(1))]);
        });
        for _ in 0..3 {
            woken.recv_timeout(PATIENCE).expect("woken, and no deadlock");
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a thread that may hang")]
    fn a_hosts_log_may_ask_for_the_status_of_the_log_that_has_failed() {
        let (sender, answered) = channel();
        // Not joined: a deadlock shall fail the test, not hang it.
        std::thread::spawn(move || {
            let faults = Arc::<Faults>::default();
            let env = MemoryDisk::default().environment();
            let storage = Arc::new(FaultyDisk::before(env.storage, Arc::clone(&faults)));
            let log = SteppedLog::open(Environment { storage, ..env }, small().log).unwrap();
            let weak = Arc::downgrade(log.log());
            let host = host_log::that_calls(move || {
                let log = weak.upgrade().unwrap();
                sender.send(log.status().unwrap().state).unwrap();
            });
            faults.fail_all(Operation::Submit, Fault::Refused(ErrorKind::Other));
            let append = log.log().prepare(&single(1, &call(1)), Origin::Client).unwrap();
            log.log().try_submit(append, Box::new(|_| {})).unwrap();
            tracing::subscriber::with_default(host, || log.run());
        });
        let state = answered.recv_timeout(PATIENCE).expect("told, and no deadlock");
        assert!(matches!(state, LogState::Failed(_)), "{state:?}");
    }

    #[test]
    fn an_append_that_waits_for_room_is_withdrawn_by_dropping_it() {
        let held = Held::open(narrow());
        let let_in = fill(&held);
        let mut waiting: Vec<_> = (7..=9).map(|id| held.log.append(single(id, &call(3)))).collect();
        assert!(waiting.iter_mut().all(|append| poll_once(append).is_pending()));
        drop(waiting.remove(1));
        held.faults.resume();
        for outcome in within(join_all(let_in.into_iter().chain(waiting))) {
            outcome.unwrap();
        }
        // A grant that nobody takes up would stop those who come later.
        within(held.log.append(single(10, &call(5)))).unwrap();
        let ids: Vec<u128> = all(&held.log).iter().map(|it| it.event_id().as_u128()).collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6, 7, 9, 10]);
    }

    #[test]
    fn who_comes_late_does_not_overtake_who_waits_for_room() {
        let held = Held::open(narrow());
        let let_in = fill(&held);
        let mut waiting: Vec<_> = (7..=9).map(|id| held.log.append(single(id, &call(3)))).collect();
        assert!(waiting.iter_mut().all(|append| poll_once(append).is_pending()));
        held.faults.resume();
        for outcome in within(join_all(let_in)) {
            outcome.unwrap();
        }
        // There is room by now, kept for those who wait and have not noticed yet.
        let mut late = held.log.append(single(10, &call(4)));
        assert!(poll_once(&mut late).is_pending());
        assert!(matches!(
            held.log.try_append(&single(11, &call(5))).map(drop),
            Err(AppendError::Overloaded { .. })
        ));
        let outcomes = within(join_all([late].into_iter().chain(waiting)));
        let positions: Vec<Position> =
            outcomes.into_iter().map(|outcome| outcome.unwrap().last_position()).collect();
        assert_eq!(positions, [10, 7, 8, 9].map(Position));
    }

    #[test]
    fn an_append_that_was_let_in_is_stored_though_nobody_waits_for_it() {
        let held = Held::open(small());
        drop(held.hold_two());
        held.faults.resume();
        within(held.log.append(single(3, &call(6)))).unwrap();
        assert_eq!(all(&held.log).len(), 3);
    }

    #[test]
    fn appends_of_one_task_keep_their_order_through_a_narrow_queue() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(folder.path(), narrow()).unwrap();
        scope(|scope| {
            for task in 0..4_u64 {
                let log = &log;
                scope.spawn(move || {
                    let key = call(task);
                    let appends = (0..200_u64).map(|version| {
                        let id = u128::from(1 + task * 1_000 + version);
                        let event = event(id, &key, "Created");
                        log.append(Append::one(event, exact(version)))
                    });
                    for (version, outcome) in (1..).zip(within(join_all(appends))) {
                        assert_eq!(outcome.unwrap().versions[0].1, Version(version));
                    }
                });
            }
        });
        assert_eq!(all(&log).len(), 800);
    }
}

mod durability {
    use super::*;

    fn next(subscription: &mut Subscription) -> Poll<Vec<SubscriptionItem>> {
        let mut batch = subscription.next_batch().boxed();
        poll_once(&mut batch).map(Result::unwrap)
    }

    #[test]
    fn nothing_is_seen_or_answered_before_it_is_durable() {
        let held = Held::open(small());
        let mut subscription = held.log.subscribe(SubscribeRequest::default()).unwrap();
        let first = within(subscription.next_batch()).unwrap();
        assert!(matches!(first[..], [SubscriptionItem::CaughtUp(Position(0))]), "{first:?}");
        let key = call(1);
        held.faults.pause();
        let two = vec![event(1, &key, "Created"), event(2, &key, "Created")];
        let in_flight = held.log.try_append(&Append::any(two)).unwrap();
        // One committer is held with the group; the other takes up what comes now.
        held.faults.wait_for_paused(1);
        // Answers that rest on what is in flight: a duplicate, and two kinds of refusal.
        let mut resting: Vec<_> = vec![
            held.log.append(single(1, &key)),
            held.log.append(Append::one(event(9, &key, "Created"), exact(0))),
            held.log
                .append(Append::any(vec![event(10, &key, "Created"), event(2, &key, "Created")])),
        ];
        for _ in 0..20 {
            assert!(resting.iter_mut().all(|append| poll_once(append).is_pending()));
            assert!(all(&held.log).is_empty());
            assert_eq!(within(held.log.version(&key)), Ok(Version::NONE));
            assert!(next(&mut subscription).is_pending());
            block_on(Delay::new(Duration::from_millis(2)));
        }
        held.faults.resume();
        within(in_flight).unwrap();
        let outcomes = within(join_all(resting));
        assert!(outcomes[0].as_ref().unwrap().duplicate);
        assert!(matches!(&outcomes[1], Err(AppendError::Conflict(list))
            if list[0].actual == Version(2)));
        assert!(matches!(outcomes[2], Err(AppendError::IdConflict { .. })));
        assert_eq!(all(&held.log).len(), 2);
    }
}

mod closing {
    use super::*;

    #[test]
    fn a_closed_log_answers_every_append() {
        for round in 0..10_u64 {
            let folder = tempfile::tempdir().unwrap();
            let mut options = small();
            options.log.queue_appends = 8;
            let log = Embedded::open(folder.path(), options.clone()).unwrap();
            let acknowledged: Mutex<Vec<u128>> = Mutex::default();
            scope(|scope| {
                for thread in 0..8_u64 {
                    let (log, acknowledged) = (&log, &acknowledged);
                    scope.spawn(move || {
                        for number in 0.. {
                            let id = 1 + thread * 1_000_000 + number;
                            match within(log.append(single(id, &call(thread)))) {
                                Ok(_) => acknowledged.lock().push(id.into()),
                                Err(AppendError::Closed) => return,
                                Err(other) => panic!("{other}"),
                            }
                        }
                    });
                }
                block_on(Delay::new(Duration::from_millis(5 + 3 * round)));
                log.close();
            });
            let closed = within(log.append(single(77, &call(4))));
            assert_eq!(closed, Err(AppendError::Closed));
            drop(log);
            let log = Embedded::open(folder.path(), options).unwrap();
            assert!(log.recovery_report().clean, "{}", log.recovery_report());
            let stored: Vec<u128> = all(&log).iter().map(|it| it.event_id().as_u128()).collect();
            let mut sorted = (stored.clone(), acknowledged.into_inner());
            sorted.0.sort_unstable();
            sorted.1.sort_unstable();
            assert_eq!(sorted.0, sorted.1, "closed in order: stored is what was acknowledged");
        }
    }

    #[test]
    fn a_dropped_log_answers_what_is_in_flight_and_queued() {
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let storage = DiskStorage::open(
                folder.path(),
                Access::ReadWrite,
                small().backend,
                small().mapping,
            );
            let env = Environment {
                storage: Arc::new(storage.unwrap()),
                clock: Arc::new(System),
                entropy: Arc::new(System),
            };
            let log = EventLog::open(env, small().log).unwrap();
            let answers: Arc<Mutex<Vec<bool>>> = Arc::default();
            for id in 1..=100_u64 {
                let answers = Arc::clone(&answers);
                let prepared = log.prepare(&single(id, &call(6)), Origin::Client).unwrap();
                let reply =
                    Box::new(move |result: Result<_, _>| answers.lock().push(result.is_ok()));
                log.try_submit(prepared, reply).unwrap();
            }
            drop(log);
            assert_eq!(*answers.lock(), [true; 100], "closing writes what is queued");
            let log = Embedded::open(folder.path(), small()).unwrap();
            assert_eq!(all(&log).len(), 100);
        }
    }

    #[test]
    fn a_closed_log_ends_its_subscriptions_after_what_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(folder.path(), small()).unwrap();
        within(log.append(single(1, &call(6)))).unwrap();
        let items = scope(|scope| {
            let log = &log;
            let follower = scope.spawn(move || {
                let subscription = log.subscribe(SubscribeRequest::default()).unwrap();
                within(subscription.map(|item| item.map(|_| ())).collect::<Vec<_>>())
            });
            block_on(Delay::new(Duration::from_millis(50)));
            log.close();
            follower.join().unwrap()
        });
        let ended = Err(quipu_types::ReadError::Closed);
        assert_eq!(items, [Ok(()), Ok(()), ended], "event, caught up, closed");
        assert_eq!(all(&log).len(), 1, "a closed log can still be read");
    }
}
