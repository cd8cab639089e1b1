//! What clients keep in the system's aggregates: written by an operation of its own, seen by those
//! who ask.

use quipu_client::EventStore;
use quipu_types::aggregate::CLIENT_SYSTEM_TYPES;
use quipu_types::{
    AggregateKey, Append, AppendError, Filter, Invalid, NewEvent, Position, ReadRequest,
    SubscribeRequest, SubscriptionItem, Version,
};

use super::{all, call, exact, filtered, one, positions, read, stored, within};

fn checkpoint(id: u128) -> NewEvent {
    one(id, &AggregateKey::new("$checkpoint", "main"))
}

pub async fn a_system_append_writes_the_types_that_clients_keep_and_no_other(
    store: &dyn EventStore,
) {
    for (id, given) in (1..).zip(CLIENT_SYSTEM_TYPES) {
        let event = one(id, &AggregateKey::new(given, "x"));
        within(store.append_system(Append::any(vec![event]))).await.unwrap();
    }
    for given in ["$", "$rules", "$Checkpoint", "checkpoint", "Call"] {
        let event = one(9, &AggregateKey::new(given, "x"));
        let append = Append::any(vec![checkpoint(8), event]);
        let refused = within(store.append_system(append)).await.unwrap_err();
        let invalid = Invalid::NotSystemType { given: given.to_owned() };
        assert_eq!(refused, AppendError::Invalid(invalid));
    }
    let kept = CLIENT_SYSTEM_TYPES.len() as u64;
    stored(store, vec![one(20, &call("a"))]).await;
    let seen = positions(&all(store).await);
    assert_eq!(seen, [kept + 1], "nothing of what was refused is there");
}

pub async fn what_clients_keep_is_seen_only_by_those_who_ask(store: &dyn EventStore) {
    stored(store, vec![one(1, &call("a"))]).await;
    within(store.append_system(Append::any(vec![checkpoint(2)]))).await.unwrap();
    stored(store, vec![one(3, &call("a"))]).await;
    assert_eq!(positions(&all(store).await), [1, 3]);
    let asked = Filter { include_system: true, ..Filter::default() };
    assert_eq!(filtered(store, asked.clone()).await, [1, 2, 3]);
    let of_it = Filter::aggregate(AggregateKey::new("$checkpoint", "main"));
    let record = read(store, ReadRequest { filter: of_it, ..Default::default() }).await.remove(0);
    assert_eq!((record.position(), record.version()), (Position(2), Version(1)));
    assert_eq!(record.to_new_event(), checkpoint(2));
    for (filter, expected) in [(Filter::default(), vec![1, 3]), (asked, vec![1, 2, 3])] {
        let request = SubscribeRequest { filter, ..SubscribeRequest::default() };
        let mut subscription = store.subscribe(request).unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&3) {
            for item in within(subscription.next_batch()).await.unwrap() {
                if let SubscriptionItem::Event(record) = item {
                    seen.push(record.position().0);
                }
            }
        }
        assert_eq!(seen, expected);
    }
}

pub async fn a_system_append_is_an_append(store: &dyn EventStore) {
    let key = AggregateKey::new("$checkpoint", "main");
    let first = Append::one(checkpoint(1), exact(0));
    let outcome = within(store.append_system(first.clone())).await.unwrap();
    assert_eq!(outcome.versions, [(key.clone(), Version(1))]);
    // Sent again: a duplicate. Late: a conflict, which is what fences two consumers off.
    assert!(within(store.append_system(first)).await.unwrap().duplicate);
    let late = within(store.append_system(Append::one(checkpoint(2), exact(0)))).await;
    assert!(matches!(late, Err(AppendError::Conflict(of)) if of[0].actual == Version(1)));
    // Other aggregates may be expected, and are not written.
    let held = Append::one(checkpoint(3), exact(1)).expect(call("a"), exact(0));
    within(store.append_system(held.clone())).await.unwrap();
    stored(store, vec![one(4, &call("a"))]).await;
    let moved = Append::one(checkpoint(5), exact(2)).expect(call("a"), exact(0));
    let refused = within(store.append_system(moved)).await;
    assert!(matches!(refused, Err(AppendError::Conflict(of)) if of[0].key == call("a")));
    let invalid = within(store.append_system(Append::default())).await;
    assert_eq!(invalid, Err(AppendError::Invalid(Invalid::NoEvents)));
    assert_eq!(within(store.version(&key)).await, Ok(Version(2)));
}

pub async fn appends_of_both_kinds_are_admitted_in_the_order_polled(store: &dyn EventStore) {
    let futures = (1..=40_u128).map(|id| match id % 2 {
        0 => store.append(Append::any(vec![one(id, &call("a"))])),
        _ => store.append_system(Append::any(vec![checkpoint(id)])),
    });
    for (position, outcome) in (1..).zip(super::together(futures.collect()).await) {
        assert_eq!(outcome.unwrap().positions, [Position(position)]);
    }
}
