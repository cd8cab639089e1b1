//! The embedded log against a plain model of it: random appends, reads, subscriptions, openings.
//!
//! `PROPTEST_CASES` sets how many random histories are tried.
#![expect(clippy::unwrap_used, reason = "a failure is a panic with its reason")]
#![expect(clippy::disallowed_methods, reason = "index files are deleted behind the log's back")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use quipu_client::{Embedded, EventStore, Options, Subscription};
use quipu_engine::{Access, Clock, DiskStorage, Environment, System};
use quipu_tests::patience::block_on;
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, Direction, ExpectedVersion, Filter,
    IdConflictReason, Limits, NewEvent, Position, ReadRequest, Record, StartAfter,
    SubscribeRequest, SubscriptionItem, Timestamp, Uuid, Version, VersionConflict,
};
use tempfile::TempDir;

const AGGREGATES: u8 = 6;
const EVENT_TYPES: u8 = 3;
const CORRELATIONS: u8 = 4;
const STEPS: Range<usize> = 1..50;
const DEFAULT_CASES: u32 = 600;

type Outcome = Result<AppendOutcome, AppendError>;

/// What the log should hold, and what the last step should have answered.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Position − 1 → the event and its version.
    events: Vec<(NewEvent, Version)>,
    versions: BTreeMap<AggregateKey, Version>,
    positions: BTreeMap<Uuid, Position>,
    next_id: u128,
    outcomes: Vec<Outcome>,
}

impl Model {
    fn version(&self, key: &AggregateKey) -> Version {
        self.versions.get(key).copied().unwrap_or_default()
    }

    fn at(&self, position: Position) -> &(NewEvent, Version) {
        &self.events[usize::try_from(position.0).unwrap() - 1]
    }

    /// What was drawn, each append drawn against what those before it left: also their ids,
    /// which the log has in flight by then.
    fn append_all(&mut self, drawn: &[DrawnAppend]) -> Vec<Append> {
        self.outcomes.clear();
        let mut appends = Vec::new();
        for append in drawn {
            let append = resolve(self, append);
            if !append.events.is_empty() {
                let outcome = self.append(&append);
                self.outcomes.push(outcome);
                appends.push(append);
            }
        }
        appends
    }

    fn append(&mut self, append: &Append) -> Outcome {
        let ids = append.events.iter().map(|event| self.positions.get(&event.event_id).copied());
        let known: Vec<Option<Position>> = ids.collect();
        if let Some(first) = known.iter().position(Option::is_some) {
            return self.repeated(append, &known, first);
        }
        let mut checked: Vec<&AggregateKey> =
            append.events.iter().map(|it| &it.aggregate).collect();
        checked.extend(append.expectations.iter().map(|(key, _)| key));
        let mut conflicts: Vec<VersionConflict> = Vec::new();
        for key in checked {
            let expected = append.expectations.iter().find(|(it, _)| it == key);
            let expected = expected.map_or(ExpectedVersion::Any, |(_, expected)| *expected);
            let actual = self.version(key);
            if !meets(expected, actual) && conflicts.iter().all(|it| it.key != *key) {
                conflicts.push(VersionConflict { key: key.clone(), expected, actual });
            }
        }
        if !conflicts.is_empty() {
            return Err(AppendError::Conflict(conflicts));
        }
        Ok(self.store(append))
    }

    fn repeated(&self, append: &Append, known: &[Option<Position>], first: usize) -> Outcome {
        let conflict = |event: &NewEvent, position, reason| {
            Err(AppendError::IdConflict { event_id: event.event_id, position, reason })
        };
        if known.iter().any(Option::is_none) {
            let position = known[first].unwrap();
            return conflict(&append.events[first], position, IdConflictReason::PartlyKnown);
        }
        let positions: Vec<Position> = known.iter().copied().flatten().collect();
        let mut versions: Vec<(AggregateKey, Version)> = Vec::new();
        for (event, position) in append.events.iter().zip(&positions) {
            let (stored, version) = self.at(*position);
            if !same_content(event, stored) {
                return conflict(event, *position, IdConflictReason::OtherContent);
            }
            raise(&mut versions, &event.aggregate, *version);
        }
        Ok(AppendOutcome { duplicate: true, positions, versions })
    }

