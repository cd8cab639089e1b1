//! No bytes, however broken, make a whole session of the server panic, hang, or leave anything
//! behind, and all that it says is what the protocol allows.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use quipu_protocol::{
    AppendRequest, Cancel, Credit, Framer, Hello, MAGIC, MESSAGE_HEADER_BYTES, Message, Ping, Pong,
    Progress, Read, Response, Status, Subscribe, SystemAppend, VersionOf,
};
use quipu_server::{Load, ServerOptions, Service};
use quipu_tests::memory_disk::MemoryDisk;
use quipu_tests::stepped_log::SteppedLog;
use quipu_tests::varied_events::varied_event;
use quipu_types::{
    AggregateKey, Append, Checkpoint, Direction, ExpectedVersion, Filter, Position, ReadRequest,
    StartAfter, SubscribeRequest, Uuid, Version,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::time::{sleep, timeout};

/// Of the paused clock: longer than all time-outs of a session together.
const LONG: Duration = Duration::from_mins(10);
const ACTIONS_MAX: usize = 64;

enum Action {
    Send(BytesMut),
    Wait(Duration),
}

// `r`: raw bytes. `s`: actions, four bytes each. `d`: the same from a client that reads nothing.
fuzz_target!(|input: &[u8]| {
    let Some((kind, rest)) = input.split_first() else { return };
    let actions = match kind {
        b'r' => vec![Action::Send(rest.into())],
        _ => actions(rest),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(session(actions, *kind != b'd'));
});

async fn session(actions: Vec<Action>, reads: bool) {
    let options = quipu_client::Options::default().with_segment_bytes(32 * 1024).log;
    let log = SteppedLog::open(MemoryDisk::default().environment(), options).expect("a new log");
    let service = Service::new(Arc::clone(log.log()), limits());
    let (client, server) = duplex(4_096);
    let (server_reads, server_writes) = split(server);
    let (client_reads, client_writes) = split(client);
    let served = Arc::clone(&service).serve(server_reads, server_writes, "fuzz".to_owned());
    let served = tokio::spawn(timeout(LONG, served));
    let heard = tokio::spawn(hear(client_reads, reads));
    let said = tokio::spawn(say(client_writes, actions));
    while !served.is_finished() {
        log.run();
        let load = service.load();
        assert!(load.append_bytes <= limits().append_bytes, "{load:?}");
        assert!(load.output_bytes <= limits().output_bytes, "{load:?}");
        wait_for_readers(&service);
        sleep(Duration::from_millis(20)).await;
    }
    served.await.expect("the session does not panic").expect("the session ends");
    said.abort();
    if reads {
        heard.await.expect("what the server says is what the protocol allows");
    } else {
        heard.abort();
    }
    wait_for_readers(&service);
    // What the log has admitted it answers, though nobody is there any more, and what was spawned
    // beside the session may end a little later.
    log.run();
    sleep(Duration::from_millis(20)).await;
    assert_eq!(service.load(), Load::default(), "nothing is left behind");
    log.close();
}

fn limits() -> ServerOptions {
    let second = Duration::from_secs(1);
    ServerOptions {
        streams_max: 3,
        connection_append_bytes: 16 << 10,
        append_bytes: 32 << 10,
        connection_output_bytes: 16 << 10,
        output_bytes: 16 << 10,
        page_bytes: 4 << 10,
        handshake_within: second,
        progress_within: second,
        heartbeat: second / 4,
        dead_after: second,
        write_stall: second,
        linger: second / 2,
        ..ServerOptions::default()
    }
}

async fn say(mut out: WriteHalf<DuplexStream>, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Wait(time) => sleep(time).await,
            Action::Send(bytes) => {
                if out.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
    // A session that has ended already is not told so.
    out.shutdown().await.ok();
}

async fn hear(mut input: ReadHalf<DuplexStream>, reads: bool) {
    if !reads {
        return std::future::pending().await;
    }
    let (mut framer, mut buffer) = (Framer::new(), BytesMut::new());
    framer.set_bytes_max(1 << 20);
    let mut said_last = false;
    loop {
        while let Progress::Frame(frame) = framer.advance(&mut buffer).expect("messages") {
            assert!(!said_last, "nothing follows a connection error");
            let response = Response::decode(&frame).expect("a message a client knows");
            said_last = frame.request_id == 0 && matches!(response, Response::Error(_));
        }
        if !matches!(input.read_buf(&mut buffer).await, Ok(1..)) {
            return;
        }
    }
}

fn actions(input: &[u8]) -> Vec<Action> {
    let mut first = BytesMut::from(&MAGIC[..]);
    Hello::new("fuzz", None).encode(0, &mut first);
    let mut actions = vec![Action::Send(first)];
    for (number, action) in (1u64..).zip(input.chunks_exact(4).take(ACTIONS_MAX)) {
        let &[kind, a, b, c] = action else { continue };
        let at = usize::from(u16::from_le_bytes([b, c]));
        match (kind % 16, actions.last_mut()) {
            (12, Some(Action::Send(last))) if !last.is_empty() => {
                let at = at % last.len();
                last[at] ^= a;
            }
            (13, _) => actions.push(Action::Wait(Duration::from_millis(u64::from(a) * 10))),
            (14, Some(Action::Send(last))) if !last.is_empty() => last.truncate(at % last.len()),
            (15, Some(Action::Send(last))) if last.len() >= MESSAGE_HEADER_BYTES => {
                last[..4].copy_from_slice(&[a, b, c, a & 1]);
            }
            _ => {
                let id = if b & 0x80 == 0 { number } else { u64::from(b & 7) };
                actions.push(Action::Send(message(kind % 16, id, a, c)));
            }
        }
    }
    actions
}

fn message(kind: u8, id: u64, a: u8, c: u8) -> BytesMut {
    let mut out = BytesMut::new();
    let key = AggregateKey::new("Call", format!("{}-2", a % 11));
    let credit = Credit { events: u32::from(c), bytes: u32::from(c) * 64 };
    match kind {
        0 => append(a, c, ExpectedVersion::Any).encode(id, &mut out),
        1 => append(a, 1, ExpectedVersion::Exact(Version(u64::from(c % 4)))).encode(id, &mut out),
        2 => Read { request: read(a, key), credit }.encode(id, &mut out),
        3 => Subscribe { request: subscribe(a, key), credit }.encode(id, &mut out),
        4 => credit.encode(u64::from(a % 16), &mut out),
        5 => Cancel.encode(u64::from(a % 16), &mut out),
        6 => VersionOf(key).encode(id, &mut out),
        7 => Status.encode(id, &mut out),
        8 => Ping.encode(id, &mut out),
        9 => Pong.encode(id, &mut out),
        10 => SystemAppend(kept(a, c)).encode(id, &mut out),
        _ => Hello::new("again", None).encode(u64::from(a & 1), &mut out),
    }
    out
}

fn append(first: u8, events: u8, expected: ExpectedVersion) -> AppendRequest {
    let ids = u128::from(first)..u128::from(first) + u128::from(events % 8);
    let mut append = Append::any(ids.map(varied_event).collect());
    if expected != ExpectedVersion::Any {
        append.expectations =
            append.events.first().map(|it| (it.aggregate.clone(), expected)).into_iter().collect();
    }
    append.into()
}

/// What a client keeps for itself; sometimes of a type that it may not.
fn kept(first: u8, events: u8) -> AppendRequest {
    let mut request = append(first, events, ExpectedVersion::Any);
    for event in request.append.events.iter_mut().skip(usize::from(first & 1)) {
        event.aggregate = AggregateKey::new("$checkpoint", "fuzz");
    }
    request
}

fn read(a: u8, key: AggregateKey) -> ReadRequest {
    ReadRequest {
        filter: filter(a, key),
        from: (a & 8 != 0).then_some(u64::from(a >> 4)),
        direction: if a & 4 == 0 { Direction::Forward } else { Direction::Backward },
        limit: (a & 64 != 0).then_some(u64::from(a >> 6)),
    }
}

fn subscribe(a: u8, key: AggregateKey) -> SubscribeRequest {
    let position = Position(u64::from(a >> 4));
    let after = match a & 12 {
        0 => StartAfter::Position(position),
        4 => StartAfter::End,
        _ => StartAfter::Checkpoint(Checkpoint { log_id: Uuid::from_u128(1), position }),
    };
    SubscribeRequest { filter: filter(a, key), after }
}

fn filter(a: u8, key: AggregateKey) -> Filter {
    match a & 3 {
        0 => Filter { include_system: true, ..Filter::default() },
        1 => Filter::aggregate(key),
        2 => Filter { event_types: vec!["Kind1".to_owned()], ..Filter::default() },
        _ => Filter { correlation_id: Some("loan 173688".to_owned()), ..Filter::default() },
    }
}

/// The paused clock knows nothing of threads: it would go on by minutes while one of them reads.
fn wait_for_readers(service: &Service) {
    while service.load().reading > 0 {
        std::thread::yield_now();
    }
}
