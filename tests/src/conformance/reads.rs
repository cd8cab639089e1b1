//! Reads: order, beginnings, limits, filters, bytes, and what is visible when.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures_timer::Delay;
use quipu_client::EventStore;
use quipu_types::{
    AggregateKey, Append, Direction, Filter, Metadata, NewEvent, ReadRequest, Record, Timestamp,
    Uuid, Version,
};

use super::{
    all, call, exact, filtered, ids, one, positions, read, store_many, stored, together, within,
};

/// Enough to cross many segments.
const MANY: u64 = 700;
const TYPES: [&str; 3] = ["Created", "Answered", "Ended"];

/// The `n`th of [`MANY`] events: aggregates, types, correlation ids and times take turns.
fn nth(id: u128) -> NewEvent {
    let index = usize::try_from(id).unwrap();
    let aggregate_type = if id.is_multiple_of(5) { "Account" } else { "Call" };
    let mut event = one(id, &AggregateKey::new(aggregate_type, (id % 11).to_string()));
    event.event_type = TYPES[index % 3].into();
    event.timestamp = time(id);
    event.metadata.correlation_id = format!("business {}", id / 8 % 20);
    event.payload = format!("{{\"n\":{id},\"text\":\"{}\"}}", "x".repeat(300)).into_bytes();
    event
}

/// Not in the order of the log: the order is position, never time.
fn time(id: u128) -> Timestamp {
    Timestamp::from_micros(i64::try_from(id * 37 % 1_000).unwrap())
}

async fn store_all(store: &dyn EventStore) {
    store_many(store, 1..=MANY.into(), nth).await;
}

fn request(from: u64, direction: Direction) -> ReadRequest {
    ReadRequest { from: Some(from), direction, ..ReadRequest::default() }
}

fn reversed<T>(mut list: Vec<T>) -> Vec<T> {
    list.reverse();
    list
}

pub async fn reads_go_both_ways_from_any_position(store: &dyn EventStore) {
    let backward = Direction::Backward;
    let unbounded = ReadRequest { direction: backward, ..ReadRequest::default() };
    assert!(all(store).await.is_empty());
    assert!(read(store, unbounded.clone()).await.is_empty());
    store_all(store).await;
    assert_eq!(positions(&all(store).await), (1..=MANY).collect::<Vec<_>>());
    let whole = read(store, unbounded).await;
    assert_eq!(positions(&whole), reversed((1..=MANY).collect()));
    for from in [0, 1, 2, 31, 32, 33, MANY / 2, MANY - 1, MANY, MANY + 1, u64::MAX] {
        let forward = read(store, request(from, Direction::Forward)).await;
        assert_eq!(positions(&forward), (from.max(1)..=MANY).collect::<Vec<_>>(), "from {from}");
        let back = read(store, request(from, backward)).await;
        assert_eq!(positions(&back), reversed((1..=from.min(MANY)).collect()), "from {from}");
    }
}

pub async fn reads_go_both_ways_from_any_version(store: &dyn EventStore) {
    store_all(store).await;
    let key = AggregateKey::new("Call", "3");
    let filter = Filter::aggregate(key.clone());
    let of_key: Vec<Record> =
        all(store).await.into_iter().filter(|record| record.is_of(&key)).collect();
    let last = of_key.len() as u64;
    assert!(last > 20, "{last}");
    for from in [0, 1, 2, last / 2, last - 1, last, last + 1, u64::MAX] {
        for direction in [Direction::Forward, Direction::Backward] {
            let given = ReadRequest { filter: filter.clone(), ..request(from, direction) };
            let found = read(store, given).await;
            let forward = direction == Direction::Forward;
            let wanted = of_key.iter().filter(|record| {
                let version = record.version().0;
                if forward { version >= from } else { version <= from }
            });
            let wanted = positions(&wanted.cloned().collect::<Vec<_>>());
            let wanted = if forward { wanted } else { reversed(wanted) };
            assert_eq!(positions(&found), wanted, "{direction:?} from {from}");
        }
    }
    assert!(filtered(store, Filter::aggregate(call("never"))).await.is_empty());
}

pub async fn a_limit_ends_a_read_and_a_page_is_bounded(store: &dyn EventStore) {
    store_all(store).await;
    for limit in [0, 1, 2, 511, 512, 513, MANY, MANY + 1] {
        let given = ReadRequest { limit: Some(limit), ..ReadRequest::default() };
        assert_eq!(read(store, given).await.len() as u64, limit.min(MANY));
    }
    let back = ReadRequest { limit: Some(3), ..request(600, Direction::Backward) };
    assert_eq!(positions(&read(store, back).await), [600, 599, 598]);
    let filter = Filter { event_types: vec!["Ended".to_owned()], ..Filter::default() };
    let given = ReadRequest { filter, limit: Some(4), ..request(100, Direction::Forward) };
    assert_eq!(positions(&read(store, given).await), [101, 104, 107, 110]);
    let mut pages = store.read(ReadRequest::default());
    let mut seen = 0;
    loop {
        let page = within(pages.next_batch()).await.unwrap();
        assert!(page.len() <= 512, "a page of {}", page.len());
        if page.is_empty() {
            break;
        }
        seen += page.len() as u64;
    }
    assert_eq!(seen, MANY, "a page that is not the last is never empty");
}

