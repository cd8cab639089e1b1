//! Each event is applied once in effect, whatever ends in between.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use quipu_client::Position;
use quipu_replicator::{ReplicateError, Replicator, Summary};
use quipu_tests::postgres::Cluster;
use support::{Bench, Witness, all, mirror, wait};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A replicator that runs until it is stopped, or dropped as a crash would.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Summary, ReplicateError>>,
    witness: Arc<Witness>,
}

impl Running {
    fn start(replicator: Replicator) -> Self {
        let witness = Witness::new();
        let replicator = replicator.observed_by(Arc::clone(&witness) as _);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move { replicator.run(async { drop(stopped.await) }).await });
        Self { stop, task, witness }
    }

    /// Until everything up to here is applied; a replicator that ends before that has failed.
    async fn reached(&mut self, position: Position) {
        tokio::select! {
            () = self.witness.reached(position) => {}
            ended = &mut self.task => panic!("it ended: {ended:?}"),
        }
    }

    async fn stop(self) -> Result<Summary, ReplicateError> {
        self.stop.send(()).ok();
        self.task.await.unwrap()
    }
}

#[test]
fn what_is_there_and_what_comes_later_is_applied_in_order() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(2_500);
    wait(async {
        let mut running = Running::start(bench.replicator(all()));
        running.reached(Position(2_500)).await;
        let last = bench.append_plain(30);
        running.reached(last).await;
        assert_eq!(running.stop().await.unwrap().failed, []);
    });
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "2530");
    let rows = bench.query(
        "SELECT subscriber_name, last_processed_sequence, status, lag_events, last_error IS NULL \
         FROM event_subscriptions ORDER BY 1",
    );
    let names = ["account_balances", "call_statistics", "compliance", "event_store"];
    let expected =
        names.map(|name| [name, "2530", "stopped", "0", "t"].map(str::to_owned).to_vec());
    assert_eq!(rows, expected);
    bench.verify(all());
}

#[test]
fn a_mirrored_row_is_the_event() {
    let Some(bench) = Bench::new() else { return };
    let mut event = bench.event("a \"b\" / ü", "Went wrong", r#"{"b": 1.50, "a": [null]}"#);
    event.timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
    event.schema_version = 3;
    event.metadata.user_id = Some(support::uuid(7));
    event.metadata.correlation_id = "c-1".to_owned();
    event.metadata.ip_address = "192.0.2.1".to_owned();
    event.metadata.user_agent = "browser \"x\"".to_owned();
    event.metadata.custom = br#"{"tenant":"north"}"#.to_vec();
    let id = event.event_id;
    bench.append(vec![event]);
    bench.catch_up(mirror());
    let row = bench.query("SELECT row_to_json(e) FROM event_store e");
    let row: serde_json::Value = serde_json::from_str(&row[0][0]).unwrap();
    let expected = serde_json::json!({
        "sequence_number": 1,
        "id": id.to_string(),
        "aggregate_id": "a \"b\" / ü",
        "aggregate_type": "Thing",
        "event_type": "Went wrong",
        "event_data": {"a": [null], "b": 1.50},
        "metadata": {
            "user_id": support::uuid(7).to_string(), "correlation_id": "c-1", "causation_id": "",
            "ip_address": "192.0.2.1", "user_agent": "browser \"x\"",
            "custom": {"tenant": "north"},
        },
        "version": 1,
        "created_at": "2026-01-02T03:04:05.678901+00:00",
        "schema_version": 3,
        "content_type": null,
        "event_bytes": null,
        "custom_bytes": null,
    });
    assert_eq!(row, expected);
    let audit = "SELECT user_id, event_type, ip_address, correlation_id FROM audit_trail";
    let user = support::uuid(7).to_string();
    assert_eq!(bench.query(audit), [[&user, "Went wrong", "192.0.2.1", "c-1"]]);
}

#[test]
fn a_replicator_that_is_cut_off_at_any_moment_repeats_and_skips_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(20_000);
    let limits = quipu_replicator::BatchLimits { events_max: 500, ..Default::default() };
    for batches in 1..8 {
        wait(async {
            let mut running = Running::start(bench.replicator(all()).with_limits(limits));
            running.reached(Position(batches * 2_000)).await;
            // Dropped in the middle of whatever it does; its connections are just gone.
            running.task.abort();
        });
    }
    bench.catch_up(all());
    bench.verify(all());
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "20000");
}

