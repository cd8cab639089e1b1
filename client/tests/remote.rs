//! What the TCP client does when the server or the network does what it should not.
#![cfg(feature = "tcp")]

mod peer;

use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use peer::{LOG, Port, append, outcome, welcome, within};
use quipu_client::{
    AggregateKey, Append, AppendError, AppendOutcome, Checkpoint, ConnectError, EventStore, Filter,
    Invalid, Position, ReadError, ReadRequest, Remote, RemoteOptions, StartAfter, SubscribeRequest,
    SubscriptionItem, Uuid, Version,
};
use quipu_protocol::{Credit, End, Fault, Mark, Ping, Pong, Request, VersionIs, Versions};

type Outcome = Result<AppendOutcome, AppendError>;

fn options() -> RemoteOptions {
    RemoteOptions::default()
}

fn impatient() -> RemoteOptions {
    let mut options = options();
    options.timeout = Duration::from_millis(200);
    options
}

/// Appends of these numbers, each in a task of its own, sent in this order.
fn appends(
    remote: &Remote,
    numbers: std::ops::RangeInclusive<u128>,
) -> tokio::task::JoinHandle<Vec<Outcome>> {
    let remote = remote.clone();
    tokio::spawn(async move { join_all(numbers.map(|number| remote.append(append(number)))).await })
}

fn stored(outcomes: &[Outcome]) -> Vec<u64> {
    outcomes.iter().map(|outcome| outcome.as_ref().expect("stored").last_position().0).collect()
}

#[tokio::test]
async fn many_are_in_flight_and_each_gets_its_answer() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let waiting = appends(&remote, 1..=20);
    for number in 1..=20 {
        let (id, given) = peer.append().await;
        assert_eq!(given, number);
        if number % 5 == 0 {
            peer.refuse(id, AppendError::ReadOnly(number.to_string())).await;
        } else {
            peer.acknowledge((id, number)).await;
        }
    }
    for (number, result) in (1..=20_u128).zip(within(waiting).await.unwrap()) {
        match number % 5 {
            0 => assert_eq!(result, Err(AppendError::ReadOnly(number.to_string()))),
            _ => assert_eq!(result, Ok(outcome(number))),
        }
    }
}

#[tokio::test]
async fn what_was_unanswered_is_sent_again_in_order_before_anything_new() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let waiting = appends(&remote, 1..=5);
    for _ in 1..=2 {
        let next = peer.append().await;
        peer.acknowledge(next).await;
    }
    for number in 3..=5 {
        assert_eq!(peer.append().await.1, number);
    }
    drop(peer);
    let mut peer = port.accept().await;
    let new = appends(&remote, 6..=6);
    let question = remote.version(&AggregateKey::new("T", "1"));
    let answers = async {
        peer.welcome(&welcome(LOG)).await;
        let mut again = Vec::new();
        for _ in 3..=5 {
            again.push(peer.append().await);
        }
        assert_eq!(again.iter().map(|next| next.1).collect::<Vec<_>>(), [3, 4, 5]);
        for next in again {
            peer.acknowledge(next).await;
        }
        let Some((id, Request::VersionOf(_))) = peer.receive().await else { panic!("a question") };
        peer.send(id, &VersionIs(Version(9))).await;
        let next = peer.append().await;
        peer.acknowledge(next).await;
        peer
    };
    let (version, _peer) = tokio::join!(within(question), answers);
    assert_eq!(version, Ok(Version(9)));
    assert_eq!(stored(&within(waiting).await.unwrap()), [1, 2, 3, 4, 5]);
    assert_eq!(stored(&within(new).await.unwrap()), [6]);
    assert_eq!(remote.open_requests(), 0);
}

