//! States that are kept in the log are rows of `event_snapshots`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use quipu_client::{
    Aggregate, EventContext, Inapplicable, Repository, Snapshots, Snapshotted, UntypedEvent,
};
use quipu_replicator::{EventSnapshots, OnFailure, Projection};
use quipu_tests::patience::block_on;
use serde::{Deserialize, Serialize};
use support::{Bench, all};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Tally {
    note: String,
    events: u64,
}

impl Aggregate for Tally {
    const TYPE: &'static str = "Tally";
    type Event = UntypedEvent;

    fn apply(&mut self, event: &UntypedEvent) -> Result<(), Inapplicable> {
        event.data["note"].as_str().unwrap_or_default().clone_into(&mut self.note);
        self.events += 1;
        Ok(())
    }
}

impl Snapshotted for Tally {}

#[test]
fn snapshots_are_mirrored_and_events_of_the_system_are_not() {
    let Some(bench) = Bench::new() else { return };
    let snapshots = Snapshots::every(5);
    let tallies =
        Repository::<_, Tally>::new(Arc::new(bench.log.clone())).with_snapshots(&snapshots);
    for number in 1..=12_u64 {
        // The tenth leaves a state that JSONB cannot hold.
        let note = if number == 10 { "\0" } else { "plain" };
        let data = serde_json::json!({ "note": note });
        let event = UntypedEvent { event_type: "Noted".to_owned(), schema_version: 1, data };
        let decide = move |_: &Tally| Ok::<_, &'static str>(vec![event.clone()]);
        block_on(tallies.execute("a", &EventContext::new(), decide)).unwrap();
        block_on(snapshots.settled());
    }
    let mut projections = all();
    projections.push(Arc::new(EventSnapshots::new(OnFailure::Stop)) as Arc<dyn Projection>);
    bench.catch_up(projections);
    let rows = "SELECT aggregate_type, aggregate_id, version, state ->> 'events', \
                encode(state_bytes, 'escape') FROM event_snapshots ORDER BY version";
    let bytes = r#"{"note":"\\u0000","events":10}"#;
    assert_eq!(bench.query(rows), [["Tally", "a", "5", "5", ""], ["Tally", "a", "10", "", bytes]]);
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "12");
    let at = "SELECT DISTINCT last_processed_sequence FROM event_subscriptions";
    assert_eq!(bench.value(at), "14", "the system's events are passed over");
    bench.verify(vec![Arc::new(EventSnapshots::new(OnFailure::Stop))]);
}
