//! Everything a client may do wrong gets a clear answer, in time, and costs nobody else anything.

mod support;

use std::time::Duration;

use bytes::BytesMut;
use quipu_protocol::{
    AppendRequest, Credit, End, Fault, Hello, MAGIC, Message, Ping, Read, Response, Status,
    Subscribe, VersionOf, Versions,
};
use quipu_server::{ListenError, Ports, ServerOptions};
use quipu_types::{
    AggregateKey, Append, AppendError, Checkpoint, Filter, Invalid, Position, ReadError,
    ReadRequest, StartAfter, SubscribeRequest, Uuid,
};
use support::{MUCH, Served, event, event_of, hasty, serve};
use tokio::time::Instant;

/// A message's header with a body of zeros.
fn raw(length: u32, kind: u8, request_id: u64) -> Vec<u8> {
    let header = quipu_protocol::Header { length, kind, flags: 0, zero: 0, request_id };
    let mut bytes = header.encode().to_vec();
    bytes.resize(length.clamp(16, 4_104) as usize, 0);
    bytes
}

async fn still_serves(served: &Served) {
    served.client().await.append(1, vec![event(u128::from(rand()))]).await;
}

fn rand() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(1) | 1
}

#[tokio::test]
async fn a_foreign_protocol_is_closed_without_a_word() {
    let served = serve(ServerOptions::default()).await;
    let foreign: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: quipu\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.7\r\n",
        b"QUIPUTCQ",
        &[0xff; 300],
    ];
    for bytes in foreign {
        let mut client = served.silent().await;
        client.send(bytes).await;
        client.is_closed().await;
    }
    still_serves(&served).await;
}

#[tokio::test]
async fn a_client_that_does_not_fit_learns_why_and_is_closed() {
    let served = serve(ServerOptions::default()).await;
    let hello = Hello::new("test", None);
    let newer = Versions { min: 2, max: 9 };
    let other_log = Uuid::from_u128(7);
    let cases = [
        (Hello { protocol: newer, ..hello.clone() }, 101),
        (Hello { record_formats: newer, ..hello.clone() }, 102),
        (Hello { credentials: b"secret"[..].into(), ..hello.clone() }, 103),
        (Hello { log_id: Some(other_log), ..hello }, 403),
    ];
    for (hello, code) in cases {
        let mut client = served.silent().await;
        assert_eq!(client.greet(&hello).await.unwrap_err().code(), code);
        client.is_closed().await;
    }
}

#[tokio::test]
async fn a_first_message_that_is_not_hello_ends_the_connection() {
    let served = serve(ServerOptions::default()).await;
    let cases = [raw(16, 0x09, 0), raw(24, 0x01, 0), raw(16, 0x7f, 1), raw(4_104, 0x01, 0)];
    for bytes in cases {
        let mut client = served.silent().await;
        client.send(&MAGIC).await;
        client.send(&bytes).await;
        let (id, fault) = client.fault().await;
        assert_eq!(id, 0, "{fault:?}");
        client.is_closed().await;
    }
}

#[tokio::test]
async fn a_message_that_claims_4_gib_is_refused_by_its_header() {
    let served = serve(ServerOptions::default()).await;
    for length in [u32::MAX, u32::MAX - 7, (8 << 20) + (64 << 10) + 8] {
        let mut client = served.client().await;
        client.send(&raw(length, 0x02, 1)[..16]).await;
        let limit = (8 << 20) + (64 << 10);
        let expected = Fault::over("message", limit, length as usize);
        assert_eq!(client.fault().await, (0, expected));
        client.is_closed().await;
    }
    for length in [0, 8, 15, 17] {
        let mut client = served.client().await;
        client.send(&raw(length, 0x02, 1)[..16]).await;
        assert_eq!(client.fault().await.1.code(), 200);
        client.is_closed().await;
    }
}

#[tokio::test]
async fn a_message_that_stops_half_way_or_dribbles_is_given_up() {
    let served = serve(hasty()).await;
    let begun = Instant::now();
    let mut stopped = served.client().await;
    stopped.send(&raw(4_096, 0x02, 1)[..100]).await;
    stopped.is_closed().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let mut dribbling = served.client().await;
    let bytes = raw(4_096, 0x02, 1);
    let dribble = async {
        for byte in bytes.chunks(1).take(200) {
            dribbling.send(byte).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
            if served.server.load().connections == 0 {
                return true;
            }
        }
        false
    };
    assert!(dribble.await, "one byte at a time keeps no connection open");
    served.holds_nothing().await;
}

