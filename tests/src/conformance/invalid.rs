//! What can never be stored is refused, with the field, the limit and what was given.

use quipu_client::EventStore;
use quipu_types::{AggregateKey, Append, AppendError, Invalid, NewEvent, Record, Timestamp, Uuid};

use super::{LIMITS, all, append, call, exact, one, stored};

/// Refused, as this, and nothing of it stored.
async fn refused(store: &dyn EventStore, given: Append) -> Invalid {
    match append(store, given).await {
        Err(AppendError::Invalid(invalid)) => invalid,
        other => panic!("should be invalid, is {other:?}"),
    }
}

async fn refused_event(store: &dyn EventStore, change: impl FnOnce(&mut NewEvent)) -> Invalid {
    let mut event = one(7, &call("a"));
    change(&mut event);
    // Among others, so that a part could be stored by mistake.
    refused(store, Append::any(vec![one(6, &call("a")), event])).await
}

pub async fn an_append_without_events_is_invalid(store: &dyn EventStore) {
    assert_eq!(refused(store, Append::default()).await, Invalid::NoEvents);
    let check_only = Append::default().expect(call("a"), exact(0));
    assert_eq!(refused(store, check_only).await, Invalid::NoEvents);
}

pub async fn an_id_twice_in_one_append_is_invalid(store: &dyn EventStore) {
    let event_id = Uuid::from_u128(1);
    let twice = || Append::any(vec![one(1, &call("a")), one(2, &call("a")), one(1, &call("b"))]);
    assert_eq!(refused(store, twice()).await, Invalid::RepeatedEventId { event_id });
    stored(store, vec![one(1, &call("a"))]).await;
    let known = refused(store, twice()).await;
    assert_eq!(known, Invalid::RepeatedEventId { event_id }, "also where the id is known");
}

pub async fn two_expectations_of_one_aggregate_are_invalid(store: &dyn EventStore) {
    let key = call("a");
    let twice = Append::one(one(1, &key), exact(0)).expect(key.clone(), exact(0));
    assert_eq!(refused(store, twice).await, Invalid::RepeatedExpectation { key });
    assert!(all(store).await.is_empty());
}

type SetText = fn(&mut NewEvent, String);

/// Every text of an event: its name, its limit, whether it may be empty, and how it is set.
const TEXTS: [(&str, usize, bool, SetText); 9] = [
    ("aggregate_type", 100, false, |event, text| event.aggregate.aggregate_type = text),
    ("aggregate_id", 255, false, |event, text| event.aggregate.aggregate_id = text),
    ("event_type", 100, false, |event, text| event.event_type = text),
    ("content_type", 100, false, |event, text| event.content_type = text),
    ("correlation_id", 255, true, |event, text| event.metadata.correlation_id = text),
    ("causation_id", 255, true, |event, text| event.metadata.causation_id = text),
    ("ip_address", 64, true, |event, text| event.metadata.ip_address = text),
    ("user_agent", 1_024, true, |event, text| event.metadata.user_agent = text),
    ("traceparent", 64, true, |event, text| event.metadata.traceparent = text),
];

pub async fn every_field_has_its_limit(store: &dyn EventStore) {
    for (field, limit, _, set) in TEXTS {
        let given = limit + 1;
        let invalid = refused_event(store, |event| set(event, "x".repeat(given))).await;
        assert_eq!(invalid, Invalid::TooLong { field, limit, given });
        let text = invalid.to_string();
        let figures = [limit.to_string(), given.to_string()];
        assert!(text.contains(field) && figures.iter().all(|it| text.contains(it)), "{text}");
        // Limits count bytes, not characters: 'ö' has two.
        let umlauts = limit / 2 + 1;
        let invalid = refused_event(store, |event| set(event, "ö".repeat(umlauts))).await;
        assert_eq!(invalid, Invalid::TooLong { field, limit, given: 2 * umlauts });
    }
    let limit = 64 * 1024;
    let custom = format!("{{\"k\":\"{}\"}}", "x".repeat(limit)).into_bytes();
    let given = custom.len();
    let invalid = refused_event(store, |event| event.metadata.custom = custom).await;
    let field = "custom";
    let too_long = Invalid::TooLong { field, limit, given };
    // Where an append holds less than the custom limit, the append's limit comes first.
    assert!(invalid == too_long || matches!(invalid, Invalid::AppendTooLarge { .. }), "{invalid}");
    assert!(all(store).await.is_empty(), "nothing was stored");
}

pub async fn empty_names_and_control_characters_are_invalid(store: &dyn EventStore) {
    for (field, _, may_be_empty, set) in TEXTS {
        if !may_be_empty {
            let invalid = refused_event(store, |event| set(event, String::new())).await;
            assert_eq!(invalid, Invalid::Empty { field });
        }
        for (control, given) in [("ab\u{0}", 0), ("ab\n", 10), ("ab\u{7f}", 127), ("ab\u{85}", 133)]
        {
            let invalid = refused_event(store, |event| set(event, control.to_owned())).await;
            assert_eq!(invalid, Invalid::ControlCharacter { field, at: 2, given });
        }
    }
    let key = AggregateKey::new("Call", "");
    let check_only = Append::any(vec![one(1, &call("a"))]).expect(key, exact(0));
    assert_eq!(refused(store, check_only).await, Invalid::Empty { field: "aggregate_id" });
    assert!(all(store).await.is_empty(), "nothing was stored");
}