    fn store(&mut self, append: &Append) -> AppendOutcome {
        let (mut positions, mut versions) = (Vec::new(), Vec::new());
        for event in &append.events {
            let version = self.version(&event.aggregate).next();
            let position = Position(self.events.len() as u64 + 1);
            self.events.push((event.clone(), version));
            self.versions.insert(event.aggregate.clone(), version);
            self.positions.insert(event.event_id, position);
            positions.push(position);
            raise(&mut versions, &event.aggregate, version);
        }
        AppendOutcome { duplicate: false, positions, versions }
    }

    fn read(&self, request: &ReadRequest) -> Vec<u64> {
        let of_version = request.filter.aggregate.is_some();
        let forward = request.direction == Direction::Forward;
        let mut found: Vec<u64> = (1..)
            .zip(&self.events)
            .filter(|(_, (event, _))| takes(&request.filter, event))
            .filter(|(position, (_, version))| {
                let place = if of_version { version.0 } else { *position };
                request.from.is_none_or(|from| if forward { place >= from } else { place <= from })
            })
            .map(|(position, _)| position)
            .collect();
        if !forward {
            found.reverse();
        }
        found.truncate(request.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap()));
        found
    }
}

fn meets(expected: ExpectedVersion, actual: Version) -> bool {
    match expected {
        ExpectedVersion::Any => true,
        ExpectedVersion::NoStream => actual.0 == 0,
        ExpectedVersion::StreamExists => actual.0 > 0,
        ExpectedVersion::Exact(version) => version == actual,
    }
}

fn same_content(a: &NewEvent, b: &NewEvent) -> bool {
    let content = |event: &NewEvent| {
        let NewEvent { aggregate, event_type, schema_version, content_type, payload, .. } =
            event.clone();
        (aggregate, event_type, schema_version, content_type, payload)
    };
    content(a) == content(b)
}

fn raise(versions: &mut Vec<(AggregateKey, Version)>, key: &AggregateKey, version: Version) {
    match versions.iter_mut().find(|(it, _)| it == key) {
        Some((_, highest)) => *highest = version.max(*highest),
        None => versions.push((key.clone(), version)),
    }
}

fn takes(filter: &Filter, event: &NewEvent) -> bool {
    filter.aggregate.as_ref().is_none_or(|key| *key == event.aggregate)
        && (filter.event_types.is_empty() || filter.event_types.contains(&event.event_type))
        && (filter.correlation_id.as_ref()).is_none_or(|id| *id == event.metadata.correlation_id)
        && filter.since.is_none_or(|since| event.timestamp >= since)
}

/// One step, as it is drawn: what it comes to depends on what the model holds by then.
#[derive(Clone, Debug)]
enum Step {
    /// Several appends, all in flight together.
    Appends(Vec<DrawnAppend>),
    Read(ReadRequest),
    Subscribe {
        filter: Filter,
        after: Option<Index>,
    },
    Versions,
    /// The wall clock is set to so many seconds from the true time.
    SetClock(i64),
    Reopen {
        without_indexes: bool,
    },
    /// Reads beside the writer; by a new reader, or one that follows since earlier.
    Beside {
        anew: bool,
    },
}

#[derive(Clone, Debug)]
struct DrawnAppend {
    events: Vec<DrawnEvent>,
    expectations: Vec<(u8, DrawnExpectation)>,
}

#[derive(Clone, Debug)]
enum DrawnEvent {
    New {
        aggregate: u8,
        event_type: u8,
        correlation: u8,
        time: u8,
        bytes: usize,
    },
    /// An event that is stored already, perhaps with other metadata or other content.
    Known {
        which: Index,
        other_metadata: bool,
        other_content: bool,
    },
}

#[derive(Clone, Debug)]
enum DrawnExpectation {
    Fixed(ExpectedVersion),
    /// What the model holds, plus this.
    Off(u64),
}

fn key(aggregate: u8) -> AggregateKey {
    AggregateKey::new(
        if aggregate.is_multiple_of(2) { "Call" } else { "Account" },
        aggregate.to_string(),
    )
}

