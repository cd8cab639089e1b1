//! wire-protocol.md and the codec say the same: the conversation of its §12 byte for byte, its
//! tables, and a client in Python that was written from the page alone.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::Command;

use bytes::{Bytes, BytesMut};
use quipu_protocol::{
    AppendRequest, Credit, End, Framer, Hello, Kind, MAGIC, Message, Progress, Read, Records,
    Request, Response, Welcome, message_bytes_max,
};
use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
use quipu_types::{
    AggregateKey, Append, AppendOutcome, ExpectedVersion, Filter, Limits, Metadata, NewEvent,
    Position, ReadRequest, Record, Timestamp, Uuid, Version,
};
use rkyv::ser::allocator::Arena;

const PAGE: &str = include_str!("../../wire-protocol.md");

fn call() -> AggregateKey {
    AggregateKey::new("Call", "42")
}

fn event() -> NewEvent {
    let id = Uuid::from_u128(0x0190_aaaa_bbbb_7ccc_8ddd_0000_0000_0001);
    let at = Timestamp::from_micros(1_767_323_045_678_000);
    let mut event = NewEvent::json(id, call(), "Created", at, r#"{"from":"agent"}"#);
    event.metadata = Metadata { correlation_id: "c-7".to_owned(), ..Metadata::default() };
    event
}

fn record() -> Record {
    let buffer = RecordBuffer::new();
    let mut buffer = encode(buffer, &EventBody::from(&event()), &mut Arena::new());
    stamp(&mut buffer, Position(1), Version(1), Timestamp::from_micros(1_767_323_045_678_901));
    Record::parse(Bytes::from_owner(buffer)).unwrap()
}

fn welcome() -> Welcome {
    let limits = Limits::default();
    let number = |size: usize| u32::try_from(size).unwrap();
    Welcome {
        protocol: 1,
        record_format: 1,
        log_id: Uuid::from_u128(0x0123_4567_89ab_4def_8123_4567_89ab_cdef),
        event_bytes_max: number(limits.event_bytes_max),
        append_bytes_max: number(limits.append_bytes_max),
        append_events_max: number(limits.append_events_max),
        message_bytes_max: number(message_bytes_max(&limits)),
        window_events: 1_000,
        window_bytes: 8 << 20,
        streams_max: 1_000,
        heartbeat_ms: 5_000,
        dead_after_ms: 15_000,
        server: "quipu 0.1.0".to_owned(),
    }
}

fn requests() -> Vec<(u64, Request)> {
    let append = AppendRequest::from(Append::one(event(), ExpectedVersion::NoStream));
    let request = ReadRequest { filter: Filter::aggregate(call()), ..ReadRequest::default() };
    let credit = Credit { events: 1_000, bytes: 8 << 20 };
    vec![
        (0, Request::Hello(Hello::new("page 1", None))),
        (1, Request::Append(append)),
        (2, Request::Read(Read { request, credit })),
    ]
}

fn responses() -> Vec<(u64, Response)> {
    let outcome = AppendOutcome {
        duplicate: false,
        positions: vec![Position(1)],
        versions: vec![(call(), Version(1))],
    };
    vec![
        (0, Response::Welcome(welcome())),
        (1, Response::Appended(outcome)),
        (2, Response::Records(Records(vec![record()]))),
        (2, Response::End(End::Complete)),
    ]
}

/// One direction's bytes: the magic, then each message.
fn wire<T>(messages: &[(u64, T)], encode: impl Fn(&T, u64, &mut BytesMut)) -> Vec<BytesMut> {
    let mut parts = vec![BytesMut::from(&MAGIC[..])];
    for (id, message) in messages {
        let mut part = BytesMut::new();
        encode(message, *id, &mut part);
        parts.push(part);
    }
    parts
}

/// Every message begins a line of its own.
fn dump(side: char, parts: &[BytesMut]) -> String {
    let mut at = 0;
    let mut lines = Vec::new();
    for line in parts.iter().flat_map(|part| part.chunks(16)) {
        let (left, right) = line.split_at(line.len().min(8));
        let ascii: String = line.iter().map(|byte| shown_as(*byte)).collect();
        lines.push(format!("{side} {at:08x}  {:<24} {:<24} |{ascii}|", hex(left), hex(right)));
        at += line.len();
    }
    lines.join("\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn shown_as(byte: u8) -> char {
    if matches!(byte, 0x20..0x7f) { char::from(byte) } else { '.' }
}

/// The bytes that the page shows for one side, and a complaint where a line is out of its place.
fn shown(side: char) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in PAGE.lines().filter(|line| line.starts_with(&format!("{side} 0000"))) {
        let (at, rest) = line[2..].split_once("  ").unwrap();
        assert_eq!(usize::from_str_radix(at, 16).unwrap(), bytes.len(), "{line}");
        let columns = rest.split('|').next().unwrap().split_whitespace();
        bytes.extend(columns.map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    bytes
}

#[test]
fn the_conversation_is_what_the_codec_makes() {
    let client = wire(&requests(), Request::encode);
    let server = wire(&responses(), Response::encode);
    let page = format!("the page should show\n{}\n{}", dump('c', &client), dump('s', &server));
    assert!(shown('c') == client.concat() && shown('s') == server.concat(), "{page}");
}

#[test]
fn the_conversation_is_what_the_codec_takes() {
    let (mut framer, mut buffer) = (Framer::new(), BytesMut::from(&shown('c')[..]));
    for expected in requests() {
        let Progress::Frame(frame) = framer.advance(&mut buffer).unwrap() else { panic!("whole") };
        assert_eq!((frame.request_id, Request::decode(&frame).unwrap()), expected);
    }
    let (mut framer, mut buffer) = (Framer::new(), BytesMut::from(&shown('s')[..]));
    for expected in responses() {
        let Progress::Frame(frame) = framer.advance(&mut buffer).unwrap() else { panic!("whole") };
        assert_eq!((frame.request_id, Response::decode(&frame).unwrap()), expected);
    }
}

#[test]
fn the_table_of_kinds_is_complete() {
    for kind in Kind::ALL {
        let row = format!("| {:02x} | {kind:?} | ", kind as u8);
        let rows: Vec<&str> = PAGE.lines().filter(|line| line.starts_with(&row)).collect();
        assert_eq!(rows.len(), 1, "{row}");
    }
    let (_, section) = PAGE.split_once("\n## 4. Kinds\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let is_kind = |line: &&str| line.get(2..4).is_some_and(|it| u8::from_str_radix(it, 16).is_ok());
    assert_eq!(section.lines().filter(is_kind).count(), Kind::ALL.len());
}

#[test]
fn a_record_travels_as_it_is_stored() {
    let record = record();
    let stored = record.as_bytes().clone();
    let mut message = BytesMut::new();
    Records(vec![record]).encode(2, &mut message);
    assert_eq!(message[24..], stored[..]);
}

#[test]
fn the_client_in_python_agrees_with_the_page() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let output = Command::new("python3")
        .arg(tests.join("wire_client.py"))
        .arg("--self-test")
        .arg(tests.join("../wire-protocol.md"))
        .output()
        .expect("python3 can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("7 messages agree"), "{said}");
}
