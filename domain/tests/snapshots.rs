//! The states of the platform's aggregates come back from their snapshots as they were.

use std::fmt::Debug;
use std::sync::Arc;

use futures::executor::block_on;
use quipu_client::*;
use quipu_domain::catalogue::*;
use quipu_domain::*;

/// Raises events, keeps the state after them, and loads it again from what was kept.
fn comes_back<A: Snapshotted + PartialEq + Debug>(events: impl IntoIterator<Item = A::Event>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = Embedded::open(folder.path(), Options::default()).expect("a new log opens");
    let snapshots = Snapshots::every(1);
    let aggregates = Repository::<_, A>::new(Arc::new(log.clone())).with_snapshots(&snapshots);
    block_on(async {
        let mut root = aggregates.load("1").await.expect("nothing is there");
        for event in events {
            root.raise(event).expect("the events follow each other");
        }
        aggregates.save(&mut root, &EventContext::new()).await.expect("it is saved");
        snapshots.settled().await;
        assert_eq!(snapshots.counts().taken, 1, "{:?}", snapshots.counts());
        let filter = Filter::aggregate(AggregateKey::new(SNAPSHOT_TYPE, format!("{}/1", A::TYPE)));
        let read = ReadRequest { filter, ..Default::default() };
        let kept = log.read(read).next_batch().await.expect("the log can be read");
        let kept: serde_json::Value = serde_json::from_slice(kept[0].payload()).expect("JSON");
        let state: A = serde_json::from_value(kept["state"].clone()).expect("the state fits");
        assert_eq!(&state, root.state());
        assert_eq!(aggregates.load("1").await.expect("it loads").state(), root.state());
    });
}

#[test]
fn a_call() {
    comes_back::<Call>([CallCreated {}.into(), CallAttempted::example().into()]);
}

#[test]
fn consents() {
    let granted = ConsentGranted::example();
    let other = ConsentGranted { channel: Channel::Sms, expires_at: None, ..granted.clone() };
    comes_back::<Consent>([granted.into(), other.into(), ConsentRevoked::example().into()]);
}

#[test]
fn an_account() {
    comes_back::<Account>([AccountOpened::example().into(), PaymentReceived::example().into()]);
}
