//! What is filled beside the tables that serve never reaches those, whatever overlaps with it or
//! was left behind.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use quipu_client::Position;
use quipu_replicator::{
    BatchLimits, Committed, Observer, Postgres, Projection, ReplicateError, Replicator,
    SqlProjection, Verified,
};
use quipu_tests::postgres::Cluster;
use support::{Bench, Silent, wait};
use tokio::task::JoinHandle;

/// Adds up: an event that is applied twice is seen.
const COUNTS: &str = r#"
    [[projection]]
    name = "counts"
    tables = "CREATE TABLE counts (aggregate_id TEXT PRIMARY KEY, events BIGINT)"
    statement = """
        INSERT INTO counts AS c SELECT aggregate_id, count(*) FROM events GROUP BY 1
        ON CONFLICT (aggregate_id) DO UPDATE SET events = c.events + excluded.events
    """
"#;
const SUM: &str = "SELECT sum(events) FROM counts";

fn counts() -> Vec<Arc<dyn Projection>> {
    let all = SqlProjection::read(COUNTS).unwrap();
    all.into_iter().map(|projection| Arc::new(projection) as Arc<dyn Projection>).collect()
}

/// 3,000 events, and the table that they give.
fn bench() -> Option<Bench> {
    let bench = Bench::new()?;
    bench.append_plain(3_000);
    bench.catch_up(counts());
    Some(bench)
}

/// Holds a run up after each batch that it has applied, until it is let go.
struct Gate {
    reached: Sender<()>,
    opened: Mutex<Receiver<()>>,
}

impl Observer for Gate {
    fn committed(&self, _: &Committed<'_>) {
        tokio::task::block_in_place(|| {
            self.reached.send(()).ok();
            self.opened.lock().unwrap().recv().ok();
        });
    }
}

/// The test's side of a gate; open for ever once it is dropped.
struct Keeper {
    reached: Receiver<()>,
    _opens: Sender<()>,
}

impl Keeper {
    fn new() -> (Self, Arc<Gate>) {
        let ((reached, is_reached), (opens, opened)) = (channel(), channel());
        let gate = Gate { reached, opened: Mutex::new(opened) };
        (Self { reached: is_reached, _opens: opens }, Arc::new(gate))
    }

    /// Until the run has applied a batch.
    fn wait(&self) {
        const MAX: Duration = Duration::from_secs(30);
        tokio::task::block_in_place(|| self.reached.recv_timeout(MAX)).unwrap();
    }
}

fn small(bench: &Bench) -> Replicator {
    let limits = BatchLimits { events_max: 200, ..BatchLimits::default() };
    bench.replicator(counts()).with_limits(limits)
}

type Verifying = JoinHandle<Result<Verified, ReplicateError>>;
type Rebuilding = JoinHandle<Result<Position, ReplicateError>>;

fn verify(bench: &Bench, observer: Arc<dyn Observer>) -> Verifying {
    let replicator = small(bench);
    tokio::spawn(async move { replicator.verify("counts", observer).await })
}

fn rebuild(bench: &Bench, observer: Arc<dyn Observer>) -> Rebuilding {
    let replicator = small(bench);
    tokio::spawn(async move { replicator.rebuild("counts", observer).await })
}

/// Until one that came second has got as far as it can.
async fn overtaken() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

#[track_caller]
fn assert_nothing_is_left(bench: &Bench) {
    let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'quipu%'";
    assert_eq!(bench.value(schemas), "0");
    let names = "SELECT subscriber_name FROM event_subscriptions UNION \
                 SELECT projection FROM quipu_replicator_migrations ORDER BY 1";
    assert_eq!(bench.query(names), [["counts"], ["replicator"]]);
}

