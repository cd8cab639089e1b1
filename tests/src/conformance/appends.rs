//! Expectations, atomicity, order and visibility of appends.

use quipu_client::EventStore;
use quipu_types::{AggregateKey, Append, AppendError, ExpectedVersion, Version, VersionConflict};

use super::{all, append, at, call, exact, ids, one, stored, together};

pub async fn every_expectation_is_met_by_its_versions_only(store: &dyn EventStore) {
    let cases = [
        (ExpectedVersion::Any, [true, true, true]),
        (ExpectedVersion::NoStream, [true, false, false]),
        (ExpectedVersion::StreamExists, [false, true, true]),
        (exact(0), [true, false, false]),
        (exact(1), [false, true, false]),
        (exact(2), [false, false, true]),
        (exact(u64::MAX), [false, false, false]),
    ];
    let mut next_id = 1;
    let mut fresh = |key: &AggregateKey| {
        next_id += 1;
        one(next_id, key)
    };
    for (case, (expected, met)) in cases.into_iter().enumerate() {
        for (written, met) in (0..3_u64).zip(met) {
            let key = call(&format!("{case}-{written}"));
            for _ in 0..written {
                stored(store, vec![fresh(&key)]).await;
            }
            let outcome = append(store, Append::one(fresh(&key), expected)).await;
            if met {
                let versions = outcome.unwrap().versions;
                assert_eq!(versions, [(key, Version(written + 1))], "{expected}");
            } else {
                let actual = Version(written);
                let conflict = VersionConflict { key: key.clone(), expected, actual };
                assert_eq!(outcome, Err(AppendError::Conflict(vec![conflict])));
                assert_eq!(store.version(&key).await, Ok(actual), "nothing was written");
            }
        }
    }
}

pub async fn one_append_over_several_aggregates_is_atomic(store: &dyn EventStore) {
    let (a, b) = (call("a"), AggregateKey::new("Account", "b"));
    let both = Append::any(vec![one(1, &a), one(2, &b), one(3, &a)])
        .expect(b.clone(), exact(0))
        .expect(a.clone(), ExpectedVersion::NoStream);
    let outcome = append(store, both).await.unwrap();
    assert_eq!(outcome.positions, at(&[1, 2, 3]));
    let order_of_appearance = [(a.clone(), Version(2)), (b.clone(), Version(1))];
    assert_eq!(outcome.versions, order_of_appearance);
    // One expectation of two fails: neither aggregate is written.
    let half = Append::any(vec![one(4, &a), one(5, &b)])
        .expect(a.clone(), exact(2))
        .expect(b.clone(), exact(7));
    let conflict = VersionConflict { key: b.clone(), expected: exact(7), actual: Version(1) };
    assert_eq!(append(store, half).await, Err(AppendError::Conflict(vec![conflict])));
    assert_eq!(ids(&all(store).await), [1, 2, 3]);
    assert_eq!(store.version(&a).await, Ok(Version(2)));
    assert_eq!(stored(store, vec![one(6, &a)]).await.positions, at(&[4]), "no position is lost");
}

pub async fn a_conflict_lists_every_aggregate_that_failed(store: &dyn EventStore) {
    let keys = ["a", "b", "c", "d"].map(call);
    stored(store, vec![one(1, &keys[0]), one(2, &keys[1]), one(3, &keys[1])]).await;
    let expectations = [exact(5), exact(2), ExpectedVersion::StreamExists, ExpectedVersion::Any];
    let mut several = Append::any(keys.iter().map(|key| one(9, key)).take(1).collect());
    for (key, expected) in keys.iter().zip(expectations) {
        several = several.expect(key.clone(), expected);
    }
    let Err(AppendError::Conflict(mut conflicts)) = append(store, several).await else {
        panic!("two expectations are not met")
    };
    conflicts.sort_by(|x, y| x.key.cmp(&y.key));
    let conflict = |key: &AggregateKey, expected, actual| VersionConflict {
        key: key.clone(),
        expected,
        actual: Version(actual),
    };
    let expected =
        [conflict(&keys[0], exact(5), 1), conflict(&keys[2], ExpectedVersion::StreamExists, 0)];
    assert_eq!(conflicts, expected);
    let text = AppendError::Conflict(conflicts).to_string();
    assert!(text.contains("Call/a") && text.contains("Call/c"), "{text}");
}

pub async fn an_aggregate_can_be_checked_without_being_written(store: &dyn EventStore) {
    let (limit, transfer) = (call("limit"), call("transfer"));
    stored(store, vec![one(1, &limit)]).await;
    let checked =
        |id, expected| Append::any(vec![one(id, &transfer)]).expect(limit.clone(), expected);
    let outcome = append(store, checked(2, exact(1))).await.unwrap();
    assert_eq!(outcome.versions, [(transfer.clone(), Version(1))], "only what was written");
    assert_eq!(store.version(&limit).await, Ok(Version(1)), "checking writes nothing");
    let refused = append(store, checked(3, exact(0))).await;
    assert!(matches!(refused, Err(AppendError::Conflict(list)) if list.len() == 1));
    let never = Append::any(vec![one(4, &transfer)]).expect(call("never"), exact(0));
    assert!(append(store, never).await.is_ok());
    assert_eq!(store.version(&call("never")).await, Ok(Version::NONE));
}

pub async fn an_aggregate_of_many_events_counts_each(store: &dyn EventStore) {
    let key = call("a");
    let first = stored(store, (1..=20).map(|id| one(id, &key)).collect()).await;
    assert_eq!(first.versions, [(key.clone(), Version(20))]);
    let expecting = |id, version| Append::one(one(id, &key), exact(version));
    assert!(append(store, expecting(21, 19)).await.is_err());
    assert!(append(store, expecting(22, 20)).await.is_ok());
    let versions: Vec<u64> = all(store).await.iter().map(|record| record.version().0).collect();
    assert_eq!(versions, (1..=21).collect::<Vec<_>>());
}

pub async fn what_is_acknowledged_is_visible(store: &dyn EventStore) {
    let key = call("a");
    for id in 1..=40 {
        let outcome = stored(store, vec![one(id, &key)]).await;
        let records = all(store).await;
        assert_eq!(records.last().unwrap().position(), outcome.last_position());
        assert_eq!(records.len() as u128, id);
        assert_eq!(store.version(&key).await, Ok(outcome.versions[0].1));
    }
}

pub async fn appends_are_admitted_in_the_order_polled(store: &dyn EventStore) {
    let key = call("a");
    let appends =
        (1..=300_u64).map(|id| store.append(Append::one(one(id.into(), &key), exact(id - 1))));
    let outcomes = together(appends.collect()).await;
    for (id, outcome) in (1..).zip(outcomes) {
        assert_eq!(outcome.unwrap().positions, at(&[id]));
    }
}

pub async fn a_failed_append_does_not_stop_those_behind_it(store: &dyn EventStore) {
    let key = call("a");
    let appends = vec![
        store.append(Append::one(one(1, &key), exact(0))),
        store.append(Append::one(one(2, &key), exact(7))),
        store.append(Append::any(Vec::new())),
        store.append(Append::one(one(3, &key), exact(1))),
    ];
    let outcomes = together(appends).await;
    assert!(outcomes[0].is_ok() && outcomes[3].is_ok(), "{outcomes:?}");
    assert!(matches!(outcomes[1], Err(AppendError::Conflict(_))), "{outcomes:?}");
    assert!(matches!(outcomes[2], Err(AppendError::Invalid(_))), "{outcomes:?}");
    assert_eq!(ids(&all(store).await), [1, 3]);
}