#[tokio::test]
async fn half_a_large_message_holds_room_only_until_it_is_given_up() {
    let served = serve(hasty()).await;
    let mut client = served.client().await;
    client.send(&raw(1 << 20, 0x02, 1)).await;
    while served.server.load().append_bytes == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(served.server.load().append_bytes, 1 << 20);
    client.is_closed().await;
    served.holds_nothing().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_closed() {
    let served = serve(hasty()).await;
    served.silent().await.is_closed().await;
    let mut half = served.silent().await;
    half.send(&MAGIC[..5]).await;
    half.is_closed().await;
    served.holds_nothing().await;
}

#[tokio::test]
async fn a_client_that_falls_silent_is_pinged_and_then_closed() {
    let served = serve(hasty()).await;
    let mut client = served.client().await;
    let mut pings = 0;
    while let Some((_, response)) = client.next_of_any_kind().await {
        assert!(matches!(response, Response::Ping(_)), "{response:?}");
        pings += 1;
    }
    assert!(pings >= 2, "{pings} pings");
    let mut lively = served.client().await;
    for id in 0..12 {
        lively.ask(id, &Ping).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(served.server.load().connections, 1, "who pings is alive");
}

#[tokio::test]
async fn a_connection_too_many_is_told_so_and_a_place_that_is_left_is_taken() {
    let served = serve(ServerOptions { connections_max: 2, ..hasty_but_patient() }).await;
    let (first, _second) = (served.client().await, served.client().await);
    let mut third = served.silent().await;
    let refused = third.greet(&Hello::new("third", None)).await.unwrap_err();
    assert_eq!(refused, Fault::over("connections", 2, 3));
    third.is_closed().await;
    drop((first, third));
    while served.server.load().connections > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served.client().await.append(1, vec![event(1)]).await;
}

fn hasty_but_patient() -> ServerOptions {
    ServerOptions { linger: Duration::from_millis(200), ..ServerOptions::default() }
}

#[tokio::test]
async fn an_unknown_request_is_refused_and_the_connection_goes_on() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    client.send(&raw(16, 0x42, 5)).await;
    assert_eq!(client.fault().await, (5, Fault::Unknown { kind: 0x42, flags: 0 }));
    let mut flagged = raw(16, 0x08, 6);
    flagged[5] = 1;
    client.send(&flagged).await;
    assert_eq!(client.fault().await, (6, Fault::Unknown { kind: 8, flags: 1 }));
    client.append(7, vec![event(1)]).await;
    client.send(&raw(16, 0x42, 0)).await;
    assert_eq!(client.fault().await.0, 0);
    client.is_closed().await;
}

#[tokio::test]
async fn what_is_unknown_about_an_open_request_ends_the_connection() {
    let served = serve(ServerOptions::default()).await;
    // Credit and Cancel with a flag, and kinds that a server sends.
    let unknown = [(0x05, 1), (0x06, 1), (0x83, 0), (0x85, 0), (0xff, 0)];
    for (stored, (kind, flags)) in (0..).zip(unknown) {
        let mut client = served.client().await;
        client.ask(5, &support::subscribe(stored, MUCH)).await;
        assert!(matches!(client.next().await, Some((5, Response::Mark(_)))));
        let mut unknown = raw(24, kind, 5);
        unknown[5] = flags;
        client.send(&unknown).await;
        assert_eq!(client.fault().await, (0, Fault::Unknown { kind, flags }));
        client.is_closed().await;
        // About no request, each is refused by itself.
        let mut client = served.client().await;
        client.send(&unknown).await;
        assert_eq!(client.fault().await, (5, Fault::Unknown { kind, flags }));
        client.append(6, vec![event(1 + u128::from(stored))]).await;
    }
    served.holds_nothing().await;
}

#[tokio::test]
async fn a_malformed_request_fails_alone_a_malformed_notice_ends_the_connection() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    for (id, kind) in [(1, 0x02), (2, 0x03), (3, 0x04), (4, 0x07)] {
        let mut bytes = raw(24, kind, id);
        bytes[16..].fill(0xff);
        client.send(&bytes).await;
        let (given, fault) = client.fault().await;
        assert_eq!(given, id, "{fault:?}");
        assert!([200, 202].contains(&fault.code()), "{fault:?}");
    }
    client.ask(5, &Status).await;
    assert!(matches!(client.next().await, Some((5, Response::StatusIs(_)))));
    client.send(&raw(16, 0x05, 9)).await;
    assert_eq!(client.fault().await.0, 0);
    client.is_closed().await;
}