#[tokio::test]
async fn the_window_bounds_what_is_in_flight() {
    let port = Port::open().await;
    let mut options = options();
    options.in_flight_appends = 3;
    let (remote, mut peer) = port.pair(options).await;
    let waiting = appends(&remote, 1..=7);
    let mut in_flight = Vec::new();
    for number in 1..=3 {
        in_flight.push(peer.append().await);
        assert_eq!(in_flight.last().unwrap().1, number);
    }
    let more = tokio::time::timeout(Duration::from_millis(50), peer.append());
    assert!(more.await.is_err(), "a fourth was sent");
    for number in 4..=7 {
        peer.acknowledge(in_flight.remove(0)).await;
        in_flight.push(peer.append().await);
        assert_eq!(in_flight.last().unwrap().1, number);
    }
    for next in in_flight {
        peer.acknowledge(next).await;
    }
    assert_eq!(stored(&within(waiting).await.unwrap()), [1, 2, 3, 4, 5, 6, 7]);
}

#[tokio::test]
async fn an_append_that_is_late_is_unknown_if_it_was_sent_and_is_not_sent_again() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(impatient()).await;
    let sent = appends(&remote, 1..=1);
    peer.append().await;
    let late = within(sent).await.unwrap().remove(0).unwrap_err();
    assert!(late.is_outcome_unknown() && late.to_string().contains("200ms"), "{late}");
    drop(peer);
    drop(port);
    let question = within(remote.version(&AggregateKey::new("T", "1"))).await.unwrap_err();
    assert!(matches!(question, ReadError::Unavailable(_)) && question.is_retryable());
    let never_sent = within(appends(&remote, 2..=2)).await.unwrap().remove(0).unwrap_err();
    assert!(matches!(never_sent, AppendError::NotWritten(_)), "{never_sent}");
    assert!(never_sent.to_string().contains("refused"), "{never_sent}");
    let read = within(remote.read(ReadRequest::default()).next_batch()).await.unwrap_err();
    assert!(matches!(read, ReadError::Unavailable(_)), "{read}");
    assert_eq!(remote.open_requests(), 0);
}