pub async fn ids_and_timestamps_that_cannot_be_are_invalid(store: &dyn EventStore) {
    let nil = refused_event(store, |event| event.event_id = Uuid::nil()).await;
    assert_eq!(nil, Invalid::NilEventId);
    for micros in [i64::MIN, i64::MAX] {
        let time = Timestamp::from_micros(micros);
        let invalid = refused_event(store, |event| event.timestamp = time).await;
        assert_eq!(invalid, Invalid::Timestamp { micros });
    }
    assert!(all(store).await.is_empty(), "nothing was stored");
}

pub async fn an_event_and_an_append_have_their_limits(store: &dyn EventStore) {
    let limit = LIMITS.event_bytes_max;
    let invalid = refused_event(store, |event| {
        event.payload = vec![b' '; limit];
        event.metadata.custom = b"{}".to_vec();
    });
    assert_eq!(invalid.await, Invalid::EventTooLarge { limit, given: limit + 2 });
    let limit = LIMITS.append_events_max;
    let many = (1..=limit as u128 + 1).map(|id| one(id, &call("a"))).collect();
    let invalid = refused(store, Append::any(many)).await;
    assert_eq!(invalid, Invalid::TooManyEvents { limit, given: limit + 1 });
    let limit = LIMITS.append_bytes_max;
    let large = (1..=5).map(|id| {
        let mut event = one(id, &call("a"));
        event.payload = format!("\"{}\"", "x".repeat(4_000)).into_bytes();
        event
    });
    match refused(store, Append::any(large.collect())).await {
        Invalid::AppendTooLarge { limit: said, given } => {
            assert_eq!(said, limit);
            assert!(given > limit, "{given}");
        }
        other => panic!("{other}"),
    }
    assert!(all(store).await.is_empty(), "nothing was stored");
}

pub async fn what_is_not_json_is_refused_only_as_json(store: &dyn EventStore) {
    for payload in ["", "{", "{} x", "'a'", "{\"a\":01}", "[1,]", "\u{feff}{}"] {
        let invalid = refused_event(store, |event| event.payload = payload.into()).await;
        assert!(matches!(invalid, Invalid::NotJson { field: "data", .. }), "{payload}: {invalid}");
    }
    for (custom, is_json) in [("{", false), ("[1]", true), ("\"text\"", true)] {
        let invalid = refused_event(store, |event| event.metadata.custom = custom.into()).await;
        let expected = if is_json {
            matches!(invalid, Invalid::NotAnObject { field: "custom" })
        } else {
            matches!(invalid, Invalid::NotJson { field: "custom", .. })
        };
        assert!(expected, "{custom}: {invalid}");
    }
    let mut opaque = one(1, &call("a"));
    opaque.content_type = "text/plain".into();
    opaque.payload = b"{".to_vec();
    stored(store, vec![opaque]).await;
    assert_eq!(all(store).await.len(), 1);
}

pub async fn system_types_are_refused(store: &dyn EventStore) {
    for given in ["$", "$snapshot", "$Call"] {
        let invalid = refused_event(store, |event| event.aggregate.aggregate_type = given.into());
        assert_eq!(invalid.await, Invalid::SystemType { given: given.to_owned() });
    }
    stored(store, vec![one(1, &AggregateKey::new("a$", "$id"))]).await;
    assert_eq!(all(store).await.len(), 1, "only the first character counts");
}

pub async fn what_is_just_within_the_limits_is_stored(store: &dyn EventStore) {
    let mut events = Vec::new();
    for (id, (_, limit, may_be_empty, set)) in (1..).zip(TEXTS) {
        let mut event = one(id, &call("a"));
        set(&mut event, "x".repeat(limit));
        events.push(event);
        if may_be_empty {
            let mut event = one(id + 100, &call("a"));
            set(&mut event, String::new());
            events.push(event);
        }
    }
    let mut largest = one(50, &call("with spaces/and/slashes, ünd Ümläute"));
    largest.payload = format!("\"{}\"", "x".repeat(LIMITS.event_bytes_max - 2)).into_bytes();
    events.push(largest);
    let most = (1_000..1_000 + LIMITS.append_events_max as u128).map(|id| one(id, &call("b")));
    let most: Vec<NewEvent> = most.collect();
    for append in [events.clone(), most.clone()] {
        stored(store, append).await;
    }
    let back: Vec<NewEvent> = all(store).await.iter().map(Record::to_new_event).collect();
    assert_eq!(back, [events, most].concat());
}