#[test]
fn a_postgres_that_crashes_is_waited_for() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let bench = Bench::on(Arc::new(cluster));
    bench.append_plain(1_000);
    wait(async {
        let mut running = Running::start(bench.replicator(mirror()));
        running.reached(Position(1_000)).await;
        bench.cluster.kill();
        let last = bench.append_plain(500);
        let problem = running.witness.waited().await;
        assert!(problem.contains("Postgres"), "{problem}");
        bench.cluster.restart();
        running.reached(last).await;
        running.stop().await.unwrap();
    });
    assert_eq!(
        bench.query("SELECT count(*), max(sequence_number) FROM event_store"),
        [["1500"; 2]]
    );
}

#[test]
fn the_same_projection_is_not_filled_twice() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    wait(async {
        let mut running = Running::start(bench.replicator(mirror()));
        running.reached(Position(10)).await;
        let refused = bench.replicator(mirror()).catch_up().await.unwrap_err().to_string();
        assert!(refused.contains("another replicator") && refused.contains("pid"), "{refused}");
        // Other projections are nobody else's business.
        bench.replicator(all().split_off(1)).catch_up().await.unwrap();
        running.stop().await.unwrap();
    });
}

#[test]
fn one_whose_checkpoint_was_taken_over_writes_nothing_and_goes_on_from_there() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(100);
    wait(async {
        let mut running = Running::start(bench.replicator(mirror()));
        running.reached(Position(100)).await;
        // As another replicator would that believes the first one dead.
        bench.query(
            "UPDATE event_subscriptions SET epoch = epoch + 1, last_processed_sequence = 40; \
             DELETE FROM event_store WHERE sequence_number > 40",
        );
        let last = bench.append_plain(5);
        let problem = running.witness.waited().await;
        assert!(problem.contains("taken over"), "{problem}");
        running.reached(last).await;
        running.stop().await.unwrap();
    });
    bench.verify(mirror());
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "105");
}

/// A replicator that waits for what is held is stopped; then it is held no longer.
fn stops_while_it_waits(bench: &Bench) {
    wait(async {
        let running = Running::start(bench.replicator(mirror()));
        while bench.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == "0" {
            tokio::task::yield_now().await;
        }
        assert_eq!(running.stop().await.unwrap(), Summary::default());
    });
    bench.query("ROLLBACK PREPARED 'held'");
}

#[test]
fn one_that_waits_for_its_tables_is_stopped_all_the_same() {
    // What holds the table needs no connection that would have to be kept.
    let Some(cluster) = Cluster::start(&["max_prepared_transactions=1"]) else { return };
    let bench = Bench::on(Arc::new(cluster));
    bench.catch_up(mirror());
    bench.query("BEGIN; LOCK quipu_replicator_migrations; PREPARE TRANSACTION 'held'");
    stops_while_it_waits(&bench);
}

#[test]
fn one_whose_table_somebody_holds_is_stopped_all_the_same() {
    let Some(cluster) = Cluster::start(&["max_prepared_transactions=1"]) else { return };
    let bench = Bench::on(Arc::new(cluster));
    bench.append_plain(10);
    bench.catch_up(mirror());
    bench.query("BEGIN; LOCK event_store; PREPARE TRANSACTION 'held'");
    bench.append_plain(10);
    stops_while_it_waits(&bench);
    bench.catch_up(mirror());
    bench.verify(mirror());
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "20");
}