#[tokio::test]
async fn a_late_answer_is_taken_for_what_it_is() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(impatient()).await;
    let sent = appends(&remote, 1..=1);
    let late = peer.append().await;
    assert!(within(sent).await.unwrap()[0].as_ref().unwrap_err().is_outcome_unknown());
    assert_eq!(remote.open_requests(), 1, "its answer is still to come");
    peer.acknowledge(late).await;
    let next = appends(&remote, 2..=2);
    let second = peer.append().await;
    peer.acknowledge(second).await;
    assert_eq!(stored(&within(next).await.unwrap()), [2]);
    assert_eq!(remote.open_requests(), 0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_dead() {
    let port = Port::open().await;
    let mut quick = welcome(LOG);
    (quick.heartbeat_ms, quick.dead_after_ms) = (40, 120);
    let (remote, mut silent) = port.pair_with(options(), &quick).await;
    let waiting = appends(&remote, 1..=1);
    silent.append().await;
    let Some((_, Request::Ping(_))) = silent.receive().await else { panic!("a sign of life") };
    let mut peer = port.welcomed(&welcome(LOG)).await;
    let again = peer.append().await;
    peer.acknowledge(again).await;
    assert_eq!(stored(&within(waiting).await.unwrap()), [1]);
}

#[tokio::test]
async fn a_ping_is_answered_and_one_that_pings_lives() {
    let port = Port::open().await;
    let mut quick = welcome(LOG);
    (quick.heartbeat_ms, quick.dead_after_ms) = (10_000, 200);
    let (_remote, mut peer) = port.pair_with(options(), &quick).await;
    for id in 1..=10 {
        peer.send(id, &Ping).await;
        assert_eq!(peer.receive().await, Some((id, Request::Pong(Pong))));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn another_log_ends_it_for_everybody_with_both_ids() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let sent = appends(&remote, 1..=1);
    peer.append().await;
    let mut follow = remote.subscribe(SubscribeRequest::default()).unwrap();
    drop(peer);
    let other = Uuid::from_u128(0x07e5);
    let peer = port.welcomed(&welcome(other)).await;
    let both = |text: String| text.contains(&LOG.to_string()) && text.contains(&other.to_string());
    let unknown = within(sent).await.unwrap().remove(0).unwrap_err();
    assert!(unknown.is_outcome_unknown() && both(unknown.to_string()), "{unknown}");
    let followed = within(follow.next_batch()).await.unwrap_err();
    assert_eq!(followed, ReadError::OtherLog { given: LOG, actual: other });
    let refused = within(remote.append(append(2))).await.unwrap_err();
    assert_eq!(refused, AppendError::OtherLog { expected: LOG, actual: other });
    drop(peer);
    let again = tokio::time::timeout(Duration::from_millis(400), port.accept());
    assert!(again.await.is_err(), "it tried again");
}

#[tokio::test]
async fn what_is_refused_for_now_is_tried_three_times() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let waiting = appends(&remote, 1..=2);
    let (first, second) = (peer.append().await, peer.append().await);
    peer.refuse(first.0, AppendError::NoSpace("full".to_owned())).await;
    peer.acknowledge(second).await;
    for _ in 2..=3 {
        let (id, number) = peer.append().await;
        assert_eq!(number, 1);
        peer.refuse(id, AppendError::NoSpace("full".to_owned())).await;
    }
    let results = within(waiting).await.unwrap();
    assert_eq!(results[0], Err(AppendError::NoSpace("full".to_owned())));
    assert_eq!(results[1], Ok(outcome(2)));
}

#[tokio::test]
async fn unknown_once_is_unknown_until_the_ids_were_looked_up() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let unknown = || AppendError::OutcomeUnknown("the disk".to_owned());
    let waiting = appends(&remote, 1..=1);
    let (id, _) = peer.append().await;
    peer.refuse(id, unknown()).await;
    let (id, _) = peer.append().await;
    peer.refuse(id, AppendError::ReadOnly("failed".to_owned())).await;
    let (id, _) = peer.append().await;
    peer.refuse(id, AppendError::Closed).await;
    let error = within(waiting).await.unwrap().remove(0).unwrap_err();
    assert!(error.is_outcome_unknown() && error.to_string().contains("closed"), "{error}");
    let waiting = appends(&remote, 2..=2);
    let (id, _) = peer.append().await;
    peer.refuse(id, unknown()).await;
    let again = peer.append().await;
    let duplicate = AppendOutcome { duplicate: true, ..outcome(2) };
    peer.send(again.0, &duplicate).await;
    assert_eq!(within(waiting).await.unwrap(), [Ok(duplicate)]);
}

#[tokio::test]
async fn a_server_that_stops_is_followed_by_the_next_one() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let mut follow = remote.subscribe(SubscribeRequest::default()).unwrap();
    let Some((stream, Request::Subscribe(_))) = peer.receive().await else { panic!("a stream") };
    peer.send(stream, &Mark::CaughtUp(Position(4))).await;
    let waiting = appends(&remote, 1..=1);
    let (id, _) = peer.append().await;
    peer.refuse(id, Fault::Stopping).await;
    peer.send(stream, &End::Stopping).await;
    let first = within(follow.next()).await;
    assert!(matches!(first, Some(Ok(SubscriptionItem::CaughtUp(Position(4))))), "{first:?}");
    let again = within(follow.next()).await;
    assert!(matches!(again, Some(Ok(SubscriptionItem::FellBehind(Position(4))))), "{again:?}");
    peer.refuse(0, Fault::Stopping).await;
    assert_eq!(peer.receive().await, None, "nothing more is said to one that stops");
    drop(peer);
    let mut peer = port.welcomed(&welcome(LOG)).await;
    let resent = peer.append().await;
    peer.acknowledge(resent).await;
    assert_eq!(stored(&within(waiting).await.unwrap()), [1]);
    let Some((_, Request::Subscribe(subscribe))) = peer.receive().await else { panic!("again") };
    let checkpoint = Checkpoint { log_id: LOG, position: Position(4) };
    assert_eq!(subscribe.request.after, StartAfter::Checkpoint(checkpoint));
    drop(follow);
    assert!(matches!(peer.receive().await, Some((_, Request::Cancel(_)))));
}

