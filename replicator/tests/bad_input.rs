//! What cannot be replicated is said clearly, and nothing is ever lost over it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read files, and make files of their own"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::executor::block_on;
use futures::future::BoxFuture;
use futures::{StreamExt, stream};
use quipu_client::record::{RecordBuffer, stamp};
use quipu_client::{
    AggregateKey, Append, AppendError, AppendOutcome, Embedded, EventStore, Options, Position,
    ReadError, ReadRequest, Record, RecordStream, SubscribeRequest, Subscription, SubscriptionItem,
    Uuid, Version, json,
};
use quipu_replicator::{
    EventStoreMirror, OnFailure, Postgres, Projection, ReplicateError, Replicator, UnfitJson,
    status,
};
use quipu_tests::mount::Mount;
use quipu_tests::postgres::{Cluster, give_to_user};
use quipu_tests::shared_data;
use support::{Bench, Silent, Witness, all, mirror, wait};
use tempfile::TempDir;

fn refusal(replicator: &Replicator) -> String {
    wait(async { replicator.catch_up().await }).unwrap_err().to_string()
}

fn postgres(address: &str) -> Postgres {
    Postgres::new(address, "public", None).unwrap()
}

#[test]
fn a_postgres_that_is_absent_or_lets_nobody_in_is_said() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let bench = Bench::on(Arc::new(cluster));
    let port = bench.cluster.port();
    let with =
        |address: &str| Replicator::new(Arc::new(bench.log.clone()), postgres(address), mirror());
    let absent = refusal(&with("postgres://postgres@127.0.0.1:1/x"));
    assert!(absent.contains("connect") && absent.contains("refused"), "{absent}");
    let missing = refusal(&with(&format!("postgres://postgres@127.0.0.1:{port}/nowhere")));
    assert!(missing.contains("nowhere"), "{missing}");
    bench.query(
        "SET password_encryption = 'scram-sha-256'; CREATE ROLE guest LOGIN PASSWORD 'right'; \
         REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    );
    let rules = bench.cluster.data().join("pg_hba.conf");
    std::fs::write(
        rules,
        "host all guest 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n",
    )
    .unwrap();
    bench.query("SELECT pg_reload_conf()");
    let database = bench.address.rsplit('/').next().unwrap();
    let guest = |password: &str| format!("postgres://guest:{password}@127.0.0.1:{port}/{database}");
    let wrong = refusal(&with(&guest("wrong")));
    assert!(wrong.contains("password") && wrong.contains("28P01"), "{wrong}");
    let powerless = refusal(&with(&guest("right")));
    assert!(powerless.contains("permission denied") && powerless.contains("42501"), "{powerless}");
    assert_eq!(bench.query("SELECT to_regclass('event_store') IS NULL"), [["t"]]);
}

#[test]
fn a_table_that_somebody_else_made_is_left_alone() {
    let Some(bench) = Bench::new() else { return };
    bench.query("CREATE TABLE event_store (mine int); INSERT INTO event_store VALUES (1)");
    let refused = refusal(&bench.replicator(mirror()));
    assert!(refused.contains("event_store") && refused.contains("no replicator"), "{refused}");
    assert_eq!(bench.query("SELECT * FROM event_store"), [["1"]]);
    let other = Bench::on(Arc::clone(&bench.cluster));
    other.query("CREATE TABLE quipu_replicator_migrations (mine int)");
    let refused = refusal(&other.replicator(mirror()));
    assert!(refused.contains("quipu_replicator_migrations"), "{refused}");
    // In a schema of its own there is room.
    let apart = Postgres::new(&bench.address, "Read \"models\"", None).unwrap();
    let replicator = Replicator::new(Arc::new(bench.log.clone()), apart, all());
    bench.append_plain(3);
    wait(async { replicator.catch_up().await }).unwrap();
    assert_eq!(bench.query("SELECT count(*) FROM \"Read \"\"models\"\"\".event_store"), [["3"]]);
}

#[test]
fn a_newer_program_s_tables_are_left_alone() {
    let Some(bench) = Bench::new() else { return };
    bench.catch_up(mirror());
    bench.query(
        "UPDATE quipu_replicator_migrations SET version = 9 WHERE projection = 'event_store'",
    );
    let refused = refusal(&bench.replicator(mirror()));
    assert!(refused.contains("version 9") && refused.contains("knows 1"), "{refused}");
}

