//! Appends, reads and subscriptions as clients see them, and the end of a server.
#![expect(clippy::disallowed_types, reason = "tests speak to a real socket")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use bytes::BytesMut;
use quipu_protocol::{
    AppendRequest, Cancel, Credit, End, Fault, Mark, Message, Read, Response, VersionOf,
};
use quipu_server::{ServerOptions, Stopped};
use quipu_types::{
    AggregateKey, Append, Direction, ExpectedVersion, Filter, Position, ReadRequest, Version,
};
use support::{MUCH, Served, event, event_of, hasty, open, serve, subscribe};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_are_answered_in_the_order_sent_and_stored_in_it() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    let mut wire = BytesMut::new();
    for id in 1..=500u64 {
        let request = match id % 5 {
            // Known already: compared with what is stored, which must not let others overtake.
            0 => Append::any(vec![event(u128::from(id) - 1)]),
            1 => Append::default(),
            _ => Append::any(vec![event(u128::from(id))]),
        };
        AppendRequest::from(request).encode(id, &mut wire);
    }
    client.send(&wire).await;
    let mut next = 1;
    for id in 1..=500 {
        if id % 5 == 1 {
            assert_eq!(client.fault().await, (id, append_fault()));
            continue;
        }
        let (given, outcome) = client.appended().await;
        assert_eq!((given, outcome.duplicate), (id, id % 5 == 0));
        let expected = if outcome.duplicate { next - 1 } else { next };
        assert_eq!(outcome.positions, [Position(expected)]);
        next = expected + 1;
    }
}

fn append_fault() -> Fault {
    Fault::Append(quipu_types::Invalid::NoEvents.into())
}

#[tokio::test]
async fn a_conflict_names_what_is_and_a_version_can_be_asked_for() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    client.append(1, vec![event(1), event(4)]).await;
    let append = Append::one(event(7), ExpectedVersion::Exact(Version(1)));
    client.ask(2, &AppendRequest::from(append)).await;
    assert_eq!(client.fault().await.1.code(), 300);
    for (id, key, version) in [(3, "1", 2), (4, "none", 0)] {
        client.ask(id, &VersionOf(AggregateKey::new("Call", key))).await;
        let expected = Response::VersionIs(quipu_protocol::VersionIs(Version(version)));
        assert_eq!(client.next().await, Some((id, expected)));
    }
}

async fn filled(options: ServerOptions, events: u128) -> Served {
    let served = serve(options).await;
    let mut client = served.client().await;
    for id in 1..=events {
        client.append(u64::try_from(id).unwrap(), vec![event(id)]).await;
    }
    served
}