#[test]
fn two_checks_of_a_projection_come_one_after_the_other() {
    let Some(bench) = bench() else { return };
    wait(async {
        let (keeper, gate) = Keeper::new();
        let first = verify(&bench, gate);
        keeper.wait();
        let second = verify(&bench, Arc::new(Silent));
        overtaken().await;
        drop(keeper);
        for verified in [first.await, second.await] {
            assert_eq!(verified.unwrap().unwrap().difference, None);
        }
    });
    assert_eq!(bench.value(SUM), "3000");
    assert_nothing_is_left(&bench);
}

#[test]
fn two_rebuilds_of_a_projection_come_one_after_the_other() {
    let Some(bench) = bench() else { return };
    wait(async {
        let (keeper, gate) = Keeper::new();
        let first = rebuild(&bench, gate);
        keeper.wait();
        let second = rebuild(&bench, Arc::new(Silent));
        overtaken().await;
        drop(keeper);
        for through in [first.await, second.await] {
            assert_eq!(through.unwrap().unwrap(), Position(3_000));
        }
    });
    assert_eq!(bench.value(SUM), "3000");
    assert_nothing_is_left(&bench);
    // Nothing of it makes the next one begin anywhere but at the beginning.
    wait(async { rebuild(&bench, Arc::new(Silent)).await.unwrap() }).unwrap();
    assert_eq!(bench.value(SUM), "3000");
}

#[test]
fn a_rebuild_is_refused_while_a_check_goes_on_for_long_whatever_schema_it_serves() {
    let Some(bench) = bench() else { return };
    wait(async {
        let (keeper, gate) = Keeper::new();
        let first = verify(&bench, gate);
        keeper.wait();
        let other = Postgres::new(&bench.address, "other", None).unwrap();
        let other = Replicator::new(Arc::new(bench.log.clone()), other, counts());
        let refused = [
            rebuild(&bench, Arc::new(Silent)).await.unwrap().unwrap_err().to_string(),
            other.rebuild("counts", Arc::new(Silent)).await.unwrap_err().to_string(),
        ];
        for refused in refused {
            assert!(refused.contains("one at a time"), "{refused}");
            assert!(refused.contains("pid") && refused.contains("verify counts"), "{refused}");
        }
        drop(keeper);
        assert_eq!(first.await.unwrap().unwrap().difference, None);
    });
    assert_eq!(bench.value(SUM), "3000");
    assert_nothing_is_left(&bench);
}

/// Starts a rebuild and cuts it off after its first batch.
async fn interrupt_a_rebuild(bench: &Bench) {
    let (keeper, gate) = Keeper::new();
    let rebuilding = rebuild(bench, gate);
    keeper.wait();
    rebuilding.abort();
    drop(keeper);
    drop(rebuilding.await);
    let reached = "SELECT last_processed_sequence BETWEEN 200 AND 2000 FROM event_subscriptions \
                   WHERE subscriber_name = 'counts (rebuild)'";
    assert_eq!(bench.value(reached), "t");
}

#[test]
fn a_rebuild_whose_schema_is_gone_begins_anew() {
    let Some(bench) = bench() else { return };
    wait(async {
        interrupt_a_rebuild(&bench).await;
        bench.query("DROP SCHEMA quipu_rebuild_counts CASCADE");
        let through = rebuild(&bench, Arc::new(Silent)).await.unwrap().unwrap();
        assert_eq!(through, Position(3_000));
    });
    assert_eq!(bench.value(SUM), "3000");
    assert_nothing_is_left(&bench);
}

