//! An event id is unique for the life of the log, however events are grouped.

use quipu_client::EventStore;
use quipu_types::{
    Append, AppendError, ExpectedVersion, IdConflictReason, NewEvent, Position, Timestamp, Uuid,
    Version,
};

use super::{all, append, at, call, exact, one, store_many, stored, together};

pub async fn a_repeated_append_is_a_duplicate(store: &dyn EventStore) {
    let (a, b) = (call("a"), call("b"));
    let first = Append::any(vec![one(1, &b), one(2, &a), one(3, &b)]).expect(a.clone(), exact(0));
    let outcome = append(store, first.clone()).await.unwrap();
    stored(store, vec![one(4, &a), one(5, &b)]).await;
    // Its expectation does not hold any more: that is no part of what the append is.
    let again = append(store, first).await.unwrap();
    assert!(again.duplicate);
    assert_eq!(again.positions, outcome.positions);
    assert_eq!(again.versions, outcome.versions, "as of these events, not as of now");
    let impossible = Append::one(one(2, &a), exact(99)).expect(call("never"), exact(5));
    assert!(append(store, impossible).await.unwrap().duplicate);
    assert_eq!(all(store).await.len(), 5);
}

pub async fn a_regrouped_repetition_is_a_duplicate(store: &dyn EventStore) {
    let (a, b) = (call("a"), call("b"));
    stored(store, vec![one(1, &a), one(2, &b)]).await;
    stored(store, vec![one(3, &a), one(4, &a)]).await;
    let regrouped = Append::any(vec![one(4, &a), one(2, &b), one(1, &a)]);
    let outcome = append(store, regrouped).await.unwrap();
    assert!(outcome.duplicate);
    assert_eq!(outcome.positions, at(&[4, 2, 1]), "in the order submitted");
    assert_eq!(outcome.versions, [(a.clone(), Version(3)), (b, Version(1))]);
    for (id, version) in [(1, 1), (3, 2), (4, 3)] {
        let single = append(store, Append::one(one(id, &a), ExpectedVersion::NoStream)).await;
        let single = single.unwrap();
        assert!(single.duplicate);
        assert_eq!(single.versions, [(a.clone(), Version(version))]);
    }
    assert_eq!(all(store).await.len(), 4);
}

fn partly_known(id: u128, position: u64) -> AppendError {
    AppendError::IdConflict {
        event_id: Uuid::from_u128(id),
        position: Position(position),
        reason: IdConflictReason::PartlyKnown,
    }
}

pub async fn a_partly_known_append_names_the_first_known_id(store: &dyn EventStore) {
    let key = call("a");
    stored(store, vec![one(1, &key), one(2, &key), one(3, &key)]).await;
    let given = [
        (vec![one(10, &key), one(3, &key), one(1, &key)], partly_known(3, 3)),
        (vec![one(2, &key), one(11, &key)], partly_known(2, 2)),
    ];
    for (events, expected) in given {
        // Also where the expectation fails: ids are looked up before versions.
        let append_them = Append::any(events).expect(key.clone(), exact(77));
        assert_eq!(append(store, append_them).await, Err(expected));
    }
    assert_eq!(all(store).await.len(), 3, "nothing of them was stored");
    stored(store, vec![one(10, &key), one(11, &key)]).await;
}

pub async fn other_content_under_a_known_id_is_refused(store: &dyn EventStore) {
    let key = call("a");
    stored(store, vec![one(1, &key), one(2, &key)]).await;
    let changes: [fn(&mut NewEvent); 6] = [
        |event| event.aggregate = call("b"),
        |event| event.aggregate.aggregate_type = "Account".into(),
        |event| event.event_type = "Ended".into(),
        |event| event.schema_version = 2,
        |event| event.content_type = "text/plain".into(),
        |event| event.payload = b"{\"n\": 2}".to_vec(),
    ];
    for change in changes {
        let mut other = one(2, &key);
        change(&mut other);
        let refused = append(store, Append::any(vec![one(1, &key), other])).await;
        let expected = AppendError::IdConflict {
            event_id: Uuid::from_u128(2),
            position: Position(2),
            reason: IdConflictReason::OtherContent,
        };
        assert_eq!(refused, Err(expected));
    }
    assert_eq!(all(store).await.len(), 2);
}

pub async fn another_timestamp_or_metadata_is_still_a_duplicate(store: &dyn EventStore) {
    let original = one(1, &call("a"));
    stored(store, vec![original.clone()]).await;
    let changes: [fn(&mut NewEvent); 4] = [
        |event| event.timestamp = Timestamp::from_micros(5),
        |event| event.metadata.correlation_id = "other".into(),
        |event| event.metadata.user_id = Some(Uuid::from_u128(9)),
        |event| event.metadata.custom = b"{\"k\":1}".to_vec(),
    ];
    for change in changes {
        let mut other = original.clone();
        change(&mut other);
        let outcome = append(store, Append::any(vec![other])).await.unwrap();
        assert!(outcome.duplicate);
        assert_eq!(outcome.positions, at(&[1]));
    }
    assert_eq!(all(store).await[0].to_new_event(), original, "the stored ones stand");
}

pub async fn a_duplicate_of_what_is_in_flight_waits_for_it(store: &dyn EventStore) {
    let (key, other) = (call("a"), call("b"));
    for round in 0..50_u64 {
        let id = u128::from(3 * round);
        let events = || vec![one(id + 1, &key), one(id + 2, &key)];
        let appends = vec![
            store.append(Append::any(events()).expect(key.clone(), exact(2 * round))),
            store.append(Append::any(events()).expect(key.clone(), exact(2 * round))),
            store.append(Append::any(vec![one(id + 2, &key)])),
            store.append(Append::any(vec![one(id + 3, &other), one(id + 1, &key)])),
        ];
        let outcomes = together(appends).await;
        let [first, second, single, partly] = &outcomes[..] else { panic!("four appends") };
        let (first, second) = (first.as_ref().unwrap(), second.as_ref().unwrap());
        assert!(!first.duplicate && second.duplicate);
        assert_eq!(first.positions, at(&[2 * round + 1, 2 * round + 2]));
        assert_eq!((&second.positions, &second.versions), (&first.positions, &first.versions));
        assert_eq!(single.as_ref().unwrap().positions, at(&[2 * round + 2]));
        assert_eq!(partly, &Err(partly_known(id + 1, 2 * round + 1)));
        assert_eq!(all(store).await.len() as u64, 2 * (round + 1));
    }
}

pub async fn an_id_is_unique_across_aggregates_and_segments(store: &dyn EventStore) {
    let make = |id: u128| {
        let mut event = one(id, &call(&(id % 7).to_string()));
        event.payload = format!("\"{}\"", "x".repeat(300)).into_bytes();
        event
    };
    store_many(store, 1..=600, make).await;
    for id in [1, 299, 600] {
        let outcome = append(store, Append::any(vec![make(id)])).await.unwrap();
        let position = u64::try_from(id).unwrap();
        assert!(outcome.duplicate);
        assert_eq!(outcome.positions, at(&[position]));
    }
    let spread = append(store, Append::any([600, 1, 8].map(make).to_vec())).await.unwrap();
    assert_eq!(spread.positions, at(&[600, 1, 8]));
    let mut elsewhere = make(1);
    elsewhere.aggregate = call("elsewhere");
    let refused = append(store, Append::any(vec![elsewhere])).await;
    let other = IdConflictReason::OtherContent;
    assert!(matches!(refused, Err(AppendError::IdConflict { reason, .. }) if reason == other));
}