#[tokio::test]
async fn records_that_are_none_fail_their_stream_and_end_the_connection() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let mut read = remote.read(ReadRequest::default());
    let Some((id, Request::Read(request))) = peer.receive().await else { panic!("a read") };
    let window = Credit { events: options().window_events, bytes: options().window_bytes };
    assert_eq!(request.credit, window);
    peer.write(&bad_records(id)).await;
    let error = within(read.next_batch()).await.unwrap_err();
    assert!(matches!(error, ReadError::Refused(_)), "{error}");
    while peer.receive().await.is_some() {}
    port.welcomed(&welcome(LOG)).await;
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let port = Port::open().await;
    let (_remote, mut peer) = port.pair(options()).await;
    peer.acknowledge((77, 1)).await;
    assert_eq!(peer.receive().await, None);
    port.welcomed(&welcome(LOG)).await;
}

#[tokio::test]
async fn what_is_dropped_is_taken_back_or_cancelled_and_the_last_clone_closes() {
    let port = Port::open().await;
    let mut options = options();
    options.in_flight_appends = 1;
    let (remote, mut peer) = port.pair(options).await;
    let (mut first, mut second) = (remote.append(append(1)), remote.append(append(2)));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    let sent = peer.append().await;
    assert_eq!(remote.open_requests(), 2);
    drop(second);
    assert_eq!(remote.open_requests(), 1);
    peer.acknowledge(sent).await;
    assert_eq!(within(first).await, Ok(outcome(1)));
    let read = remote.read(ReadRequest::default());
    let Some((id, Request::Read(_))) = peer.receive().await else { panic!("a read") };
    drop(read);
    assert!(
        matches!(peer.receive().await, Some((cancelled, Request::Cancel(_))) if cancelled == id)
    );
    peer.send(id, &End::Cancelled).await;
    let follow = remote.clone().subscribe(SubscribeRequest::default()).unwrap();
    drop(remote);
    let Some((_, Request::Subscribe(_))) = peer.receive().await else { panic!("still there") };
    drop(follow);
    while let Some((_, request)) = peer.receive().await {
        assert!(matches!(request, Request::Cancel(_)), "{request:?}");
    }
}

#[test]
fn without_its_runtime_it_is_closed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (port, remote, peer) = runtime.block_on(async {
        let port = Port::open().await;
        let (remote, peer) = port.pair(options()).await;
        (port, remote, peer)
    });
    let mut sent = remote.append(append(1));
    assert!((&mut sent).now_or_never().is_none());
    drop((port, peer));
    drop(runtime);
    let error = futures::executor::block_on(sent).unwrap_err();
    assert!(error == AppendError::Closed || error.is_outcome_unknown(), "{error}");
    let refused = futures::executor::block_on(remote.append(append(2)));
    assert_eq!(refused, Err(AppendError::Closed));
    let outside = futures::executor::block_on(Remote::connect("127.0.0.1:1"));
    assert!(matches!(outside, Err(ConnectError::NoRuntime)));
}

#[tokio::test]
async fn what_is_too_large_for_a_message_is_refused_with_the_same_reason_as_by_a_log() {
    let port = Port::open().await;
    let (remote, _peer) = port.pair(options()).await;
    let mut large = append(1);
    large.events[0].payload = format!("\"{}\"", "x".repeat(19_000)).into_bytes();
    let refused = remote.append(large).await;
    assert_eq!(refused, Err(Invalid::EventTooLarge { limit: 1_000, given: 19_002 }.into()));
    let many = (1..=400).flat_map(|number| append(number).events).collect();
    let refused = remote.append(Append::any(many)).await;
    assert_eq!(refused, Err(Invalid::TooManyEvents { limit: 50, given: 400 }.into()));
}