fn new_event(id: u128, drawn: &DrawnEvent, model: &Model) -> Option<NewEvent> {
    match drawn {
        DrawnEvent::New { aggregate, event_type, correlation, time, bytes } => {
            let payload = format!("{{\"n\":{id},\"x\":\"{}\"}}", "x".repeat(*bytes));
            let time = Timestamp::from_micros(i64::from(*time) * 1_000_000);
            let event_type = format!("Type{event_type}");
            let id = Uuid::from_u128(id);
            let mut event = NewEvent::json(id, key(*aggregate), event_type, time, payload);
            event.metadata.correlation_id = correlation_id(*correlation);
            Some(event)
        }
        DrawnEvent::Known { which, other_metadata, other_content } => {
            let stored = (!model.events.is_empty()).then(|| which.get(&model.events));
            let mut event = stored?.0.clone();
            if *other_metadata {
                event.metadata.user_agent.push('x');
                event.timestamp = Timestamp::from_micros(1);
            }
            if *other_content {
                event.payload = b"\"other\"".to_vec();
            }
            Some(event)
        }
    }
}

fn correlation_id(number: u8) -> String {
    if number == 0 { String::new() } else { format!("business {number}") }
}

/// The append that a drawn one comes to; ids are given in order, so that both sides agree.
fn resolve(model: &mut Model, drawn: &DrawnAppend) -> Append {
    let mut append = Append::default();
    for event in &drawn.events {
        model.next_id += 1;
        let event = new_event(model.next_id, event, model);
        let is_new =
            |event: &NewEvent| append.events.iter().all(|it| it.event_id != event.event_id);
        if let Some(event) = event.filter(is_new) {
            append.events.push(event);
        }
    }
    for (aggregate, expectation) in &drawn.expectations {
        let key = key(*aggregate);
        let expected = match expectation {
            DrawnExpectation::Fixed(expected) => *expected,
            DrawnExpectation::Off(off) => {
                ExpectedVersion::Exact(Version(model.version(&key).0 + off))
            }
        };
        if append.expectations.iter().all(|(it, _)| *it != key) {
            append.expectations.push((key, expected));
        }
    }
    append
}

fn drawn_event() -> impl Strategy<Value = DrawnEvent> {
    (0..AGGREGATES, 0..EVENT_TYPES, 0..CORRELATIONS, any::<u8>(), 0_usize..3_000).prop_map(
        |(aggregate, event_type, correlation, time, bytes)| DrawnEvent::New {
            aggregate,
            event_type,
            correlation,
            time,
            bytes,
        },
    )
}

