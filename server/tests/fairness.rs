//! One client cannot hold up another, nor the server's end; and whatever was let in is answered.

mod support;

use std::time::Duration;

use bytes::BytesMut;
use quipu_protocol::{
    AppendRequest, Credit, End, Fault, Message, Read, Response, Status, Subscribe,
};
use quipu_server::{ServerOptions, Stopped};
use quipu_types::{Append, AppendError, ReadRequest};
use support::{
    Client, MUCH, Served, event, event_of, log_options, open_stepped, open_with, serve, serve_log,
    subscribe,
};
use tokio::time::{Instant, sleep, timeout};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_append_that_the_log_loses_is_answered_with_outcome_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_stepped(&folder);
    let served = serve_log(log, folder, ServerOptions::default()).await;
    let mut client = served.client().await;
    client.ask(1, &AppendRequest::from(Append::any(vec![event(1)]))).await;
    client.ask(2, &AppendRequest::from(Append::default())).await;
    let inbox = &served.log.shared().inbox;
    while inbox.is_empty() {
        sleep(Duration::from_millis(5)).await;
    }
    drop(inbox.drain());
    let (id, fault) = client.fault().await;
    assert_eq!(id, 1);
    assert!(matches!(fault, Fault::Append(AppendError::OutcomeUnknown(_))), "{fault:?}");
    assert_eq!(client.fault().await.0, 2, "what is behind it is answered, too");
    drop(client);
    served.holds_nothing().await;
}

#[tokio::test]
async fn an_event_that_was_stored_under_higher_limits_can_still_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = log_options();
    options.segment_bytes = 64 << 20;
    (options.limits.event_bytes_max, options.limits.append_bytes_max) = (8 << 20, 16 << 20);
    let log = open_with(&folder, options);
    let served = serve_log(log, folder, ServerOptions::default()).await;
    let payload = format!("\"{}\"", "x".repeat((8 << 20) - 2));
    served.client().await.append(1, vec![event_of(1, payload.clone())]).await;
    let Served { log, server, folder } = served;
    server.stop().await;
    drop(log);
    let served = serve_log(open_with(&folder, log_options()), folder, ServerOptions::default());
    let served = served.await;
    let mut client = served.client().await;
    client.ask(1, &Read { request: ReadRequest::default(), credit: MUCH }).await;
    assert_eq!(client.records(1).await[0].payload(), payload.as_bytes());
    assert_eq!(client.next().await, Some((1, Response::End(End::Complete))));
    client.ask(2, &AppendRequest::from(Append::any(vec![event_of(2, payload)]))).await;
    let (id, fault) = client.fault().await;
    assert!(id == 2 && matches!(fault.code(), 332 | 333), "{fault:?}");
}

/// An append of about this many bytes.
fn large(id: u128, bytes: usize) -> BytesMut {
    let mut wire = BytesMut::new();
    let events = vec![event_of(id, format!("\"{}\"", "x".repeat(bytes)))];
    AppendRequest::from(Append::any(events)).encode(1, &mut wire);
    wire
}

#[tokio::test]
async fn a_slow_upload_is_let_be_until_another_waits_for_its_room() {
    let options = ServerOptions {
        append_bytes: 600_000,
        progress_within: Duration::from_millis(200),
        progress_bytes: 100,
        ..ServerOptions::default()
    };
    let served = serve(options).await;
    let mut slow = served.client().await;
    let message = large(1, 700_000);
    slow.send(&message[..100_000]).await;
    let dribble = tokio::spawn(async move {
        for part in message[100_000..].chunks(100) {
            slow.send(part).await;
            sleep(Duration::from_millis(20)).await;
        }
    });
    sleep(2 * SECOND).await;
    assert_eq!(served.server.load().connections, 1, "slow is allowed");
    let mut small = served.client().await;
    let begun = Instant::now();
    small.append(1, vec![event(2)]).await;
    assert_eq!(served.server.load().connections, 2, "a small append is in nobody's way");
    let mut other = served.client().await;
    other.send(&large(3, 700_000)).await;
    other.appended().await;
    assert!(begun.elapsed() < 8 * SECOND, "{:?}", begun.elapsed());
    dribble.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_reads_nothing_keeps_no_records_from_others() {
    let options = ServerOptions {
        output_bytes: 512 << 10,
        connection_output_bytes: 512 << 10,
        progress_within: SECOND,
        ..ServerOptions::default()
    };
    let served = serve(options).await;
    let mut writer = served.client().await;
    let payload = format!("\"{}\"", "x".repeat(50_000));
    for id in 0..40u64 {
        let events = (1..=10).map(|it| event_of(u128::from(id * 10 + it), payload.clone()));
        writer.append(id + 1, events.collect()).await;
    }
    let huge = event_of(1_000, format!("\"{}\"", "x".repeat(600_000)));
    writer.append(41, vec![huge]).await;
    let mut deaf = served.client().await;
    deaf.ask(1, &subscribe(0, MUCH)).await;
    // Its socket takes a few MiB; then the server holds all that may be held, and for it.
    while served.server.load().output_bytes < 400 << 10 {
        sleep(Duration::from_millis(5)).await;
    }
    let mut reader = served.client().await;
    reader.ask(1, &Read { request: ReadRequest::default(), credit: MUCH }).await;
    let mut records = 0;
    while records < 401 {
        let page = timeout(5 * SECOND, reader.records(1)).await.expect("others hold everything");
        records += page.len();
    }
    assert_eq!(reader.next().await, Some((1, Response::End(End::Complete))));
}

/// Sends the same message again and again until the connection ends.
async fn never_stops(client: Client, message: impl Message + Send + Sync + 'static) {
    let (mut reader, mut writer) = client.socket.into_split();
    let send = async {
        for id in 1.. {
            let mut wire = BytesMut::new();
            message.encode(id, &mut wire);
            if tokio::io::AsyncWriteExt::write_all(&mut writer, &wire).await.is_err() {
                return;
            }
        }
    };
    let mut sink = tokio::io::sink();
    tokio::join!(send, async { tokio::io::copy(&mut reader, &mut sink).await.ok() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_never_stop_sending_do_not_delay_the_end() {
    let served = serve(ServerOptions::default()).await;
    let append = AppendRequest::from(Append::any(vec![event(1)]));
    tokio::spawn(never_stops(served.client().await, append));
    tokio::spawn(never_stops(served.client().await, Status));
    let endless = Subscribe { credit: Credit::default(), ..subscribe(0, MUCH) };
    tokio::spawn(never_stops(served.client().await, endless));
    sleep(SECOND / 2).await;
    let begun = Instant::now();
    assert_eq!(served.server.stop().await, Stopped { cut_off: 0 });
    assert!(begun.elapsed() < 10 * SECOND, "{:?}", begun.elapsed());
}