#[tokio::test]
async fn why_there_is_no_connection_is_said() {
    let refused = |error: ConnectError, part: &str| {
        assert!(error.to_string().contains(part), "{error}");
        error.is_retryable()
    };
    let connect = |address: String| async move { Remote::connect(&address).await.err().unwrap() };
    assert!(!refused(connect("quipus://localhost".to_owned()).await, "TLS"));
    let port = Port::open().await;
    let (http, mut peer) = tokio::join!(connect(port.address.clone()), async {
        let mut peer = port.accept().await;
        peer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        peer
    });
    assert!(refused(http, "HTTP"));
    assert!(peer.receive().await.is_some(), "it said Hello");
    let (range, supported) = (Versions { min: 1, max: 1 }, Versions { min: 2, max: 3 });
    let (newer, _) = tokio::join!(connect(port.address.clone()), async {
        let mut peer = port.accept().await;
        peer.write(&quipu_protocol::MAGIC).await;
        peer.refuse(0, Fault::Protocol { given: range, supported }).await;
        peer.receive().await
    });
    assert!(!refused(newer, "2 to 3"));
    let address = port.address.clone();
    drop(port);
    assert!(refused(connect(address).await, "refused"));
    let port = Port::open().await;
    let mut options = options();
    (options.log_id, options.connect_timeout) = (Some(LOG), Duration::from_millis(100));
    let silent = Remote::connect_with(&port.address, options.clone()).await.err().unwrap();
    assert!(refused(silent, "100ms"));
    drop(port.accept().await);
    options.connect_timeout = Duration::from_secs(20);
    let other = Uuid::from_u128(1);
    let connect = Remote::connect_with(&port.address, options);
    let welcome = welcome(other);
    let (connected, _peer) = tokio::join!(connect, port.welcomed(&welcome));
    assert!(!refused(connected.err().unwrap(), &other.to_string()));
}

#[tokio::test]
async fn a_read_that_was_sent_and_brings_nothing_fails_and_says_how_long_it_waited() {
    let port = Port::open().await;
    let mut options = options();
    options.read_timeout = Duration::from_millis(150);
    let (remote, mut peer) = port.pair(options).await;
    let mut read = remote.read(ReadRequest::default());
    let Some((id, Request::Read(_))) = peer.receive().await else { panic!("a read") };
    let error = within(read.next_batch()).await.unwrap_err();
    assert!(matches!(error, ReadError::Unavailable(_)) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("150ms"), "{error}");
    drop(read);
    assert!(matches!(peer.receive().await, Some((it, Request::Cancel(_))) if it == id));
}

