//! A client, a server and a network that fails between them: nothing acknowledged is lost, nothing
//! is stored twice, a subscriber sees each position once, and nothing is left over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use quipu_client::{
    AggregateKey, Append, Checkpoint, EventStore, Filter, NewEvent, Options, Position, ReadRequest,
    Remote, RemoteOptions, StartAfter, SubscribeRequest, Subscription, SubscriptionItem, Uuid,
    Version,
};
use quipu_server::ServerOptions;
use quipu_tests::events::event;
use quipu_tests::proxy::{Cut, Proxy};
use quipu_tests::served::Served;
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_mins(1);

fn serve(folder: &TempDir) -> Served {
    Served::open(folder.path(), Options::default(), ServerOptions::default())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing came in time")
}

fn numbered(number: u64, key: &AggregateKey) -> NewEvent {
    event(u128::from(number), key, "Counted")
}

async fn connect(address: &str) -> Remote {
    loop {
        match Remote::connect(address).await {
            Ok(remote) => return remote,
            Err(error) if error.is_retryable() => {}
            Err(error) => panic!("{error}"),
        }
    }
}

/// The ids and positions of the next events, which must rise.
async fn follow(subscription: &mut Subscription, count: usize) -> Vec<(u128, Position)> {
    let mut events: Vec<(u128, Position)> = Vec::new();
    while events.len() < count {
        for item in within(subscription.next_batch()).await.expect("it goes on") {
            if let SubscriptionItem::Event(record) = item {
                let position = record.position();
                assert!(events.last().is_none_or(|last| last.1 < position), "{position} again");
                events.push((record.event_id().as_u128(), position));
            }
        }
    }
    events
}

/// Two appends of two and one events, followed and read back, over a wire that is cut.
async fn conversation(port: u16, number: u64, cut: Cut) -> (usize, usize) {
    let proxy = Proxy::to(port, cut).await;
    let remote = connect(&proxy.address).await;
    let key = AggregateKey::new("Cut", number.to_string());
    let filter = Filter::aggregate(key.clone());
    let request = SubscribeRequest { filter: filter.clone(), after: StartAfter::default() };
    let mut subscription = remote.subscribe(request).expect("it is this log's");
    let ids = [3 * number, 3 * number + 1, 3 * number + 2];
    let first = ids[..2].iter().map(|id| numbered(*id, &key)).collect();
    let appends = [Append::any(first), Append::any(vec![numbered(ids[2], &key)])];
    let outcomes = within(join_all(appends.map(|append| remote.append(append)))).await;
    let positions: Vec<Position> =
        outcomes.into_iter().flat_map(|outcome| outcome.expect("stored").positions).collect();
    let expected: Vec<(u128, Position)> = ids.map(u128::from).into_iter().zip(positions).collect();
    assert_eq!(follow(&mut subscription, 3).await, expected, "{cut:?}");
    let read = remote.read(ReadRequest { filter, ..ReadRequest::default() });
    let records = within(read.collect::<Vec<_>>()).await;
    let read = records.into_iter().map(|record| record.expect("readable"));
    let read: Vec<_> = read.map(|it| (it.event_id().as_u128(), it.position())).collect();
    assert_eq!(read, expected, "{cut:?}");
    assert_eq!(within(remote.version(&key)).await, Ok(Version(3)), "{cut:?}");
    proxy.traffic()
}

#[test]
fn a_connection_may_be_cut_after_any_byte() {
    let folder = TempDir::new().unwrap();
    let served = serve(&folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let port = served.port();
        let (sent, received) = conversation(port, 1, Cut::Never).await;
        assert!(sent > 400 && received > 700, "{sent} and {received} bytes are too few");
        let cuts = (0..sent).map(Cut::Sent).chain((0..received).map(Cut::Received));
        let cuts: Vec<_> = (2..).zip(cuts).collect();
        let talk = stream::iter(cuts).map(|(number, cut)| conversation(port, number, cut));
        talk.buffer_unordered(64).for_each(|_| async {}).await;
    });
    drop(runtime);
    served.stop();
}

/// Appends one event after the other until told to stop; returns what was acknowledged.
async fn write(remote: Remote, writer: u64, stop: Arc<AtomicU64>) -> Vec<(u128, Position)> {
    let key = AggregateKey::new("Writer", writer.to_string());
    let mut stored = Vec::new();
    while stop.load(Ordering::Relaxed) == 0 {
        let id = u128::from(writer) << 64 | (stored.len() as u128 + 1);
        let outcome = remote.append(Append::any(vec![event(id, &key, "Written")])).await;
        stored.push((id, outcome.expect("it outlives the server").last_position()));
    }
    stored
}