#[test]
fn a_rebuild_that_finds_what_does_not_fit_begins_anew() {
    let left = [
        "DELETE FROM quipu_replicator_migrations WHERE projection = 'counts (rebuild)'",
        "DELETE FROM event_subscriptions WHERE subscriber_name = 'counts (rebuild)'",
        "DROP SCHEMA quipu_rebuild_counts CASCADE; CREATE SCHEMA quipu_rebuild_counts; \
         CREATE TABLE quipu_rebuild_counts.counts (LIKE counts INCLUDING ALL)",
        "UPDATE event_subscriptions SET last_processed_sequence = 9000 \
         WHERE subscriber_name = 'counts (rebuild)'",
        "UPDATE event_subscriptions SET log_id = '00000000-0000-0000-0000-000000000001' \
         WHERE subscriber_name = 'counts (rebuild)'",
        "UPDATE quipu_replicator_migrations SET version = 7 \
         WHERE projection = 'counts (rebuild)'",
        "UPDATE quipu_replicator_migrations SET definition = 'another' \
         WHERE projection = 'counts (rebuild)'",
    ];
    for lost in left {
        let Some(bench) = bench() else { return };
        wait(async {
            interrupt_a_rebuild(&bench).await;
            bench.query(lost);
            let through = rebuild(&bench, Arc::new(Silent)).await.unwrap().unwrap();
            assert_eq!(through, Position(3_000), "{lost}");
        });
        assert_eq!(bench.value(SUM), "3000", "{lost}");
        assert_nothing_is_left(&bench);
    }
}

#[test]
fn a_rebuild_whose_tables_are_removed_meanwhile_leaves_those_that_serve_alone() {
    let Some(bench) = bench() else { return };
    wait(async {
        let (keeper, gate) = Keeper::new();
        let rebuilding = rebuild(&bench, gate);
        keeper.wait();
        bench.query("DROP SCHEMA quipu_rebuild_counts CASCADE");
        drop(keeper);
        let failed = rebuilding.await.unwrap().unwrap_err().to_string();
        assert!(failed.contains("counts"), "{failed}");
    });
    assert_eq!(bench.value(SUM), "3000");
    bench.verify(counts());
}

const HOLDERS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'quipu: rebuild counts'";

#[test]
fn a_rebuild_that_has_lost_its_lock_takes_it_again() {
    let Some(bench) = bench() else { return };
    wait(async {
        let (keeper, gate) = Keeper::new();
        let rebuilding = rebuild(&bench, gate);
        keeper.wait();
        assert_eq!(bench.value(HOLDERS), "1");
        drop(keeper);
        assert_eq!(rebuilding.await.unwrap().unwrap(), Position(3_000));
    });
    assert_eq!(bench.value(SUM), "3000");
    assert_nothing_is_left(&bench);
}

#[test]
fn a_rebuild_does_not_put_in_place_what_it_has_not_filled() {
    let Some(bench) = bench() else { return };
    wait(async {
        let (keeper, gate) = Keeper::new();
        let rebuilding = rebuild(&bench, gate);
        keeper.wait();
        // As if another one had been here while this one had lost its lock.
        bench.query(
            "DROP SCHEMA quipu_rebuild_counts CASCADE; CREATE SCHEMA quipu_rebuild_counts; \
             CREATE TABLE quipu_rebuild_counts.counts (LIKE counts INCLUDING ALL)",
        );
        drop(keeper);
        let failed = rebuilding.await.unwrap().unwrap_err().to_string();
        assert!(failed.contains("start it again"), "{failed}");
    });
    assert_eq!(bench.value(SUM), "3000");
    bench.verify(counts());
}

#[test]
fn a_rebuild_is_refused_also_while_another_one_waits_to_put_its_tables_in_place() {
    // What holds the table needs no connection that would have to be kept.
    let Some(cluster) = Cluster::start(&["max_prepared_transactions=1"]) else { return };
    let bench = Bench::on(Arc::new(cluster));
    bench.append_plain(300);
    bench.catch_up(counts());
    bench.query("BEGIN; LOCK counts IN ACCESS SHARE MODE; PREPARE TRANSACTION 'held'");
    wait(async {
        let first = rebuild(&bench, Arc::new(Silent));
        while bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            tokio::task::yield_now().await;
        }
        let refused = rebuild(&bench, Arc::new(Silent)).await.unwrap().unwrap_err().to_string();
        assert!(refused.contains("one at a time"), "{refused}");
        bench.query("ROLLBACK PREPARED 'held'");
        assert_eq!(first.await.unwrap().unwrap(), Position(300));
    });
    assert_eq!(bench.value(SUM), "300");
}
