//! No bytes, however broken, make the framer or a message's decoder panic or grow, and a message
//! that is taken says the same when it is sent again.
#![no_main]
#![expect(clippy::disallowed_types, reason = "`fuzz_target!` opens a debug file of its own")]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use quipu_protocol::{
    AppendRequest, Credit, Fault, Frame, FrameError, Framer, HANDSHAKE_BYTES_MAX, Hello, MAGIC,
    MESSAGE_HEADER_BYTES, Message, Progress, Read, Records, Request, Response, StatusIs, Subscribe,
    SystemAppend,
};
use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, Checkpoint, ExpectedVersion, Filter, Invalid,
    NewEvent, Position, ReadRequest, Record, StartAfter, SubscribeRequest, Timestamp, Uuid,
    Version, VersionConflict,
};
use rkyv::ser::allocator::Arena;

const BYTES_MAX: usize = 1 << 16;

// The first byte says how the rest is read: as a connection's bytes that arrive in pieces, as the
// body of a message whose kind is the next byte, or as edits of a valid message that the next byte
// chooses.
fuzz_target!(|input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    let Some((choice, rest)) = rest.split_first() else { return };
    match how {
        b'r' => take_stream(rest, usize::from(*choice) + 1),
        b'b' => take(&frame_of(*choice, 0, rest)),
        b'f' => take(&frame_of(*choice, 1, rest)),
        _ => take_edited(*choice, rest),
    }
});

fn frame_of(kind: u8, flags: u8, body: &[u8]) -> Frame {
    Frame { kind, flags, request_id: 1, body: Bytes::copy_from_slice(body) }
}

fn take_stream(bytes: &[u8], step: usize) {
    let (mut framer, mut buffer) = (Framer::new(), BytesMut::new());
    for part in bytes.chunks(step) {
        buffer.extend_from_slice(part);
        loop {
            match framer.advance(&mut buffer) {
                Ok(Progress::Frame(frame)) => {
                    take(&frame);
                    framer.set_bytes_max(BYTES_MAX);
                }
                Ok(Progress::Need(more)) => {
                    assert!(more > 0 && more + buffer.len() <= BYTES_MAX.max(HANDSHAKE_BYTES_MAX));
                    break;
                }
                Err(error) => return refuse(error),
            }
        }
    }
}

fn refuse(error: FrameError) {
    let mut answer = BytesMut::new();
    Fault::from(error).encode(0, &mut answer);
    assert!(answer.len() <= HANDSHAKE_BYTES_MAX);
}

fn take(frame: &Frame) {
    match Request::decode(frame) {
        Ok(request) => again(frame, &request, Request::encode, |it| Request::decode(it).ok()),
        Err(error) => {
            let id = frame.failed_request(&error);
            assert!(id == 0 || id == frame.request_id);
            let mut answer = BytesMut::new();
            Fault::from(error).encode(id, &mut answer);
            assert!(answer.len() <= HANDSHAKE_BYTES_MAX);
        }
    }
    if let Ok(response) = Response::decode(frame) {
        if let Response::Error(fault) = &response {
            assert!(!fault.to_string().is_empty());
        }
        again(frame, &response, Response::encode, |it| Response::decode(it).ok());
    }
}

/// What was taken is sent again, no longer than it came but for an error's text, and taken again.
fn again<T: PartialEq + std::fmt::Debug>(
    frame: &Frame,
    message: &T,
    encode: impl Fn(&T, u64, &mut BytesMut),
    decode: impl Fn(&Frame) -> Option<T>,
) {
    let mut out = BytesMut::new();
    encode(message, frame.request_id, &mut out);
    assert!(out.len() <= MESSAGE_HEADER_BYTES + frame.body.len().next_multiple_of(8) + 2_048);
    let body = out.split_off(MESSAGE_HEADER_BYTES).freeze();
    let sent = Frame { body, ..frame.clone() };
    assert_eq!(decode(&sent).as_ref(), Some(message));
}

/// Each edit is three bytes: where (two, little-endian, taken modulo the length) and what to flip.
fn take_edited(choice: u8, edits: &[u8]) {
    let mut bytes = valid(choice);
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] ^= edit[2];
    }
    let mut stream = MAGIC.to_vec();
    stream.extend_from_slice(&bytes);
    take_stream(&stream, stream.len());
}

fn valid(choice: u8) -> BytesMut {
    let mut out = BytesMut::new();
    let credit = Credit { events: 1_000, bytes: 8 << 20 };
    match choice % 11 {
        0 => Hello::new("fuzz", Some(Uuid::from_u128(7))).encode(0, &mut out),
        1 => AppendRequest::from(append()).encode(1, &mut out),
        2 => Read { request: read(), credit }.encode(2, &mut out),
        3 => Subscribe { request: subscription(), credit }.encode(3, &mut out),
        4 => credit.encode(3, &mut out),
        5 => outcome().encode(1, &mut out),
        6 => Records(vec![record(1), record(2)]).encode(2, &mut out),
        7 => conflict().encode(1, &mut out),
        8 => too_long().encode(1, &mut out),
        9 => SystemAppend(append().into()).encode(1, &mut out),
        _ => StatusIs(r#"{"state":"open"}"#.to_owned()).encode(4, &mut out),
    }
    out
}

fn key() -> AggregateKey {
    AggregateKey::new("Call", "42")
}

fn event(id: u128) -> NewEvent {
    let event_id = Uuid::from_u128(id);
    NewEvent::json(event_id, key(), "Created", Timestamp::from_micros(5), r#"{"a":1}"#)
}

fn append() -> Append {
    Append::any(vec![event(1), event(2)]).expect(key(), ExpectedVersion::Exact(Version(3)))
}

fn filter() -> Filter {
    Filter {
        aggregate: Some(key()),
        aggregate_types: vec!["Call".to_owned(), "Account".to_owned()],
        event_types: vec!["Created".to_owned()],
        correlation_id: Some("c".to_owned()),
        since: Some(Timestamp::from_micros(1)),
        until: Some(Timestamp::from_micros(2)),
        recorded_since: Some(Timestamp::from_micros(3)),
        include_system: true,
    }
}

fn read() -> ReadRequest {
    ReadRequest { filter: filter(), from: Some(3), limit: Some(9), ..ReadRequest::default() }
}

fn subscription() -> SubscribeRequest {
    let checkpoint = Checkpoint { log_id: Uuid::from_u128(7), position: Position(4) };
    SubscribeRequest { filter: filter(), after: StartAfter::Checkpoint(checkpoint) }
}

fn outcome() -> AppendOutcome {
    let positions = vec![Position(1), Position(2)];
    AppendOutcome { duplicate: true, positions, versions: vec![(key(), Version(2))] }
}

fn record(position: u64) -> Record {
    let event = event(position.into());
    let mut bytes = encode(RecordBuffer::new(), &EventBody::from(&event), &mut Arena::new());
    stamp(&mut bytes, Position(position), Version(position), Timestamp::from_micros(6));
    Record::parse(Bytes::from_owner(bytes)).expect("what was just encoded is a record")
}

fn conflict() -> Fault {
    let expected = ExpectedVersion::NoStream;
    let conflict = VersionConflict { key: key(), expected, actual: Version(4) };
    AppendError::Conflict(vec![conflict.clone(), conflict]).into()
}

fn too_long() -> Fault {
    let field = "correlation_id";
    AppendError::from(Invalid::TooLong { field, limit: 255, given: 300 }).into()
}