#[test]
fn a_checkpoint_of_another_log_or_past_the_end_is_refused() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(20);
    bench.catch_up(mirror());
    let other = Bench::on(Arc::clone(&bench.cluster));
    let store = Arc::new(other.log.clone());
    let foreign = Replicator::new(store, bench.postgres(), mirror());
    let refused = refusal(&foreign);
    let ids = [bench.log.log_id(), other.log.log_id()].map(|id| id.to_string());
    assert!(ids.iter().all(|id| refused.contains(id)), "{refused}");
    // As after the log was restored to an earlier end under its old id.
    bench.query("UPDATE event_subscriptions SET last_processed_sequence = 90");
    let refused = refusal(&bench.replicator(mirror()));
    assert!(
        refused.contains("90") && refused.contains("20") && refused.contains("restored"),
        "{refused}"
    );
    let replicator = bench.replicator(mirror());
    let verify = wait(async { replicator.verify("event_store", Arc::new(Silent)).await });
    assert_eq!(verify.unwrap_err().to_string(), refused);
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'quipu%'";
    assert_eq!(bench.value(left), "0");
}

#[test]
fn a_check_waits_for_a_log_that_is_a_little_behind_the_tables() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(20);
    bench.catch_up(mirror());
    bench.query("UPDATE event_subscriptions SET last_processed_sequence = 25");
    let replicator = bench.replicator(mirror());
    let verified = wait(async {
        let verify =
            tokio::spawn(async move { replicator.verify("event_store", Arc::new(Silent)).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.append_plain(5);
        verify.await.unwrap().unwrap()
    });
    assert_eq!(verified.through, Position(25));
    let missing = verified.difference.unwrap().expected.unwrap();
    assert!(missing.contains("\"sequence_number\": 21"), "{missing}");
}

/// The events of the file of odd but legal lines.
fn append_hostile(log: &Embedded) -> Option<u64> {
    let lines = std::fs::read(shared_data::file("hostile.ndjson")?).unwrap();
    let mut position = 0;
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let event = json::parse_line(line).unwrap().event;
        position = block_on(log.append(Append::any(vec![event]))).unwrap().last_position().0;
    }
    Some(position)
}

/// JSON that is legal and that `jsonb` does not hold.
fn unfit() -> Vec<String> {
    vec![
        r#"{"a":"\u0000"}"#.to_owned(),
        r#"{"a":"\ud800"}"#.to_owned(),
        "[1e400000]".to_owned(),
        "{\"a\":1e-20000}".to_owned(),
        "[".repeat(5_000) + &"]".repeat(5_000),
    ]
}

#[test]
fn json_that_postgres_cannot_hold_is_kept_as_bytes() {
    let Some(bench) = Bench::new() else { return };
    for json in unfit() {
        bench.append(vec![bench.event("odd", "Odd", &json)]);
    }
    let mut custom = bench.event("odd", "Odd", "{}");
    custom.metadata.custom = br#"{"a":"\u0000"}"#.to_vec();
    bench.append(vec![custom]);
    let mut opaque = bench.event("opaque", "Odd", "");
    (opaque.content_type, opaque.payload) = ("image/png".to_owned(), vec![0, 255]);
    bench.append(vec![opaque]);
    let hostile = append_hostile(&bench.log);
    bench.catch_up(mirror());
    let kept = bench.query(
        "SELECT encode(event_bytes, 'escape') FROM event_store \
         WHERE event_data IS NULL AND content_type IS NULL AND sequence_number <= 7 \
         ORDER BY sequence_number",
    );
    let kept: Vec<String> = kept.into_iter().map(|row| row[0].replace("\\\\", "\\")).collect();
    assert_eq!(kept, unfit());
    let custom = "SELECT encode(custom_bytes, 'escape') FROM event_store WHERE sequence_number = 6";
    assert_eq!(bench.value(custom).replace("\\\\", "\\"), r#"{"a":"\u0000"}"#);
    let opaque = "SELECT content_type, encode(event_bytes, 'hex') FROM event_store \
                  WHERE sequence_number = 7";
    assert_eq!(bench.query(opaque), [["image/png", "00ff"]]);
    if let Some(last) = hostile {
        assert_eq!(bench.value("SELECT count(*) FROM event_store"), last.to_string());
    }
    bench.verify(mirror());
}

#[test]
fn what_cannot_be_applied_is_parked_by_choice_and_never_lost() {
    let Some(bench) = Bench::new() else { return };
    for json in unfit() {
        bench.append_plain(1);
        bench.append(vec![bench.event("odd", "Odd", &json)]);
    }
    let parking: Vec<Arc<dyn Projection>> =
        vec![Arc::new(EventStoreMirror::new(UnfitJson::Fail, OnFailure::Park))];
    bench.catch_up(parking);
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "5");
    let parked = bench.query("SELECT encode(event, 'escape'), error FROM event_parked ORDER BY 2");
    assert_eq!(parked.len(), unfit().len());
    for (row, json) in parked.iter().zip(["1e-20000", "1e400000", "5000", "\\u0000", "half"]) {
        let line = row[0].replace("\\\\", "\\");
        let event = json::parse_line(line.as_bytes()).unwrap().event;
        assert!(unfit().iter().any(|it| it.as_bytes() == event.payload), "{json}: {}", row[1]);
    }
    let all = wait(async { status(&bench.postgres(), Some(&bench.log)).await }).unwrap();
    assert_eq!((all[0].parked, all[0].error_count, all[0].lag_events), (5, 5, 0));
    assert_eq!(all[0].status, "stopped");
    bench.query("UPDATE event_subscriptions SET status = 'running'");
    let all = wait(async { status(&bench.postgres(), None).await }).unwrap();
    assert_eq!(all[0].status, "interrupted", "nobody runs it any more");
}