fn filters() -> Vec<Filter> {
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let any = Filter::default;
    let since = Some(Timestamp::from_micros(300));
    let until = Some(Timestamp::from_micros(700));
    vec![
        any(),
        Filter::aggregate(AggregateKey::new("Account", "5")),
        Filter { aggregate_types: of(&["Account"]), ..any() },
        Filter { aggregate_types: of(&["Account", "Call"]), ..any() },
        Filter { aggregate_types: of(&["account"]), ..any() },
        Filter { event_types: of(&["Ended"]), ..any() },
        Filter { event_types: of(&["Ended", "Created", "Never"]), ..any() },
        Filter { correlation_id: Some("business 7".to_owned()), ..any() },
        Filter { correlation_id: Some("business".to_owned()), ..any() },
        Filter { correlation_id: Some(String::new()), ..any() },
        Filter { since, ..any() },
        Filter { until, ..any() },
        Filter { since, until, ..any() },
        Filter { since: until, until: since, ..any() },
        Filter {
            aggregate: Some(AggregateKey::new("Call", "4")),
            event_types: of(&["Created"]),
            since,
            ..any()
        },
        Filter {
            aggregate_types: of(&["Call"]),
            event_types: of(&["Answered"]),
            correlation_id: Some("business 3".to_owned()),
            until,
            ..any()
        },
    ]
}

fn takes(filter: &Filter, event: &NewEvent) -> bool {
    let named = |names: &[String], given: &String| names.is_empty() || names.contains(given);
    filter.aggregate.as_ref().is_none_or(|key| *key == event.aggregate)
        && named(&filter.aggregate_types, &event.aggregate.aggregate_type)
        && named(&filter.event_types, &event.event_type)
        && (filter.correlation_id.as_ref()).is_none_or(|id| *id == event.metadata.correlation_id)
        && filter.since.is_none_or(|since| event.timestamp >= since)
        && filter.until.is_none_or(|until| event.timestamp < until)
}

fn taken(filter: &Filter) -> Vec<u64> {
    (1..=MANY).filter(|position| takes(filter, &nth((*position).into()))).collect()
}

pub async fn every_filter_takes_exactly_its_records(store: &dyn EventStore) {
    store_all(store).await;
    for filter in filters() {
        let wanted = taken(&filter);
        assert_eq!(filtered(store, filter.clone()).await, wanted, "{filter:?}");
        let direction = Direction::Backward;
        let given = ReadRequest { filter, direction, ..ReadRequest::default() };
        assert_eq!(positions(&read(store, given.clone()).await), reversed(wanted), "{given:?}");
    }
    let records = all(store).await;
    for at in [0, records.len() / 2, records.len() - 1] {
        let since = records[at].recorded_at();
        let filter = Filter { recorded_since: Some(since), ..Filter::default() };
        let wanted = records.iter().filter(|record| record.recorded_at() >= since);
        let wanted = positions(&wanted.cloned().collect::<Vec<_>>());
        assert_eq!(filtered(store, filter).await, wanted);
    }
    let after_all =
        Timestamp::from_micros(records[records.len() - 1].recorded_at().as_micros() + 1);
    let filter = Filter { recorded_since: Some(after_all), ..Filter::default() };
    assert!(filtered(store, filter).await.is_empty());
}

pub async fn a_filtered_read_may_begin_anywhere(store: &dyn EventStore) {
    store_all(store).await;
    for filter in filters().into_iter().filter(|filter| filter.aggregate.is_none()) {
        let wanted = taken(&filter);
        for from in [2, MANY / 3, MANY - 1] {
            let forward =
                ReadRequest { filter: filter.clone(), ..request(from, Direction::Forward) };
            let found = positions(&read(store, forward).await);
            let of = |wanted: &[u64], take: &dyn Fn(u64) -> bool| {
                wanted.iter().copied().filter(|position| take(*position)).collect::<Vec<_>>()
            };
            assert_eq!(found, of(&wanted, &|it| it >= from), "{filter:?} from {from}");
            let back = ReadRequest { filter: filter.clone(), ..request(from, Direction::Backward) };
            let found = positions(&read(store, back).await);
            assert_eq!(found, reversed(of(&wanted, &|it| it <= from)), "{filter:?} to {from}");
        }
    }
}