#[tokio::test]
async fn a_request_id_in_use_or_0_and_a_second_hello_end_the_connection() {
    let served = serve(ServerOptions::default()).await;
    let mut twice = served.client().await;
    twice.ask(3, &support::subscribe(0, MUCH)).await;
    assert!(matches!(twice.next().await, Some((3, Response::Mark(_)))));
    twice.ask(3, &Status).await;
    assert_eq!(twice.fault().await, (0, Fault::RequestId { id: 3 }));
    twice.is_closed().await;
    let mut zero = served.client().await;
    zero.ask(0, &Status).await;
    assert_eq!(zero.fault().await, (0, Fault::RequestId { id: 0 }));
    zero.is_closed().await;
    let mut hello = served.client().await;
    hello.ask(0, &Hello::new("again", None)).await;
    assert_eq!(hello.fault().await.1.code(), 200);
    hello.is_closed().await;
    served.holds_nothing().await;
}

#[tokio::test]
async fn an_append_that_can_never_be_stored_fails_in_its_turn() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    let bad: [(Vec<_>, u16); 6] = [
        (vec![], 330),
        (vec![event(0)], 323),
        (vec![event(1), event(1)], 324),
        (vec![event_of(1, "{".to_owned())], 327),
        ((1..=2_049).map(event).collect(), 331),
        (vec![event_of(1, format!("\"{}\"", "x".repeat(1_000_000)))], 333),
    ];
    let mut wire = BytesMut::new();
    for (id, (events, _)) in (1..).zip(&bad) {
        AppendRequest::from(Append::any(events.clone())).encode(2 * id, &mut wire);
        let good = Append::any(vec![event(1_000 + u128::from(id))]);
        AppendRequest::from(good).encode(2 * id + 1, &mut wire);
    }
    client.send(&wire).await;
    for (id, (_, code)) in (1..).zip(&bad) {
        let (given, fault) = client.fault().await;
        assert_eq!((given, fault.code()), (2 * id, *code), "{fault:?}");
        assert_eq!(client.appended().await.0, 2 * id + 1);
    }
    assert_eq!(served.log.shared().watermark.current(), Position(6));
}

#[tokio::test]
async fn an_append_over_the_logs_limit_says_the_limit() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    let half = format!("\"{}\"", "x".repeat(1 << 19));
    let events = vec![event_of(1, half.clone()), event_of(2, half)];
    client.ask(1, &AppendRequest::from(Append::any(events))).await;
    let (id, fault) = client.fault().await;
    let Fault::Append(AppendError::Invalid(Invalid::AppendTooLarge { limit, given })) = fault
    else {
        panic!("{fault:?}")
    };
    assert_eq!((id, limit), (1, 1 << 20));
    assert!(given > limit);
    client.append(2, vec![event(3)]).await;
}

#[tokio::test]
async fn a_checkpoint_past_the_end_or_of_another_log_is_refused() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    client.append(1, vec![event(1)]).await;
    let actual = served.log.shared().log_id;
    let mut refused = async |id, log_id, position| {
        let checkpoint = Checkpoint { log_id, position: Position(position) };
        let after = StartAfter::Checkpoint(checkpoint);
        let request = SubscribeRequest { after, ..SubscribeRequest::default() };
        client.ask(id, &Subscribe { request, credit: MUCH }).await;
        client.fault().await
    };
    let past_end = ReadError::PastEnd { given: Position(2), end: Position(1) };
    assert_eq!(refused(2, actual, 2).await, (2, past_end.into()));
    let given = Uuid::from_u128(1);
    assert_eq!(refused(3, given, 1).await, (3, ReadError::OtherLog { given, actual }.into()));
    client.ask(4, &VersionOf(AggregateKey::new("Call", "1"))).await;
    assert!(matches!(client.next().await, Some((4, Response::VersionIs(it))) if it.0.0 == 1));
}

