//! Many clients of one server process at once: what they cost it, and that each gets what is its.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use futures::future::{join_all, try_join_all};
use quipu_client::{
    AggregateKey, Append, EventStore, Filter, Position, Remote, StartAfter, SubscribeRequest,
    SubscriptionItem, Uuid,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Place, Serving, serve};
use tokio::runtime::Runtime;
use tokio::time::timeout;

const MIB: u64 = 1 << 20;
const PATIENCE: Duration = Duration::from_mins(2);

/// A thousand connections are two thousand descriptors where both ends are in one machine's hands.
fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn connect(serving: &Serving) -> Remote {
    Remote::connect(&serving.listen).await.unwrap()
}

fn of(aggregate: u64) -> AggregateKey {
    AggregateKey::new("Crowd", aggregate.to_string())
}

/// So many events of 1 KB, event n of aggregate n modulo `aggregates`, hundreds at a time.
async fn append(store: &Remote, events: u64, aggregates: u64) {
    let data = format!("\"{}\"", "x".repeat(1_022));
    let numbers: Vec<u64> = (0..events).collect();
    for appends in numbers.chunks(100).collect::<Vec<_>>().chunks(8) {
        let stored = appends.iter().map(|numbers| {
            let event = |number: &u64| store.new_event(of(number % aggregates), "Came", &*data);
            store.append(Append::any(numbers.iter().map(event).collect()))
        });
        timeout(PATIENCE, try_join_all(stored)).await.unwrap().unwrap();
    }
}

/// Positions and ids of the next events of a subscription.
async fn hear(
    subscription: &mut quipu_client::Subscription,
    events: usize,
) -> Vec<(Position, Uuid)> {
    let mut heard = Vec::new();
    while heard.len() < events {
        let items = timeout(PATIENCE, subscription.next_batch()).await.unwrap().unwrap();
        for item in items {
            if let SubscriptionItem::Event(record) = item {
                heard.push((record.position(), record.event_id()));
            }
        }
    }
    heard
}

fn from_the_beginning(filter: Filter) -> SubscribeRequest {
    SubscribeRequest { filter, after: StartAfter::Position(Position::START) }
}

#[test]
fn a_thousand_idle_connections_and_200_subscribers_cost_little() {
    const CONNECTIONS: usize = 1_000;
    const SUBSCRIBERS: usize = 200;
    allow_many_files();
    let place = Place::new();
    let serving = serve(&place.log);
    runtime().block_on(async {
        let writer = connect(&serving).await;
        append(&writer, 10_000, 100).await;
        let alone = serving.resident_bytes();
        let crowd = join_all((0..CONNECTIONS).map(|_| connect(&serving))).await;
        let connected = serving.resident_bytes();
        let all = || from_the_beginning(Filter::default());
        let mut subscriptions: Vec<_> =
            crowd.iter().take(SUBSCRIBERS).map(|it| it.subscribe(all()).unwrap()).collect();
        let heard = join_all(subscriptions.iter_mut().map(|it| hear(it, 10_000))).await;
        assert!(heard.iter().all(|it| it.iter().map(|(at, _)| at.0).eq(1..=10_000)), "all, once");
        append(&writer, 1_000, 100).await;
        let heard = join_all(subscriptions.iter_mut().map(|it| hear(it, 1_000))).await;
        assert!(heard.iter().all(|it| *it == heard[0]));
        let subscribed = serving.resident_bytes();
        eprintln!(
            "server: {} MiB alone, {} MiB more for {CONNECTIONS} connections, {} MiB more with \
             {SUBSCRIBERS} subscribers who were sent 11,000 events of 1 KB each",
            alone / MIB,
            connected.saturating_sub(alone) / MIB,
            subscribed.saturating_sub(connected) / MIB
        );
        assert!(connected < alone + 64 * MIB);
        assert!(subscribed < connected + 256 * MIB);
    });
    serving.stop();
}

#[test]
fn a_hundred_subscribers_with_different_filters_each_get_exactly_theirs() {
    const SUBSCRIBERS: u64 = 100;
    const EVENTS: u64 = 5_000;
    let place = Place::new();
    let serving = serve(&place.log);
    runtime().block_on(async {
        let store = connect(&serving).await;
        append(&store, EVENTS / 2, SUBSCRIBERS).await;
        let mut subscriptions: Vec<_> = (0..SUBSCRIBERS)
            .map(|aggregate| from_the_beginning(Filter::aggregate(of(aggregate))))
            .map(|request| store.subscribe(request).unwrap())
            .collect();
        let each = usize::try_from(EVENTS / SUBSCRIBERS).unwrap();
        let hear_all = join_all(subscriptions.iter_mut().map(|it| hear(it, each)));
        let (heard, ()) = tokio::join!(hear_all, append(&store, EVENTS / 2, SUBSCRIBERS));
        for (aggregate, heard) in (0..).zip(heard) {
            let positions: Vec<u64> = heard.iter().map(|(position, _)| position.0).collect();
            let expected: Vec<u64> =
                (0..EVENTS / SUBSCRIBERS).map(|it| it * SUBSCRIBERS + aggregate + 1).collect();
            assert_eq!(positions, expected, "aggregate {aggregate}");
        }
    });
    serving.stop();
}

/// Its place in the log is all that the server holds for it. More events: `CROWD_EVENTS=1000000`.
#[test]
fn a_subscriber_that_stops_reading_misses_nothing_and_costs_the_server_little() {
    let events = std::env::var("CROWD_EVENTS").map_or(50_000, |it| it.parse().unwrap());
    let place = Place::new();
    let serving = serve(&place.log);
    runtime().block_on(async {
        let (writer, reader) = (connect(&serving).await, connect(&serving).await);
        let request = from_the_beginning(Filter::default());
        let mut slow = reader.subscribe(request).unwrap();
        append(&writer, 100, 100).await;
        assert_eq!(hear(&mut slow, 100).await.len(), 100);
        append(&writer, events / 10, 100).await;
        let before = serving.resident_bytes();
        append(&writer, events - events / 10, 100).await;
        let after = serving.resident_bytes();
        let sent = events * 1_024;
        let (grown, sent) = (after.saturating_sub(before) / MIB, sent / MIB);
        eprintln!(
            "server: {grown} MiB more after {events} events, {sent} MiB, that one did not read"
        );
        // Ids and versions are in memory; the newest groups and the window are bounded.
        assert!(after < before + 96 * MIB + events * 200, "{grown} MiB");
        let heard = hear(&mut slow, usize::try_from(events).unwrap()).await;
        assert!(heard.iter().map(|(position, _)| position.0).eq(101..=events + 100));
    });
    serving.stop();
}