pub async fn stored_bytes_come_back_identical(store: &dyn EventStore) {
    let odd_json = [
        "  {\"b\" : 1e0, \"a\":-0.0, \"a\": 1.000000000000000000001}\n\t",
        "12345678901234567890123456789012345678901234567890",
        "\"\\ud83d\\ude00 \\u0041 \u{1F600}\"",
        "null",
        "[[[[[[[[[[[[]]]]]]]]]]]]",
        "{\"\":\"\",\"\":\"\"}",
    ];
    let key = call("a");
    let mut events = Vec::new();
    for (id, text) in (1..).zip(odd_json) {
        let mut event = one(id, &key);
        event.payload = text.into();
        event.metadata.custom = format!(" {{\"odd\":{text}}} ").into_bytes();
        events.push(event);
    }
    for (id, length) in (100..).zip([0, 1, 7, 8, 9, 255, 4_000]) {
        let mut event = one(id, &key);
        event.content_type = "application/octet-stream".into();
        event.payload = (0..=255).cycle().skip(usize::try_from(id).unwrap()).take(length).collect();
        events.push(event);
    }
    let mut full = one(200, &AggregateKey::new("Type with spaces", "id/with/ünïcode 🪢"));
    full.schema_version = u16::MAX;
    full.timestamp = Timestamp::from_micros(-62_135_596_800_000_001);
    full.metadata = Metadata {
        user_id: Some(Uuid::from_u128(u128::MAX)),
        correlation_id: "correlation".to_owned(),
        causation_id: "causation".to_owned(),
        ip_address: "2001:db8::1".to_owned(),
        user_agent: "agent/1.0 (ünïcode)".to_owned(),
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
        custom: b"{}".to_vec(),
    };
    events.push(full);
    for append in events.chunks(4) {
        stored(store, append.to_vec()).await;
    }
    let records = all(store).await;
    let back: Vec<NewEvent> = records.iter().map(Record::to_new_event).collect();
    assert_eq!(back, events);
    for record in &records {
        assert_eq!(record.payload_bytes(), record.payload(), "shares the record's bytes");
    }
}

pub async fn a_version_is_the_number_of_events(store: &dyn EventStore) {
    assert_eq!(store.version(&call("3")).await, Ok(Version::NONE));
    store_all(store).await;
    for id in 0..11 {
        let key = call(&id.to_string());
        let count = filtered(store, Filter::aggregate(key.clone())).await.len() as u64;
        assert_eq!(store.version(&key).await, Ok(Version(count)));
        let account = AggregateKey::new("Account", id.to_string());
        let count = filtered(store, Filter::aggregate(account.clone())).await.len() as u64;
        assert_eq!(store.version(&account).await, Ok(Version(count)), "types are told apart");
    }
}

pub async fn recorded_at_never_goes_back(store: &dyn EventStore) {
    store_all(store).await;
    let records = all(store).await;
    let times: Vec<Timestamp> = records.iter().map(Record::recorded_at).collect();
    assert!(times.is_sorted());
    let known = 1_577_836_800_000_000; // 2020: a clock, not a counter
    assert!(times[0].as_micros() > known, "{}", times[0]);
}

pub async fn a_reader_sees_a_gapless_prefix_while_others_write(store: &dyn EventStore) {
    let acknowledged = AtomicU64::new(0);
    let (writers, each) = (8_u64, 30_u64);
    let write = async |writer: u64| {
        let key = call(&writer.to_string());
        for version in 0..each {
            let id = u128::from(writer * 1_000 + version + 1);
            let append = Append::one(one(id, &key), exact(version));
            let outcome = store.append(append).await.unwrap();
            acknowledged.fetch_max(outcome.last_position().0, Ordering::SeqCst);
        }
    };
    let watch = async {
        loop {
            let before = acknowledged.load(Ordering::SeqCst);
            let records = all(store).await;
            let seen = records.len() as u64;
            assert_eq!(positions(&records), (1..=seen).collect::<Vec<_>>());
            assert!(before <= seen, "{before} was acknowledged, {seen} are seen");
            if seen == writers * each {
                return;
            }
            // A read from memory need not wait: let the writers have their turn.
            Delay::new(Duration::from_millis(1)).await;
        }
    };
    let mut tasks: Vec<futures::future::LocalBoxFuture<'_, ()>> =
        (1..=writers).map(|writer| write(writer).boxed_local()).collect();
    tasks.push(watch.boxed_local());
    within(futures::future::join_all(tasks)).await;
}

pub async fn a_read_is_of_what_was_there_when_it_began(store: &dyn EventStore) {
    store_all(store).await;
    let mut pages = store.read(ReadRequest::default());
    let mut seen = ids(&within(pages.next_batch()).await.unwrap());
    assert!(!seen.is_empty());
    let later = (1..=64).map(|id| store.append(Append::any(vec![one(10_000 + id, &call("late"))])));
    for outcome in together(later.collect()).await {
        outcome.unwrap();
    }
    loop {
        let page = within(pages.next_batch()).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(ids(&page));
    }
    assert_eq!(seen, (1..=MANY.into()).collect::<Vec<u128>>());
}