fn known_event() -> impl Strategy<Value = DrawnEvent> {
    (any::<Index>(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(
        |(which, other_metadata, other_content)| DrawnEvent::Known {
            which,
            other_metadata,
            other_content,
        },
    )
}

fn drawn_append() -> impl Strategy<Value = DrawnAppend> {
    let events = prop_oneof![
        8 => vec(drawn_event(), 1..5),
        2 => vec(known_event(), 1..5),
        1 => vec(prop_oneof![drawn_event(), known_event()], 1..5),
    ];
    let fixed = [ExpectedVersion::Any, ExpectedVersion::NoStream, ExpectedVersion::StreamExists];
    let expectation = prop_oneof![
        4 => Just(DrawnExpectation::Off(0)),
        1 => (1_u64..3).prop_map(DrawnExpectation::Off),
        1 => prop::sample::select(fixed.to_vec()).prop_map(DrawnExpectation::Fixed),
        1 => Just(DrawnExpectation::Fixed(ExpectedVersion::Exact(Version(0)))),
    ];
    (events, vec((0..AGGREGATES, expectation), 0..3))
        .prop_map(|(events, expectations)| DrawnAppend { events, expectations })
}

fn drawn_filter() -> impl Strategy<Value = Filter> {
    (
        option::of(0..AGGREGATES),
        option::of(0..EVENT_TYPES),
        option::of(0..CORRELATIONS),
        option::of(any::<u8>()),
    )
        .prop_map(|(aggregate, event_type, correlation, since)| Filter {
            aggregate: aggregate.map(key),
            event_types: event_type.map(|number| format!("Type{number}")).into_iter().collect(),
            correlation_id: correlation.map(correlation_id),
            since: since.map(|time| Timestamp::from_micros(i64::from(time) * 1_000_000)),
            ..Filter::default()
        })
}

fn drawn_read() -> impl Strategy<Value = ReadRequest> {
    let direction = prop::sample::select(vec![Direction::Forward, Direction::Backward]);
    (drawn_filter(), option::of(0_u64..150), direction, option::weighted(0.3, 0_u64..20))
        .prop_map(|(filter, from, direction, limit)| ReadRequest { filter, from, direction, limit })
}

impl ReferenceStateMachine for Model {
    type State = Model;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Model> {
        Just(Model::default()).boxed()
    }

    fn transitions(_: &Model) -> BoxedStrategy<Step> {
        prop_oneof![
            12 => vec(drawn_append(), 1..6).prop_map(Step::Appends),
            4 => drawn_read().prop_map(Step::Read),
            2 => (drawn_filter(), option::of(any::<Index>()))
                .prop_map(|(filter, after)| Step::Subscribe { filter, after }),
            1 => Just(Step::Versions),
            1 => (-100_i64..100).prop_map(Step::SetClock),
            2 => any::<bool>().prop_map(|without_indexes| Step::Reopen { without_indexes }),
            2 => any::<bool>().prop_map(|anew| Step::Beside { anew }),
        ]
        .boxed()
    }

    fn apply(mut model: Model, step: &Step) -> Model {
        if let Step::Appends(drawn) = step {
            model.append_all(drawn);
        }
        model
    }
}

/// The log, opened and closed on a folder of its own.
struct Subject {
    folder: TempDir,
    clock: Arc<WrongClock>,
    log: Option<Embedded>,
    beside: Option<Embedded>,
    /// The model before the step, to resolve what was drawn.
    before: Model,
}

impl Subject {
    fn log(&self) -> &Embedded {
        self.log.as_ref().unwrap()
    }

    fn open(&mut self) {
        self.log = None;
        self.log = Some(open(self.folder.path(), &self.clock));
        let report = self.log().recovery_report();
        assert!(report.clean, "it was closed in order: {report}");
    }

    fn delete_indexes(&mut self) {
        self.log = None;
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "idx" || extension == "run") {
                std::fs::remove_file(path).unwrap();
            }
        }
    }

    fn append(&self, drawn: &[DrawnAppend], model: &Model) {
        let appends = self.before.clone().append_all(drawn);
        let log = self.log();
        let outcomes = block_on(join_all(appends.into_iter().map(|append| log.append(append))));
        assert_eq!(outcomes, model.outcomes);
    }

    /// What a reader beside the writer shows is a prefix, and soon all of it.
    fn read_beside(&mut self, anew: bool, model: &Model) {
        if anew {
            self.beside = None;
        }
        let folder = self.folder.path();
        let beside =
            self.beside.get_or_insert_with(|| Embedded::open_read_only(folder, options()).unwrap());
        let patience = System.monotonic() + Duration::from_secs(5);
        loop {
            beside.refresh().unwrap();
            let records = records(beside, ReadRequest::default());
            check_records(&records, model);
            if records.len() == model.events.len() {
                return;
            }
            assert!(System.monotonic() < patience, "{} of {}", records.len(), model.events.len());
            block_on(futures_timer::Delay::new(Duration::from_millis(2)));
        }
    }
}

/// A wall clock that is set now and then.
#[derive(Default)]
struct WrongClock {
    ahead_us: AtomicI64,
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        let ahead_us = self.ahead_us.load(Ordering::Relaxed);
        Timestamp::from_micros(System.now().as_micros() + ahead_us)
    }

    fn monotonic(&self) -> Duration {
        System.monotonic()
    }
}

fn open(folder: &Path, clock: &Arc<WrongClock>) -> Embedded {
    let Options { backend, mapping, .. } = options();
    let disk = DiskStorage::open(folder, Access::ReadWrite, backend, mapping).unwrap();
    let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
    let env = Environment { storage: Arc::new(disk), clock, entropy: Arc::new(System) };
    Embedded::open_on(env, options()).unwrap()
}