#[tokio::test]
async fn a_request_that_is_larger_than_a_message_is_refused_with_limit_and_value() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let event_types = (0..1_000).map(|number| format!("{number:0>90}")).collect();
    let filter = Filter { event_types, ..Filter::default() };
    let mut read = remote.read(ReadRequest { filter, ..ReadRequest::default() });
    let error = within(read.next_batch()).await.unwrap_err();
    assert!(matches!(error, ReadError::Refused(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("20000") && text.contains("94"), "{text}");
    let _small = remote.read(ReadRequest::default());
    assert!(matches!(peer.receive().await, Some((_, Request::Read(_)))), "on the same connection");
}

#[tokio::test]
async fn what_waits_and_is_too_large_for_the_server_that_comes_back_fails() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let large = |number| {
        let mut append = append(number);
        append.events[0].payload = format!("\"{}\"", "x".repeat(900)).into_bytes();
        append
    };
    let mut sent = remote.append(large(1));
    assert!((&mut sent).now_or_never().is_none());
    peer.append().await;
    drop(peer);
    let mut peer = port.accept().await;
    let mut waiting = remote.append(large(2));
    assert!((&mut waiting).now_or_never().is_none());
    let small = appends(&remote, 3..=3);
    let event_types = (0..20).map(|number| format!("{number:0>90}")).collect();
    let filter = Filter { event_types, ..Filter::default() };
    let mut read = remote.read(ReadRequest { filter, ..ReadRequest::default() });
    let mut lower = welcome(LOG);
    lower.message_bytes_max = 600;
    peer.welcome(&lower).await;
    let next = peer.append().await;
    assert_eq!(next.1, 3);
    peer.acknowledge(next).await;
    assert_eq!(stored(&within(small).await.unwrap()), [3]);
    let unknown = within(sent).await.unwrap_err();
    assert!(unknown.is_outcome_unknown() && unknown.to_string().contains("600"), "{unknown}");
    let refused = within(waiting).await.unwrap_err();
    let too_large = matches!(
        refused,
        AppendError::Invalid(Invalid::AppendTooLarge { limit: 600, given: 1_000.. })
    );
    assert!(too_large, "{refused}");
    let error = within(read.next_batch()).await.unwrap_err();
    assert!(matches!(error, ReadError::Refused(_)), "{error}");
    assert_eq!(remote.open_requests(), 0);
}

#[tokio::test]
async fn bad_records_of_a_lost_connection_do_not_end_the_next_one() {
    let port = Port::open().await;
    let (remote, mut peer) = port.pair(options()).await;
    let mut read = remote.read(ReadRequest::default());
    let Some((id, Request::Read(_))) = peer.receive().await else { panic!("a read") };
    peer.write(&bad_records(id)).await;
    // A question's answer: the records before it have been received.
    let question = remote.version(&AggregateKey::new("T", "1"));
    let answer = async {
        let Some((id, _)) = peer.receive().await else { panic!("a question") };
        peer.send(id, &VersionIs(Version(1))).await;
    };
    tokio::join!(within(question), answer).0.unwrap();
    drop(peer);
    let mut peer = port.welcomed(&welcome(LOG)).await;
    let (first, ()) = tokio::join!(appends(&remote, 1..=1), async {
        let next = peer.append().await;
        peer.acknowledge(next).await;
    });
    assert_eq!(stored(&first.unwrap()), [1]);
    assert!(within(read.next_batch()).await.is_err());
    let second = appends(&remote, 2..=2);
    let next = peer.append().await;
    peer.acknowledge(next).await;
    assert_eq!(stored(&within(second).await.unwrap()), [2]);
    let another = tokio::time::timeout(Duration::from_millis(300), port.accept());
    assert!(another.await.is_err(), "the connection was given up");
}

/// A message of records that are none.
fn bad_records(id: u64) -> Vec<u8> {
    let mut message = vec![0x5a; 24 + 176];
    message[..4].copy_from_slice(&200_u32.to_le_bytes());
    message[4..8].copy_from_slice(&[0x83, 0, 0, 0]);
    message[8..16].copy_from_slice(&id.to_le_bytes());
    message[16..24].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    message
}

#[test]
fn nobody_waits_for_a_connection_whose_runtime_is_gone_before_it_ran() {
    let peers = tokio::runtime::Runtime::new().expect("threads");
    let (port, runtime) = (peers.block_on(Port::open()), runtime());
    let address = port.address.clone();
    let welcomed = peers.spawn(async move { port.welcomed(&welcome(LOG)).await });
    // It connects, and is not driven after that.
    let remote = runtime.block_on(Remote::connect(&address)).expect("the peer welcomes it");
    drop(runtime);
    peers.block_on(async {
        assert_eq!(within(remote.append(append(1))).await, Err(AppendError::Closed));
        let version = within(remote.version(&AggregateKey::new("T", "1"))).await;
        assert_eq!(version, Err(ReadError::Closed));
        drop(welcomed.await.expect("a peer"));
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}