/// A log whose aggregates are as old as `INTEGER` reaches: it adds to their versions.
struct Aged(Embedded);

/// So the second event of an aggregate is the last that fits.
const AGE: u64 = i32::MAX as u64 - 2;

impl Aged {
    fn age(item: SubscriptionItem) -> SubscriptionItem {
        let SubscriptionItem::Event(record) = item else { return item };
        let mut bytes = RecordBuffer::new();
        bytes.extend_from_slice(record.as_bytes());
        let version = Version(record.version().0 + AGE);
        stamp(&mut bytes, record.position(), version, record.recorded_at());
        SubscriptionItem::Event(Record::parse(Bytes::from_owner(bytes)).unwrap())
    }
}

impl EventStore for Aged {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.0.append(append)
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.0.append_system(append)
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        self.0.read(request)
    }

    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        let followed = stream::unfold(self.0.subscribe(request)?, |mut followed| async {
            let items = followed.next_batch().await;
            Some((items.map(|items| items.into_iter().map(Self::age).collect()), followed))
        });
        Ok(Subscription::new(followed.boxed()))
    }

    fn log_id(&self) -> Uuid {
        self.0.log_id()
    }

    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>> {
        self.0.version(key)
    }
}

#[test]
fn a_version_above_the_range_of_integer_stops_the_mirror_or_is_parked() {
    let Some(bench) = Bench::new() else { return };
    let [_, _, last] =
        ["1", "2", "3"].map(|data| bench.append(vec![bench.event("old", "Old", data)]));
    bench.append(vec![bench.event("young", "Young", "4")]);
    let aged: Arc<dyn EventStore> = Arc::new(Aged(bench.log.clone()));
    let stopping = Replicator::new(Arc::clone(&aged), bench.postgres(), mirror());
    let failed = wait(async { stopping.catch_up().await }).unwrap().failed;
    let [(name, problem)] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(name, "event_store");
    for said in [&format!("position {last}"), "version, 2147483648,", "INTEGER holds, 2147483647"] {
        assert!(problem.contains(said), "{problem}");
    }
    let versions = "SELECT version FROM event_store ORDER BY sequence_number";
    assert_eq!(bench.query(versions), [["2147483646"], ["2147483647"]], "nothing is skipped");
    let parking: Vec<Arc<dyn Projection>> =
        vec![Arc::new(EventStoreMirror::new(UnfitJson::Bytes, OnFailure::Park))];
    let parking = Replicator::new(aged, bench.postgres(), parking);
    assert_eq!(wait(async { parking.catch_up().await }).unwrap().failed, []);
    assert_eq!(bench.query(versions), [["2147483646"], ["2147483647"], ["2147483646"]]);
    let parked = bench.query("SELECT sequence_number, event FROM event_parked");
    assert_eq!(parked.len(), 1);
    assert_eq!(parked[0][0], last.to_string());
}

