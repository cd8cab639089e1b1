//! A projection is filled anew while the old one serves, and checked against the log.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use quipu_client::Position;
use quipu_replicator::{BatchLimits, Committed, Observer};
use support::{Bench, Silent, Witness, all, mirror, wait};
use tokio::sync::Notify;

#[test]
fn a_rebuild_takes_the_place_of_what_it_was_while_that_is_filled() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(3_000);
    wait(async {
        let witness = Witness::new();
        let replicator = bench.replicator(all()).observed_by(Arc::clone(&witness) as _);
        let running = tokio::spawn(async move { replicator.run(std::future::pending()).await });
        witness.reached(Position(3_000)).await;
        // What a rebuild is for; and rights that must not be lost by it.
        bench.query(
            "UPDATE event_store SET event_type = 'Wrong' WHERE sequence_number % 7 = 0; \
             CREATE ROLE analyst; GRANT SELECT ON event_store, audit_trail TO analyst",
        );
        let rebuilder = bench.replicator(mirror());
        let through = rebuilder.rebuild("event_store", Arc::new(Silent)).await.unwrap();
        assert_eq!(through, Position(3_000));
        let last = bench.append_plain(100);
        witness.reached(last).await;
        running.abort();
    });
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "3100");
    assert_eq!(bench.value("SELECT count(*) FROM audit_trail"), "3100");
    let may = "SELECT has_table_privilege('analyst', 'event_store', 'SELECT'), \
               has_table_privilege('analyst', 'audit_trail', 'SELECT')";
    assert_eq!(bench.query(may), [["t", "t"]]);
    bench.verify(all());
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'quipu%'";
    assert_eq!(bench.value(left), "0");
    bench.query("DROP OWNED BY analyst; DROP ROLE analyst");
}

/// Says when so many batches are applied.
struct Counter {
    batches: AtomicUsize,
    first: Notify,
}

impl Observer for Counter {
    fn committed(&self, _: &Committed<'_>) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.first.notify_one();
    }
}

#[test]
fn a_rebuild_that_was_interrupted_goes_on_where_it_was() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(6_000);
    bench.catch_up(mirror());
    let limits = BatchLimits { events_max: 200, ..BatchLimits::default() };
    let rebuilder = Arc::new(bench.replicator(mirror()).with_limits(limits));
    wait(async {
        let counter = Arc::new(Counter { batches: AtomicUsize::new(0), first: Notify::new() });
        let (again, observer) = (Arc::clone(&rebuilder), Arc::clone(&counter));
        let task = tokio::spawn(async move { again.rebuild("event_store", observer).await });
        counter.first.notified().await;
        task.abort();
        drop(task.await);
    });
    let reached = bench.value(
        "SELECT last_processed_sequence FROM event_subscriptions \
         WHERE subscriber_name = 'event_store (rebuild)'",
    );
    let reached: usize = reached.parse().unwrap();
    assert!((200..6_000).contains(&reached), "{reached}");
    let counter = Arc::new(Counter { batches: AtomicUsize::new(0), first: Notify::new() });
    let observer = Arc::clone(&counter) as Arc<dyn Observer>;
    let through = wait(async { rebuilder.rebuild("event_store", observer).await }).unwrap();
    assert_eq!(through, Position(6_000));
    let batches = counter.batches.load(Ordering::Relaxed);
    assert!(batches * 200 <= 6_000 - reached + 600, "{batches} batches after {reached}");
    bench.verify(mirror());
}

#[test]
fn a_rebuild_that_others_depend_on_changes_nothing() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.catch_up(mirror());
    bench.query("CREATE VIEW theirs AS SELECT count(*) AS events FROM event_store");
    let rebuild = bench.replicator(mirror());
    let refused = wait(async { rebuild.rebuild("event_store", Arc::new(Silent)).await });
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("theirs"), "{refused}");
    assert_eq!(bench.value("SELECT events FROM theirs"), "10");
    bench.verify(mirror());
}

#[test]
fn a_log_that_was_restored_is_followed_after_a_rebuild() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(50);
    bench.catch_up(mirror());
    let restored = Bench::on(Arc::clone(&bench.cluster));
    restored.append_plain(20);
    let store = Arc::new(restored.log.clone());
    let replicator = quipu_replicator::Replicator::new(store, bench.postgres(), mirror());
    wait(async {
        replicator.catch_up().await.unwrap_err();
        replicator.rebuild("event_store", Arc::new(Silent)).await.unwrap();
        replicator.catch_up().await.unwrap();
    });
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "20");
}

#[test]
fn the_first_difference_is_named() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(500);
    bench.catch_up(mirror());
    let replicator = bench.replicator(mirror());
    let difference = || {
        let verify = replicator.verify("event_store", Arc::new(Silent));
        wait(verify).unwrap().difference.unwrap()
    };
    bench.query("UPDATE event_store SET event_data = '{\"number\": 0}' WHERE sequence_number = 77");
    let changed = difference();
    assert_eq!(changed.table, "event_store");
    assert!(changed.expected.unwrap().contains("\"number\": 76"));
    assert!(changed.found.unwrap().contains("\"sequence_number\": 77"));
    bench.query("DELETE FROM event_store WHERE sequence_number = 40");
    let missing = difference();
    assert!(missing.expected.unwrap().contains("\"sequence_number\": 40"));
    assert_eq!(missing.found, None);
    bench.query("UPDATE event_store SET sequence_number = -1 WHERE sequence_number = 500");
    let added = difference();
    assert_eq!(added.expected, None);
    assert!(added.found.unwrap().contains("\"sequence_number\": -1"));
}
