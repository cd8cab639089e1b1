//! Every message comes back as it was sent, errors lose nothing, and no bytes make a decoder panic.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Debug;

use bytes::{Buf, Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use quipu_protocol::{
    AppendRequest, Balance, Cancel, Credit, DecodeError, End, Fault, Frame, Framer, Hello, Kind,
    MAGIC, MESSAGE_HEADER_BYTES, Mark, Message, Ping, Pong, Progress, Read, Records, Request,
    Response, Status, StatusIs, Subscribe, SystemAppend, VersionIs, VersionOf, Versions, Welcome,
};
use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, Checkpoint, Corruption, Direction,
    ExpectedVersion, Filter, IdConflictReason, Invalid, Metadata, NewEvent, Position, ReadError,
    ReadRequest, Record, StartAfter, SubscribeRequest, Timestamp, Uuid, Version, VersionConflict,
};
use rkyv::ser::allocator::Arena;

const PAGE: &str = include_str!("../../wire-protocol.md");

fn frame(bytes: &[u8]) -> Frame {
    let mut wire = BytesMut::from(&MAGIC[..]);
    wire.extend_from_slice(bytes);
    let mut framer = Framer::new();
    framer.set_bytes_max(1 << 24);
    let Ok(Progress::Frame(frame)) = framer.advance(&mut wire) else { panic!("one whole message") };
    assert!(wire.is_empty());
    frame
}

fn comes_back<M: Message + PartialEq + Debug>(message: &M) {
    let mut out = BytesMut::new();
    message.encode(9, &mut out);
    let frame = frame(&out);
    assert_eq!((frame.kind, frame.request_id), (M::KIND as u8, 9));
    assert_eq!(&M::decode(frame.body.clone()).unwrap(), message);
    let mut extended = BytesMut::from(&frame.body[..]);
    extended.extend_from_slice(b"a field of a newer peer.");
    assert_eq!(&M::decode(extended.freeze()).unwrap(), message, "further fields are ignored");
    cut_short_is_no_panic::<M>(&frame.body);
}

/// A body that is cut off is refused, or says the same but for padding.
fn cut_short_is_no_panic<M: Message + PartialEq + Debug>(body: &Bytes) {
    for length in 0..body.len().min(512) {
        if let Ok(message) = M::decode(body.slice(..length)) {
            assert!(body[length..].iter().all(|byte| *byte == 0), "{message:?} lacks {length}");
        }
    }
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-zA-Z0-9$ é€/]{0,12}"]
}

fn key() -> impl Strategy<Value = AggregateKey> {
    (text(), text()).prop_map(|(aggregate_type, id)| AggregateKey::new(aggregate_type, id))
}

fn uuid() -> impl Strategy<Value = Uuid> {
    (1..=u128::MAX).prop_map(Uuid::from_u128)
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn position() -> impl Strategy<Value = Position> {
    any::<u64>().prop_map(Position)
}

fn version() -> impl Strategy<Value = Version> {
    any::<u64>().prop_map(Version)
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..40)
}

