//! A log, a database and replicators between them.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quipu_client::{
    AggregateKey, Append, Embedded, EncodedEvent, EventStore, NewEvent, Options, Position,
    Timestamp, Uuid,
};
use quipu_replicator::{
    AccountBalances, CallStatistics, Committed, Compliance, EventStoreMirror, Observer, OnFailure,
    Postgres, Projection, ReplicateError, Replicator, UnfitJson,
};
use quipu_tests::patience::block_on;
use quipu_tests::postgres::Cluster;
use tempfile::TempDir;
use tokio::sync::watch;

/// A log and an empty database.
pub(crate) struct Bench {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) address: String,
    pub(crate) log: Embedded,
    pub(crate) folder: TempDir,
}

impl Bench {
    /// `None`, with a loud line, where there is no Postgres.
    pub(crate) fn new() -> Option<Self> {
        Some(Self::on(Cluster::shared()?))
    }

    pub(crate) fn on(cluster: Arc<Cluster>) -> Self {
        let folder = TempDir::new().unwrap();
        let log = Embedded::open(folder.path(), Options::default()).unwrap();
        let address = cluster.database();
        Self { cluster, address, log, folder }
    }

    pub(crate) fn postgres(&self) -> Postgres {
        Postgres::new(&self.address, "public", None).unwrap()
    }

    pub(crate) fn replicator(&self, projections: Vec<Arc<dyn Projection>>) -> Replicator {
        Replicator::new(Arc::new(self.log.clone()), self.postgres(), projections)
    }

    /// Applies all that is in the log.
    pub(crate) fn catch_up(&self, projections: Vec<Arc<dyn Projection>>) {
        let replicator = self.replicator(projections);
        let summary = wait(async { replicator.catch_up().await }).unwrap();
        assert_eq!(summary.failed, []);
    }

    /// Asserts that the tables of these projections are what the log gives.
    #[track_caller]
    pub(crate) fn verify(&self, projections: Vec<Arc<dyn Projection>>) {
        let names: Vec<String> = projections.iter().map(|it| it.name().to_owned()).collect();
        let replicator = self.replicator(projections);
        for name in names {
            let verify = replicator.verify(&name, Arc::new(Silent));
            let verified = wait(verify).unwrap();
            assert_eq!(verified.difference, None, "{name}");
            assert!(!verified.tables.is_empty(), "{name}");
        }
    }

    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<String>> {
        self.cluster.query(&self.address, sql)
    }

    #[track_caller]
    pub(crate) fn value(&self, sql: &str) -> String {
        self.cluster.value(&self.address, sql)
    }

    pub(crate) fn append(&self, events: Vec<NewEvent>) -> Position {
        block_on(self.log.append(Append::any(events))).unwrap().last_position()
    }

    /// So many plain events of ten aggregates.
    pub(crate) fn append_plain(&self, events: usize) -> Position {
        let event = |number: usize| {
            let key = AggregateKey::new("Thing", format!("thing {}", number % 10));
            let data = format!("{{\"number\":{number}}}");
            let mut event = self.log.new_event(key, "Counted", data);
            event.metadata.correlation_id = format!("round {}", number / 100);
            event
        };
        let mut last = Position::START;
        let all: Vec<usize> = (0..events).collect();
        for numbers in all.chunks(1_000) {
            last = self.append(numbers.iter().map(|number| event(*number)).collect());
        }
        last
    }

    /// A plain event with this data.
    pub(crate) fn event(&self, id: &str, event_type: &str, data: &str) -> NewEvent {
        self.log.new_event(AggregateKey::new("Thing", id), event_type, data)
    }

    /// A typed event that happened then.
    pub(crate) fn typed(
        &self,
        aggregate: (&str, &str),
        event: &EncodedEvent,
        at: Timestamp,
    ) -> NewEvent {
        let key = AggregateKey::new(aggregate.0, aggregate.1);
        let mut new = self.log.new_event(key, event.event_type.clone(), event.payload.clone());
        new.timestamp = at;
        new
    }
}

/// Every built-in projection.
pub(crate) fn all() -> Vec<Arc<dyn Projection>> {
    vec![
        Arc::new(EventStoreMirror::new(UnfitJson::Bytes, OnFailure::Stop)),
        Arc::new(Compliance::new(OnFailure::Stop)),
        Arc::new(CallStatistics::new(OnFailure::Stop)),
        Arc::new(AccountBalances::new(OnFailure::Stop)),
    ]
}

pub(crate) fn mirror() -> Vec<Arc<dyn Projection>> {
    vec![Arc::new(EventStoreMirror::new(UnfitJson::Bytes, OnFailure::Stop))]
}

/// Is told nothing.
pub(crate) struct Silent;

impl Observer for Silent {}

/// Runs a future on a runtime of its own, and not for ever.
#[track_caller]
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    const MAX: Duration = Duration::from_mins(1);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let done = runtime.block_on(async { tokio::time::timeout(MAX, future).await });
    runtime.shutdown_background();
    done.expect("done within a minute")
}

/// Lets a test wait for what a replicator has done.
pub(crate) struct Witness {
    through: watch::Sender<Position>,
    waited: watch::Sender<Vec<String>>,
    failed: Mutex<Vec<String>>,
}

impl Witness {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            through: watch::Sender::new(Position::START),
            waited: watch::Sender::new(Vec::new()),
            failed: Mutex::default(),
        })
    }

    /// Until everything up to here is applied.
    pub(crate) async fn reached(&self, position: Position) {
        self.through.subscribe().wait_for(|through| *through >= position).await.unwrap();
    }

    /// Until it has had to wait for something; what that was.
    pub(crate) async fn waited(&self) -> String {
        let mut waited = self.waited.subscribe();
        let problems = waited.wait_for(|problems| !problems.is_empty()).await.unwrap();
        problems[0].clone()
    }

    pub(crate) fn failed(&self) -> Vec<String> {
        self.failed.lock().unwrap().clone()
    }
}

impl Observer for Witness {
    fn committed(&self, committed: &Committed<'_>) {
        self.through.send_replace(committed.through);
    }

    fn failed(&self, projection: &str, problem: &str) {
        self.failed.lock().unwrap().push(format!("{projection}: {problem}"));
    }

    fn waiting(&self, problem: &ReplicateError, _pause: Duration) {
        self.waited.send_modify(|problems| problems.push(problem.to_string()));
    }
}

pub(crate) fn seconds(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

pub(crate) fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}