#[test]
fn a_server_that_dies_and_comes_back_is_taken_up_again() {
    let folder = TempDir::new().unwrap();
    let mut served = serve(&folder);
    let (port, address) = (served.port(), served.address());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let remote = runtime.block_on(connect(&address));
    let stop = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (1..=8)
        .map(|writer| runtime.spawn(write(remote.clone(), writer, Arc::clone(&stop))))
        .collect();
    let mut subscription = remote.subscribe(SubscribeRequest::default()).unwrap();
    for death in 0..6 {
        std::thread::park_timeout(Duration::from_millis(150));
        if death % 2 == 0 {
            drop(served);
        } else {
            served.stop();
        }
        served = Served::open_at(port, folder.path(), Options::default(), ServerOptions::default());
    }
    std::thread::park_timeout(Duration::from_millis(300));
    stop.store(1, Ordering::Relaxed);
    runtime.block_on(async {
        let mut stored = Vec::new();
        for writer in writers {
            stored.extend(within(writer).await.unwrap());
        }
        stored.sort_by_key(|stored| stored.1);
        let followed = follow(&mut subscription, stored.len()).await;
        assert_eq!(followed, stored, "what was acknowledged is what is there, once");
        let end = Position(stored.len() as u64);
        assert_eq!(stored.last().unwrap().1, end, "and there is nothing else");
        let more = timeout(Duration::from_millis(100), follow(&mut subscription, 1));
        assert!(more.await.is_err(), "an event came twice");
    });
    drop((subscription, remote));
    served.stop();
}

#[test]
fn nothing_is_left_when_all_is_dropped() {
    let folder = TempDir::new().unwrap();
    let served = serve(&folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let key = AggregateKey::new("Left", "1");
        for round in 0..50_u64 {
            let remote = connect(&served.address()).await;
            let ids = 1 + round * 100..=(round + 1) * 100;
            let appends = ids.map(|id| remote.append(Append::any(vec![numbered(id, &key)])));
            within(join_all(appends)).await.into_iter().for_each(|outcome| drop(outcome.unwrap()));
            let streams: Vec<_> = (0..20).map(|_| remote.read(ReadRequest::default())).collect();
            let mut subscription = remote.subscribe(SubscribeRequest::default()).unwrap();
            within(subscription.next_batch()).await.unwrap();
            drop(streams);
            drop(subscription);
            within(async {
                while remote.open_requests() > 0 {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await;
            assert_eq!(served.server().load().streams, 0);
        }
        within(async {
            let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
            while served.server().load().connections > 0 || tasks() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        assert_eq!(served.server().load(), quipu_server::Load::default());
    });
    served.stop();
}

#[test]
fn a_slow_consumer_gets_everything_through_a_small_window() {
    let folder = TempDir::new().unwrap();
    let served = serve(&folder);
    let mut options = RemoteOptions::default();
    (options.window_events, options.window_bytes) = (7, 2_000);
    let remote = served.connect_with(options);
    quipu_tests::patience::block_on(async {
        let key = AggregateKey::new("Slow", "1");
        let events = (1..=500).map(|id| numbered(id, &key)).collect();
        remote.append(Append::any(events)).await.unwrap();
        let read: Vec<_> = remote.read(ReadRequest::default()).collect().await;
        assert_eq!(read.len(), 500);
        let saved = Checkpoint { log_id: remote.log_id(), position: Position(100) };
        let after = StartAfter::Checkpoint(saved);
        let request = SubscribeRequest { filter: Filter::default(), after };
        let mut subscription = remote.subscribe(request).unwrap();
        let mut seen = Vec::new();
        while seen.len() < 400 {
            for item in subscription.next_batch().await.unwrap() {
                if let SubscriptionItem::Event(record) = item {
                    seen.push(record.position().0);
                }
            }
        }
        assert_eq!(seen, (101..=500).collect::<Vec<_>>());
    });
    drop(remote);
    served.stop();
}

#[test]
fn another_log_on_the_same_port_is_refused_with_both_ids() {
    let (folder, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let served = serve(&folder);
    let port = served.port();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let remote = runtime.block_on(connect(&served.address()));
    served.stop();
    let served = Served::open_at(port, other.path(), Options::default(), ServerOptions::default());
    let key = AggregateKey::new("T", "1");
    let event = NewEvent { event_id: Uuid::from_u128(1), ..numbered(1, &key) };
    let error =
        quipu_tests::patience::block_on(remote.append(Append::any(vec![event]))).unwrap_err();
    let actual = served.connect().log_id();
    assert!(!error.is_retryable(), "{error}");
    for id in [remote.log_id(), actual] {
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }
}