#[tokio::test]
async fn a_read_sends_what_credit_allows_and_ends() {
    let served = filled(ServerOptions::default(), 10).await;
    let mut client = served.client().await;
    let credit = Credit { events: 4, bytes: 1 << 20 };
    client.ask(1, &Read { request: ReadRequest::default(), credit }).await;
    let first = client.records(1).await;
    assert_eq!(first.iter().map(|it| it.position().0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    client.append(2, vec![event(99)]).await;
    client.ask(1, &Credit { events: 6, bytes: 1 }).await;
    assert_eq!(client.records(1).await.len(), 6, "what came later is not part of the read");
    assert_eq!(client.next().await, Some((1, Response::End(End::Complete))));
    // By bytes: a message never carries more than the balance, but for one record.
    let one = first[0].as_bytes().len();
    let bytes = u32::try_from(2 * one + one / 2).unwrap();
    let request = ReadRequest { direction: Direction::Backward, ..ReadRequest::default() };
    client.ask(3, &Read { request, credit: Credit { events: 100, bytes } }).await;
    assert_eq!(client.records(3).await.len(), 2);
    assert_eq!(client.records(3).await.len(), 1, "what is left allows one record, however large");
    client.ask(3, &Cancel).await;
    assert_eq!(client.next().await, Some((3, Response::End(End::Cancelled))));
    let filter = Filter::aggregate(AggregateKey::new("Call", "1"));
    let request = ReadRequest { filter, from: Some(2), ..ReadRequest::default() };
    client.ask(4, &Read { request, credit: Credit { events: 3, bytes: 1 << 20 } }).await;
    let versions = client.records(4).await.iter().map(|it| it.version().0).collect::<Vec<_>>();
    assert_eq!(versions, [2, 3, 4]);
    assert_eq!(client.next().await, Some((4, Response::End(End::Complete))));
}

#[tokio::test]
async fn a_subscription_catches_up_follows_and_waits_for_credit() {
    let served = filled(ServerOptions::default(), 5).await;
    let mut client = served.client().await;
    client.ask(1, &subscribe(2, Credit { events: 4, bytes: 1 << 20 })).await;
    assert_eq!(client.records(1).await.len(), 3);
    let caught_up = Response::Mark(Mark::CaughtUp(Position(5)));
    assert_eq!(client.next().await, Some((1, caught_up)));
    let mut writer = served.client().await;
    for id in 10..13 {
        writer.append(1, vec![event(id)]).await;
    }
    assert_eq!(client.records(1).await[0].position(), Position(6));
    client.ask(9, &VersionOf(AggregateKey::new("Call", "1"))).await;
    assert!(matches!(client.next().await, Some((9, _))), "without credit nothing is sent");
    client.ask(1, &Credit { events: 5, bytes: 0 }).await;
    assert_eq!(client.records(1).await.len(), 2);
    client.ask(1, &Cancel).await;
    assert_eq!(client.next().await, Some((1, Response::End(End::Cancelled))));
}

#[tokio::test]
async fn without_credit_a_subscription_still_says_that_it_is_caught_up() {
    let served = filled(ServerOptions::default(), 1).await;
    let mut client = served.client().await;
    client.ask(1, &subscribe(1, Credit::default())).await;
    assert_eq!(client.next().await, Some((1, Response::Mark(Mark::CaughtUp(Position(1))))));
}

/// 20 MiB for a subscriber with all the credit it wants, that reads nothing for a while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_does_not_read_costs_bounded_memory_and_misses_nothing() {
    let served = serve(ServerOptions::default()).await;
    let mut slow = served.client().await;
    let all = Credit { events: u32::MAX, bytes: u32::MAX };
    slow.ask(1, &subscribe(0, all)).await;
    let mut writer = served.client().await;
    let payload = format!("\"{}\"", "x".repeat(50_000));
    for id in 0..40u64 {
        let events = (1..=10).map(|it| event_of(u128::from(id * 10 + it), payload.clone()));
        writer.append(id + 1, events.collect()).await;
        let held = served.server.load().output_bytes;
        assert!(held <= ServerOptions::default().connection_output_bytes, "{held}");
    }
    let mut next = 1;
    while next <= 400 {
        if let Some((1, Response::Records(records))) = slow.next().await {
            for record in records.0 {
                assert_eq!(record.position(), Position(next));
                next += 1;
            }
        }
    }
    drop(slow);
    drop(writer);
    served.holds_nothing().await;
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_given_up() {
    let served = serve(hasty()).await;
    let mut client = served.client().await;
    let mut wire = BytesMut::new();
    for id in 1..2_000 {
        quipu_protocol::Status.encode(id, &mut wire);
    }
    for _ in 0..20 {
        let sent = tokio::time::timeout(Duration::from_millis(100), client.send(&wire)).await;
        if sent.is_err() {
            break;
        }
    }
    served.holds_nothing().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_appends_than_there_is_room_for_wait_and_are_all_answered() {
    let options = ServerOptions {
        connection_append_bytes: 4_096,
        append_bytes: 8_192,
        ..ServerOptions::default()
    };
    let served = serve(options).await;
    let mut clients = Vec::new();
    for number in 0..8u64 {
        let mut client = served.client().await;
        let mut wire = BytesMut::new();
        for id in 1..=50u64 {
            let event = event_of(u128::from(number * 1_000 + id), "1".repeat(3_000));
            AppendRequest::from(Append::any(vec![event])).encode(id, &mut wire);
        }
        client.send(&wire).await;
        clients.push(client);
    }
    assert!(served.server.load().append_bytes <= 8_192);
    for mut client in clients {
        for id in 1..=50 {
            assert_eq!(client.appended().await.0, id);
        }
    }
    served.holds_nothing().await;
    assert_eq!(served.log.shared().watermark.current(), Position(400));
}

/// What a client that was told "stored" may rely on, when the server ends while it writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_while_clients_write_loses_nothing_that_was_acknowledged() {
    let served = serve(ServerOptions::default()).await;
    let writers: Vec<_> = (0..4u64)
        .map(|number| {
            let address = served.address();
            tokio::spawn(async move {
                let mut client = support::Client::connect(address).await;
                client.greet(&quipu_protocol::Hello::new("writer", None)).await.unwrap();
                let (mut sent, mut acknowledged) = (0, Vec::new());
                loop {
                    while sent < acknowledged.len() as u64 + 8 {
                        sent += 1;
                        let event = event(u128::from(number * 1_000_000 + sent));
                        client.ask(sent, &AppendRequest::from(Append::any(vec![event]))).await;
                    }
                    match client.next().await {
                        Some((id, Response::Appended(outcome))) => {
                            assert_eq!(id, acknowledged.len() as u64 + 1);
                            acknowledged.push((number * 1_000_000 + id, outcome.positions[0]));
                        }
                        Some((0, Response::Error(Fault::Stopping))) => return acknowledged,
                        Some((_, Response::Error(Fault::Stopping))) => {}
                        other => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    let mut follower = served.client().await;
    follower.ask(1, &subscribe(0, MUCH)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let Served { log, server, folder } = served;
    assert_eq!(server.stop().await, Stopped { cut_off: 0 });
    drop(log);
    let mut ended = None;
    while let Some(last) = follower.next().await {
        ended = Some((ended.map(|(_, last)| last), last));
    }
    let goodbye = (0, Response::Error(Fault::Stopping));
    assert_eq!(ended, Some((Some((1, Response::End(End::Stopping))), goodbye)));
    let log = open(&folder);
    assert!(log.recovery_report().clean, "it was closed in order");
    let mut stored = 0;
    for writer in writers {
        for (id, position) in writer.await.unwrap() {
            assert_eq!(log.record_at(position).unwrap().event_id().as_u128(), u128::from(id));
            stored += 1;
        }
    }
    assert!(stored > 0, "there was something to lose");
}

async fn get(served: &Served, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = served.server.http_address().unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: quipu\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn health_and_metrics_say_how_it_is() {
    let served = filled(ServerOptions::default(), 3).await;
    let mut follower = served.client().await;
    follower.ask(1, &subscribe(0, Credit::default())).await;
    follower.ask(2, &VersionOf(AggregateKey::new("Call", "1"))).await;
    follower.next().await.unwrap();
    assert!(get(&served, "/health/live").await.starts_with("HTTP/1.1 200"));
    assert!(get(&served, "/health/ready").await.starts_with("HTTP/1.1 200"));
    let metrics = get(&served, "/metrics").await;
    for line in [
        "quipu_events_total 3",
        "quipu_groups_total 3",
        "quipu_watermark 3",
        "quipu_subscribers 1",
        "quipu_subscriber_lag_max_events 3",
        "quipu_connections 1",
        "quipu_connections_opened_total 2",
        "quipu_log_state{state=\"writable\"} 1",
        "quipu_log_state{state=\"failed\"} 0",
        "quipu_group_size_bytes_count 3",
        "quipu_flush_duration_seconds_bucket{le=\"0.00005\"}",
        "quipu_flush_duration_seconds_bucket{le=\"+Inf\"}",
        "quipu_segments 1",
        "quipu_index_runs 0",
        "quipu_index_reads_total 0",
    ] {
        assert!(metrics.contains(line), "{line:?} is not in {metrics}");
    }
    assert!(!metrics.contains("scheduling_class{class=\"unknown\"}"), "{metrics}");
    served.log.close();
    let ready = get(&served, "/health/ready").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("closed"), "{ready}");
    assert!(get(&served, "/health/live").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn who_asks_for_health_is_not_kept_out_by_those_who_say_nothing() {
    let http_within = Duration::from_millis(400);
    let options = ServerOptions { http_connections_max: 2, http_within, ..Default::default() };
    let served = serve(options).await;
    let address = served.server.http_address().unwrap();
    let begun = tokio::time::Instant::now();
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    for mut socket in silent.into_iter().rev() {
        let mut nothing = String::new();
        let closed = tokio::io::AsyncReadExt::read_to_string(&mut socket, &mut nothing);
        let closed = tokio::time::timeout(Duration::from_secs(10), closed).await;
        assert!(closed.is_ok() && nothing.is_empty(), "{nothing}");
    }
    assert!(begun.elapsed() >= http_within, "the first two had their time");
    assert!(get(&served, "/health/live").await.starts_with("HTTP/1.1 200"));
}

/// A client that was written from the protocol's page alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_in_python_appends_reads_and_subscribes() {
    let served = serve(ServerOptions::default()).await;
    let address = served.address().to_string();
    let run = async |words: &'static str| {
        let address = address.clone();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/wire_client.py");
        let run = move || {
            std::process::Command::new("python3")
                .arg(script)
                .arg(address)
                .args(words.split(' '))
                .output()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said, errors)
    };
    for (words, says) in [
        ("append Call 42 Created {\"a\":1} --expected none", "\"positions\": [1]"),
        ("append Call 42 Ended {\"a\":2} --expected 1", "\"positions\": [2]"),
        ("append Call 43 Created {}", "\"positions\": [3]"),
        ("read Call 42 --backward", "\"version\": 2"),
        ("subscribe --count 3", "\"aggregate_id\": \"43\""),
        ("version Call 42", "{\"version\": 2}"),
        ("append $checkpoint main Saved {} --system --expected none", "\"positions\": [4]"),
        ("read $checkpoint main", "\"event_type\": \"Saved\""),
        ("status", "\"last_position\": 4"),
    ] {
        let (code, said, errors) = run(words).await;
        assert_eq!(code, Some(0), "{words}: {said}{errors}");
        assert!(said.contains(says), "{words}: {said}");
    }
    let (code, said, _) = run("append Call 42 Created {\"a\":1} --expected none").await;
    assert_eq!(code, Some(1));
    assert!(said.contains("\"error\": 300"), "{said}");
    for words in ["append $checkpoint main Saved {}", "append Call 42 Saved {} --system"] {
        assert_eq!(run(words).await.0, Some(1), "{words}");
    }
    assert_eq!(run("read").await.1.lines().count(), 3);
}