fn expected() -> impl Strategy<Value = ExpectedVersion> {
    prop_oneof![
        Just(ExpectedVersion::Any),
        Just(ExpectedVersion::NoStream),
        Just(ExpectedVersion::StreamExists),
        version().prop_map(ExpectedVersion::Exact),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    (option::of(uuid()), [text(), text(), text(), text(), text()], bytes()).prop_map(
        |(user_id, [correlation_id, causation_id, ip_address, user_agent, traceparent], custom)| {
            Metadata {
                user_id,
                correlation_id,
                causation_id,
                ip_address,
                user_agent,
                traceparent,
                custom,
            }
        },
    )
}

fn event() -> impl Strategy<Value = NewEvent> {
    (uuid(), key(), [text(), text()], time(), any::<u16>(), metadata(), bytes()).prop_map(
        |(
            event_id,
            aggregate,
            [event_type, content_type],
            timestamp,
            schema_version,
            metadata,
            payload,
        )| NewEvent {
            event_id,
            aggregate,
            event_type,
            timestamp,
            schema_version,
            metadata,
            content_type,
            payload,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    (event(), position(), version(), time()).prop_map(|(event, position, version, at)| {
        let body = EventBody::from(&event);
        let mut buffer = encode(RecordBuffer::new(), &body, &mut Arena::new());
        stamp(&mut buffer, position, version, at);
        Record::parse(Bytes::from_owner(buffer)).unwrap()
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let times = [option::of(time()), option::of(time()), option::of(time())];
    let names = [vec(text(), 0..4), vec(text(), 0..4)];
    (option::of(key()), names, option::of(text()), times, any::<bool>()).prop_map(
        |(
            aggregate,
            [aggregate_types, event_types],
            correlation_id,
            [since, until, recorded_since],
            include_system,
        )| Filter {
            aggregate,
            aggregate_types,
            event_types,
            correlation_id,
            since,
            until,
            recorded_since,
            include_system,
        },
    )
}

fn credit() -> impl Strategy<Value = Credit> {
    any::<(u32, u32)>().prop_map(|(events, bytes)| Credit { events, bytes })
}

fn versions() -> impl Strategy<Value = Versions> {
    any::<(u16, u16)>().prop_map(|(min, max)| Versions { min, max })
}

fn after() -> impl Strategy<Value = StartAfter> {
    prop_oneof![
        position().prop_map(StartAfter::Position),
        Just(StartAfter::End),
        (uuid(), position()).prop_map(|(log_id, position)| {
            StartAfter::Checkpoint(Checkpoint { log_id, position })
        }),
    ]
}

proptest! {
    #[test]
    fn hello(protocol in versions(), record_formats in versions(), log_id in option::of(uuid()),
        client in text(), credentials in bytes()) {
        let credentials = credentials.into();
        comes_back(&Hello { protocol, record_formats, log_id, client, credentials });
    }

    #[test]
    fn welcome(log_id in uuid(), numbers in any::<[u32; 9]>(), versions in versions(),
        server in text()) {
        comes_back(&Welcome {
            protocol: versions.min,
            record_format: versions.max,
            log_id,
            event_bytes_max: numbers[0],
            append_bytes_max: numbers[1],
            append_events_max: numbers[2],
            message_bytes_max: numbers[3],
            window_events: numbers[4],
            window_bytes: numbers[5],
            streams_max: numbers[6],
            heartbeat_ms: numbers[7],
            dead_after_ms: numbers[8],
            server,
        });
    }

    #[test]
    fn append(events in vec(event(), 0..4), expectations in vec((key(), expected()), 0..4),
        traceparent in text()) {
        let request = AppendRequest { append: Append { events, expectations }, traceparent };
        comes_back(&request);
        comes_back(&SystemAppend(request));
    }

    #[test]
    fn an_append_that_fits_has_an_answer_that_fits(
        expectations in vec((key(), expected()), 0..200)) {
        let conflict = |(key, expected): (AggregateKey, ExpectedVersion)| {
            VersionConflict { key, expected, actual: Version(u64::MAX) }
        };
        let conflicts = expectations.iter().cloned().map(conflict).collect();
        let append = Append { events: Vec::new(), expectations };
        let (mut request, mut answer) = (BytesMut::new(), BytesMut::new());
        AppendRequest::from(append.clone()).encode(1, &mut request);
        Fault::from(AppendError::Conflict(conflicts)).encode(1, &mut answer);
        let fits = AppendRequest::from(append).check_fits(request.len(), answer.len() - 1);
        prop_assert!(fits.is_err(), "{} bytes are answered with {}", request.len(), answer.len());
    }

    #[test]
    fn appended(duplicate in any::<bool>(), positions in vec(position(), 0..8),
        versions in vec((key(), version()), 0..4)) {
        comes_back(&AppendOutcome { duplicate, positions, versions });
    }

    #[test]
    fn read(filter in filter(), from in option::of(any::<u64>()), backward in any::<bool>(),
        limit in option::of(any::<u64>()), credit in credit()) {
        let direction = if backward { Direction::Backward } else { Direction::Forward };
        comes_back(&Read { request: ReadRequest { filter, from, direction, limit }, credit });
    }

    #[test]
    fn subscribe(filter in filter(), after in after(), credit in credit()) {
        comes_back(&Subscribe { request: SubscribeRequest { filter, after }, credit });
    }

    #[test]
    fn records(records in vec(record(), 0..4)) {
        let mut page = BytesMut::new();
        Records::encode_page(&records, 9, &mut page);
        let records = Records(records);
        let mut whole = BytesMut::new();
        records.encode(9, &mut whole);
        prop_assert_eq!(&page, &whole);
        // Whatever the alignment of the buffer they are received in.
        for shift in 0..8 {
            let mut received = BytesMut::zeroed(shift);
            received.extend_from_slice(&whole[MESSAGE_HEADER_BYTES..]);
            received.advance(shift);
            prop_assert_eq!(&Records::decode(received.freeze()).unwrap(), &records);
        }
        cut_short_is_no_panic::<Records>(&whole.freeze().slice(MESSAGE_HEADER_BYTES..));
    }

    #[test]
    fn the_small_ones(credit in credit(), key in key(), number in any::<u64>(), status in text()) {
        comes_back(&credit);
        comes_back(&VersionOf(key));
        comes_back(&VersionIs(Version(number)));
        comes_back(&StatusIs(status));
        for mark in [Mark::Checkpoint, Mark::CaughtUp, Mark::FellBehind] {
            comes_back(&mark(Position(number)));
        }
    }

    #[test]
    fn any_bytes_are_taken_or_refused(kind in any::<u8>(), flags in 0..2u8, id in any::<u64>(),
        body in vec(prop_oneof![3 => Just(0), 1 => any::<u8>()], 0..200)) {
        let body = Bytes::from(body);
        let frame = Frame { kind, flags, request_id: id, body };
        if let Err(error) = Request::decode(&frame) {
            prop_assert!([0, id].contains(&frame.failed_request(&error)));
            let mut answer = BytesMut::new();
            Fault::from(error).encode(id, &mut answer);
            prop_assert!(answer.len() < 2_048);
        }
        if let Ok(response) = Response::decode(&frame) {
            let mut again = BytesMut::new();
            response.encode(id, &mut again);
        }
    }

    #[test]
    fn a_balance_overdraws_by_one_record_at_most(first in 1..3_000u32, grants in vec(0..500u32, 20),
        record in record()) {
        let size = record.as_bytes().len();
        let mut balance = Balance::new(Credit { events: 100, bytes: first });
        let (mut given, mut sent) = (first as usize, 0);
        for bytes in grants {
            while balance.is_open() {
                let fit = (balance.bytes() / size).clamp(1, balance.records());
                balance.take(&vec![record.clone(); fit]);
                sent += fit * size;
            }
            prop_assert!(sent < given + size);
            balance.add(Credit { events: 100, bytes });
            given += bytes as usize;
        }
    }
}

#[test]
fn those_without_fields() {
    comes_back(&Cancel);
    comes_back(&Status);
    comes_back(&Ping);
    comes_back(&Pong);
    for end in [End::Complete, End::Cancelled, End::Stopping] {
        comes_back(&end);
    }
}

fn invalids() -> Vec<Invalid> {
    let field = "correlation_id";
    vec![
        Invalid::Empty { field },
        Invalid::TooLong { field, limit: 255, given: 300 },
        Invalid::ControlCharacter { field, at: 3, given: 7 },
        Invalid::NilEventId,
        Invalid::RepeatedEventId { event_id: Uuid::from_u128(5) },
        Invalid::RepeatedExpectation { key: AggregateKey::new("Call", "42") },
        Invalid::Timestamp { micros: i64::MIN },
        Invalid::EventTooLarge { limit: 1, given: 2 },
        Invalid::NoEvents,
        Invalid::TooManyEvents { limit: 1, given: 2 },
        Invalid::AppendTooLarge { limit: 1, given: usize::MAX },
        Invalid::NotJson { field, problem: "at line 1".to_owned() },
        Invalid::NotAnObject { field },
        Invalid::SystemType { given: "$x".to_owned() },
        Invalid::NotSystemType { given: "x".to_owned() },
    ]
}

fn read_errors() -> Vec<ReadError> {
    let problem = "a sum".repeat(1_000);
    let (first, last) = (Position(3), Position::MAX);
    vec![
        Corruption { segment: 7, first, last, problem: problem.clone() }.into(),
        ReadError::Io { segment: 7, problem },
        ReadError::PastEnd { given: Position(9), end: Position(8) },
        ReadError::OtherLog { given: Uuid::from_u128(1), actual: Uuid::from_u128(2) },
        ReadError::Closed,
    ]
}

fn append_errors() -> Vec<AppendError> {
    let conflict = |expected| VersionConflict {
        key: AggregateKey::new("Call", "42"),
        expected,
        actual: Version(4),
    };
    let conflicts = vec![
        conflict(ExpectedVersion::Exact(Version(3))),
        conflict(ExpectedVersion::NoStream),
        conflict(ExpectedVersion::StreamExists),
    ];
    let id_conflict = |reason| {
        let (event_id, position) = (Uuid::from_u128(5), Position(6));
        AppendError::IdConflict { event_id, position, reason }
    };
    let mut errors = vec![
        AppendError::Conflict(conflicts),
        id_conflict(IdConflictReason::OtherContent),
        id_conflict(IdConflictReason::PartlyKnown),
        AppendError::NoSpace("é".repeat(2_000)),
        AppendError::Overloaded { queued_bytes: 1, queued_appends: 2 },
        AppendError::OutcomeUnknown("why".to_owned()),
        AppendError::NotWritten("why".to_owned()),
        AppendError::ReadOnly("why".to_owned()),
        AppendError::Closed,
    ];
    errors.extend(invalids().into_iter().map(AppendError::Invalid));
    errors.extend(read_errors().into_iter().map(AppendError::Read));
    errors
}

fn faults() -> Vec<Fault> {
    let (given, supported) = (Versions { min: 2, max: 3 }, Versions { min: 1, max: 1 });
    let mut faults = vec![
        Fault::Protocol { given, supported },
        Fault::RecordFormats { given, supported },
        Fault::Credentials,
        Fault::Stopping,
        Fault::Malformed { offset: 5, reason: "cut off".to_owned() },
        Fault::Unknown { kind: 0x30, flags: 1 },
        Fault::OverLimit { what: "streams".to_owned(), limit: 1, given: 2 },
        Fault::RequestId { id: 7 },
        Fault::Server("why".to_owned()),
    ];
    faults.extend(append_errors().into_iter().map(Fault::from));
    faults.extend(read_errors().into_iter().map(Fault::from));
    faults
}

fn over_the_wire(fault: &Fault) -> Fault {
    let mut out = BytesMut::new();
    fault.encode(3, &mut out);
    Fault::decode(frame(&out).body).unwrap()
}

#[test]
fn errors_lose_nothing_on_their_way() {
    for fault in faults() {
        comes_back(&fault);
        let back = over_the_wire(&fault);
        assert_eq!(back.to_string(), fault.to_string());
    }
    for error in append_errors() {
        assert_eq!(AppendError::try_from(over_the_wire(&error.clone().into())), Ok(error));
    }
    for error in read_errors() {
        assert_eq!(ReadError::try_from(over_the_wire(&error.clone().into())), Ok(error));
    }
}

#[test]
fn an_error_of_another_operation_is_given_back() {
    assert_eq!(AppendError::try_from(Fault::Stopping), Err(Fault::Stopping));
    assert_eq!(ReadError::try_from(Fault::Credentials), Err(Fault::Credentials));
}

#[test]
fn every_error_has_its_row_on_the_page() {
    let mut codes = std::collections::BTreeSet::new();
    for fault in faults() {
        let flags = match (fault.is_retryable(), fault.is_outcome_unknown()) {
            (false, false) => "",
            (true, false) => "1",
            (true, true) => "1, 2",
            (false, true) => "2",
        };
        let start = format!("| {} |", fault.code());
        let row = PAGE.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("the page has no row `{start}`"));
        assert_eq!(row.split('|').nth(3).unwrap().trim(), flags, "{row}");
        codes.insert(fault.code());
    }
    let is_row = |line: &&str| {
        let code = line.get(2..5).and_then(|code| code.parse::<u16>().ok());
        code.is_some() && line.get(5..7) == Some(" |") && line.matches('|').count() == 5
    };
    let rows = PAGE.lines().filter(is_row).count();
    assert_eq!(rows, codes.len(), "every row of the page stands for an error");
}

#[test]
fn an_error_from_the_future_keeps_its_facts() {
    let other = |code| Fault::Other {
        code,
        retryable: true,
        outcome_unknown: true,
        text: "a novelty".to_owned(),
        detail: Bytes::from_static(b"\x01\x02"),
    };
    for code in [299, 399, 402, 450, 9_999] {
        comes_back(&other(code));
        assert!(over_the_wire(&other(code)).is_retryable());
    }
}

#[test]
fn the_text_for_people_is_cut_at_a_character() {
    let mut out = BytesMut::new();
    Fault::from(AppendError::NoSpace("é".repeat(2_000))).encode(3, &mut out);
    let text_bytes = u32::from_le_bytes(out[20..24].try_into().unwrap()) as usize;
    assert!((1_021..=1_024).contains(&text_bytes), "{text_bytes}");
    assert!(std::str::from_utf8(&out[24..24 + text_bytes]).unwrap().starts_with("no space: é"));
}

fn refused(kind: u8, flags: u8, request_id: u64, body: &'static [u8]) -> (u64, Fault) {
    let frame = Frame { kind, flags, request_id, body: Bytes::from_static(body) };
    let error = Request::decode(&frame).unwrap_err();
    (frame.failed_request(&error), error.into())
}

#[test]
fn what_cannot_be_taken_ends_the_request_or_the_connection() {
    assert_eq!(refused(0x30, 0, 5, b""), (5, Fault::Unknown { kind: 0x30, flags: 0 }));
    assert_eq!(refused(Kind::Ping as u8, 2, 5, b"").0, 5);
    assert_eq!(refused(Kind::Appended as u8, 0, 5, b"").0, 5);
    let (id, fault) = refused(Kind::VersionOf as u8, 0, 5, b"\x09\0\0\0");
    assert_eq!((id, fault.code()), (5, 200));
    let (id, fault) = refused(Kind::VersionOf as u8, 0, 5, b"\xff\0\0\0");
    assert_eq!((id, fault.code()), (5, 202), "longer than any type that is stored");
    assert_eq!(refused(Kind::Credit as u8, 0, 5, b"").0, 0);
    assert_eq!(refused(Kind::Status as u8, 0, 0, b""), (0, Fault::RequestId { id: 0 }));
    assert_eq!(refused(Kind::Hello as u8, 0, 4, b""), (0, Fault::RequestId { id: 4 }));
}

#[test]
fn too_many_names_are_refused_by_their_count() {
    let names = vec![String::new(); 1_001];
    let filter = Filter { event_types: names, ..Filter::default() };
    let request = ReadRequest { filter, ..ReadRequest::default() };
    let mut out = BytesMut::new();
    Read { request, credit: Credit::default() }.encode(1, &mut out);
    let error = Request::decode(&frame(&out)).unwrap_err();
    let what = "filter names";
    assert_eq!(error, DecodeError::OverLimit { what, limit: 1_000, given: 1_001 });
}