#[tokio::test]
async fn a_stream_too_many_is_refused_until_one_ends() {
    let served = serve(ServerOptions { streams_max: 1, ..ServerOptions::default() }).await;
    let mut client = served.client().await;
    client.ask(1, &support::subscribe(0, MUCH)).await;
    assert!(matches!(client.next().await, Some((1, Response::Mark(_)))));
    client.ask(2, &Read { request: ReadRequest::default(), credit: MUCH }).await;
    assert_eq!(client.fault().await, (2, Fault::over("streams", 1, 2)));
    client.ask(1, &quipu_protocol::Cancel).await;
    assert_eq!(client.next().await, Some((1, Response::End(End::Cancelled))));
    client.ask(2, &Read { request: ReadRequest::default(), credit: MUCH }).await;
    assert_eq!(client.next().await, Some((2, Response::End(End::Complete))));
    drop(client);
    served.holds_nothing().await;
}

#[tokio::test]
async fn filters_that_hold_too_much_together_are_refused_until_a_stream_ends() {
    let served = serve(ServerOptions::default()).await;
    let mut client = served.client().await;
    let names = vec!["x".repeat(100); 1_000];
    let (aggregate_types, event_types) = (names.clone(), names);
    let filter = Filter { aggregate_types, event_types, ..Filter::default() };
    let request = SubscribeRequest { filter: filter.clone(), ..SubscribeRequest::default() };
    let subscribe = Subscribe { request, credit: Credit::default() };
    let request = ReadRequest { filter, ..ReadRequest::default() };
    let read = Read { request, credit: Credit::default() };
    for id in [1, 2] {
        client.ask(id, &read).await;
    }
    for id in [3, 4] {
        client.ask(id, &subscribe).await;
        assert!(matches!(client.next().await, Some((it, Response::Mark(_))) if it == id));
    }
    let fault = Fault::over("filters", 1 << 20, 5 * 2_000 * (100 + 24));
    client.ask(5, &subscribe).await;
    assert_eq!(client.fault().await, (5, fault.clone()));
    client.ask(6, &read).await;
    assert_eq!(client.fault().await, (6, fault));
    client.ask(7, &support::subscribe(0, MUCH)).await;
    assert!(matches!(client.next().await, Some((7, Response::Mark(_)))), "it holds nothing");
    client.ask(1, &quipu_protocol::Cancel).await;
    assert_eq!(client.next().await, Some((1, Response::End(End::Cancelled))));
    client.ask(5, &subscribe).await;
    assert!(matches!(client.next().await, Some((5, Response::Mark(_)))));
    drop(client);
    served.holds_nothing().await;
}

#[tokio::test]
async fn a_port_in_use_and_one_that_others_could_reach_are_refused_by_name() {
    let served = serve(ServerOptions::default()).await;
    let address = served.address().to_string();
    let in_use = Ports::open(&address, None, false).await.err().expect("it is in use");
    assert!(in_use.to_string().contains(&address), "{in_use}");
    let remote = Ports::open("0.0.0.0:0", None, false).await.err().expect("not loopback");
    assert!(matches!(remote, ListenError::Remote { .. }), "{remote}");
    let http = Ports::open("127.0.0.1:0", Some("0.0.0.0:0"), false).await.err();
    assert!(matches!(http, Some(ListenError::Remote { .. })), "{http:?}");
    Ports::open("0.0.0.0:0", None, true).await.expect("it was allowed");
}

/// Bytes of a valid conversation, each flipped or cut: the server outlives every one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_cut_at_random_bytes_leave_nothing_behind() {
    let served = serve(ServerOptions { linger: Duration::from_millis(50), ..hasty() }).await;
    for number in 0..1_000u64 {
        let mut wire = BytesMut::from(&MAGIC[..]);
        Hello::new("cut", None).encode(0, &mut wire);
        let events = (1..5).map(|it| event(u128::from(number) * 10 + it)).collect();
        AppendRequest::from(Append::any(events)).encode(1, &mut wire);
        support::subscribe(0, MUCH).encode(2, &mut wire);
        Read { request: ReadRequest::default(), credit: MUCH }.encode(3, &mut wire);
        let cut = usize::try_from(rand() % wire.len() as u64).unwrap();
        if number % 3 == 0 {
            wire[cut] ^= 1 << (number % 8);
            let mut client = served.silent().await;
            client.send(&wire).await;
            continue;
        }
        let mut client = served.silent().await;
        client.send(&wire[..cut]).await;
        if number % 2 == 0 {
            // Reset rather than close.
            client.socket.set_zero_linger().unwrap();
        }
    }
    served.holds_nothing().await;
    still_serves(&served).await;
}