fn options() -> Options {
    let limits =
        Limits { event_bytes_max: 4_000, append_events_max: 16, append_bytes_max: 16 * 1024 };
    let mut options = Options::default().with_limits(limits);
    options.log.segment_bytes = 64 * 1024;
    options.log.group_bytes = 8 * 1024;
    options.log.tail_bytes = 16 * 1024;
    options.log.index_fan_in = 2;
    options.log.index_memory = 100_000;
    options
}

fn records(log: &Embedded, request: ReadRequest) -> Vec<Record> {
    block_on(log.read(request).map(Result::unwrap).collect())
}

/// Records from position 1 on are those of the model, gapless.
fn check_records(records: &[Record], model: &Model) {
    for (at, record) in (1..).zip(records) {
        assert_eq!(record.position(), Position(at));
        check_record(record, model);
    }
    assert!(records.iter().map(Record::recorded_at).is_sorted(), "recorded_at never goes back");
}

fn check_record(record: &Record, model: &Model) {
    let (event, version) = model.at(record.position());
    assert_eq!((&record.to_new_event(), record.version()), (event, *version));
}

/// The events that a subscription delivers until it is caught up.
fn follow(mut subscription: Subscription, model: &Model) -> Vec<u64> {
    let mut delivered = Vec::new();
    loop {
        for item in block_on(subscription.next_batch()).unwrap() {
            match item {
                SubscriptionItem::Event(record) => {
                    check_record(&record, model);
                    delivered.push(record.position().0);
                }
                SubscriptionItem::CaughtUp(at) => {
                    assert_eq!(at.0, model.events.len() as u64);
                    return delivered;
                }
                other => panic!("{other:?} on a small log that nobody writes to"),
            }
        }
    }
}

struct LogTest;

impl StateMachineTest for LogTest {
    type SystemUnderTest = Subject;
    type Reference = Model;

    fn init_test(model: &Model) -> Subject {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(WrongClock::default());
        let log = Some(open(folder.path(), &clock));
        Subject { folder, clock, log, beside: None, before: model.clone() }
    }

    fn apply(mut system: Subject, model: &Model, step: Step) -> Subject {
        match step {
            Step::Appends(drawn) => system.append(&drawn, model),
            Step::Read(request) => {
                let found = records(system.log(), request.clone());
                let positions: Vec<u64> = found.iter().map(|it| it.position().0).collect();
                assert_eq!(positions, model.read(&request));
                for record in &found {
                    check_record(record, model);
                }
            }
            Step::Subscribe { filter, after } => {
                let after = after.map_or(0, |index| index.index(model.events.len() + 1) as u64);
                let request = SubscribeRequest {
                    filter: filter.clone(),
                    after: StartAfter::Position(Position(after)),
                };
                let delivered = follow(system.log().subscribe(request).unwrap(), model);
                let all = model.read(&ReadRequest { filter, ..ReadRequest::default() });
                let wanted: Vec<u64> = all.into_iter().filter(|at| *at > after).collect();
                assert_eq!(delivered, wanted);
            }
            Step::SetClock(seconds) => {
                system.clock.ahead_us.store(seconds * 1_000_000, Ordering::Relaxed);
            }
            Step::Versions => {
                for key in (0..AGGREGATES).map(key) {
                    assert_eq!(block_on(system.log().version(&key)), Ok(model.version(&key)));
                }
            }
            Step::Reopen { without_indexes } => {
                if without_indexes {
                    system.delete_indexes();
                }
                system.open();
            }
            Step::Beside { anew } => system.read_beside(anew, model),
        }
        system.before = model.clone();
        system
    }

    fn check_invariants(system: &Subject, model: &Model) {
        let end = system.log().log().shared().watermark.current();
        assert_eq!(end.0, model.events.len() as u64, "no append is answered before it is visible");
    }

    fn teardown(mut system: Subject, model: Model) {
        system.open();
        let records = records(system.log(), ReadRequest::default());
        check_records(&records, &model);
        assert_eq!(records.len(), model.events.len());
        let known = (model.versions.len() as u64, model.positions.len() as u64);
        assert_eq!(system.log().log().known(), known, "aggregates and ids");
    }
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = DEFAULT_CASES;
    }
    config
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn the_log_is_what_its_model_says(sequential STEPS => LogTest);
}