#[test]
fn what_only_postgres_finds_wrong_is_narrowed_down_to_the_event() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(700);
    bench.catch_up(mirror());
    // A rule that some event breaks.
    bench.query("ALTER TABLE event_store ADD CONSTRAINT no_13 CHECK (event_data <> '13'::jsonb)");
    bench.append_plain(300);
    let bad = bench.append(vec![bench.event("x", "X", "13")]);
    bench.append_plain(300);
    let failed = wait(async { bench.replicator(mirror()).catch_up().await }).unwrap().failed;
    let at = format!("position {bad}");
    assert!(failed[0].1.contains(&at) && failed[0].1.contains("no_13"), "{failed:?}");
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "1000");
    let parking: Vec<Arc<dyn Projection>> =
        vec![Arc::new(EventStoreMirror::new(UnfitJson::Bytes, OnFailure::Park))];
    bench.catch_up(parking);
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "1300");
    assert_eq!(bench.query("SELECT sequence_number FROM event_parked"), [[bad.to_string()]]);
}

#[test]
fn a_table_that_vanished_stops_its_projection_and_no_other() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.catch_up(all());
    bench.query("DROP TABLE call_directions CASCADE; DROP TABLE account_balances");
    bench.append_plain(10);
    let account = quipu_domain::catalogue::PaymentReceived::example();
    let account = quipu_client::encode_event(&account).unwrap();
    bench.append(vec![bench.typed(("Account", "1"), &account, support::seconds(1))]);
    let failed = wait(async { bench.replicator(all()).catch_up().await }).unwrap().failed;
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].0 == "account_balances" && failed[0].1.contains("42P01"), "{failed:?}");
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "21");
}

#[test]
fn a_database_that_is_closed_for_a_while_is_waited_for() {
    let Some(bench) = Bench::new() else { return };
    let database = bench.address.rsplit('/').next().unwrap();
    let beside = |sql: &str| bench.cluster.query(&bench.cluster.address("postgres"), sql);
    wait(async {
        let witness = Witness::new();
        let replicator = bench.replicator(mirror()).observed_by(Arc::clone(&witness) as _);
        let running = tokio::spawn(async move { replicator.run(std::future::pending()).await });
        witness.reached(bench.append_plain(10)).await;
        beside(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"));
        beside(&format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
        ));
        let last = bench.append_plain(10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!running.is_finished(), "it waits");
        beside(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"));
        witness.reached(last).await;
        running.abort();
    });
}

#[test]
fn a_full_disk_of_postgres_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let Some(_mount) = Mount::small(folder.path(), 160 * 1024 * 1024) else { return };
    give_to_user(folder.path());
    let place = TempDir::new_in(folder.path()).unwrap();
    let settings = ["max_wal_size=32MB", "min_wal_size=32MB", "shared_buffers=16MB"];
    let Some(cluster) = Cluster::start_in(place, &settings) else { return };
    let bench = Bench::on(Arc::new(cluster));
    let filler = bench.cluster.data().join("filler");
    let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(2_000));
    wait(async {
        let witness = Witness::new();
        let replicator = bench.replicator(mirror()).observed_by(Arc::clone(&witness) as _);
        let running = tokio::spawn(async move { replicator.run(std::future::pending()).await });
        bench.append_plain(10);
        witness.reached(Position(10)).await;
        fill(&filler);
        let mut last = Position::START;
        for _ in 0..20 {
            let events = (0..500).map(|_| bench.event("big", "Big", &payload)).collect();
            last = bench.append(events);
        }
        let problem = witness.waited().await;
        assert!(problem.contains("No space left") || problem.contains("connect"), "{problem}");
        std::fs::remove_file(&filler).unwrap();
        // A server without room for its journal ends itself, and somebody has to start it again.
        bench.cluster.kill();
        bench.cluster.restart();
        witness.reached(last).await;
        running.abort();
    });
    bench.verify(mirror());
}

/// Takes all the space that is left but a little.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let chunk = vec![1; 64 * 1024];
    while file.write_all(&chunk).is_ok() {}
    file.set_len(file.metadata().unwrap().len() - 512 * 1024).unwrap();
}

#[test]
fn a_log_that_is_closed_ends_it() {
    let Some(bench) = Bench::new() else { return };
    let folder = TempDir::new().unwrap();
    let log = Embedded::open(folder.path(), Options::default()).unwrap();
    log.close();
    let replicator = Replicator::new(Arc::new(log), bench.postgres(), mirror());
    let error = wait(async { replicator.run(std::future::pending()).await }).unwrap_err();
    assert!(matches!(error, ReplicateError::Log(_)), "{error}");
}
