//! What each step of an append and of a scan costs, for an event with 1 KB of JSON.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quipu_engine::commit::prepared::PreparedAppend;
use quipu_engine::format::BlockBuffer;
use quipu_engine::format::group::{
    FRAME_HEADER_BYTES, Group, GroupBuilder, GroupKind, GroupPlace, write_frame_header,
};
use quipu_engine::index::keys::KeyHasher;
use quipu_engine::read::cursor::PageLimits;
use quipu_engine::{
    Access, Backend, DiskStorage, Environment, EventLog, LogOptions, Mapping, Origin, System,
};
use quipu_protocol::message::MESSAGE_HEADER_BYTES;
use quipu_protocol::{AppendRequest, BorrowedAppend, Message, Records};
use quipu_types::record::{EventBody, HEADER_BYTES, RecordBuffer, encode, stamp};
use quipu_types::{
    AggregateKey, Append, ExpectedVersion, Filter, Limits, NewEvent, Position, ReadRequest, Record,
    Timestamp, Uuid, Version,
};
use rkyv::ser::allocator::Arena;

const SEGMENT: Uuid = Uuid::from_u128(7);
const EVENTS: usize = 100;
const SCANNED_APPENDS: u128 = 300;

fn event(id: u128) -> NewEvent {
    let key = AggregateKey::new("Call", Uuid::from_u128(id / 100).to_string());
    let payload = format!("{{\"data\":\"{}\"}}", "x".repeat(1_000));
    let mut event = NewEvent::json(Uuid::from_u128(id), key, "Created", time(), payload);
    event.metadata.correlation_id = Uuid::from_u128(id + 1).to_string();
    event.metadata.causation_id = Uuid::from_u128(id + 2).to_string();
    event
}

fn time() -> Timestamp {
    Timestamp::from_micros(1_700_000_000_000_000)
}

fn record_bytes(id: u128, arena: &mut Arena) -> RecordBuffer {
    encode(RecordBuffer::new(), &EventBody::from(&event(id)), arena)
}

fn frames() -> Vec<RecordBuffer> {
    let mut arena = Arena::new();
    let frame = |id| {
        let mut frame = RecordBuffer::new();
        frame.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        let mut frame = encode(frame, &EventBody::from(&event(id)), &mut arena);
        write_frame_header(&mut frame, 1);
        frame
    };
    (1..=EVENTS as u128).map(frame).collect()
}

fn group(frames: &[RecordBuffer]) -> bytes::Bytes {
    let place = GroupPlace {
        segment_id: SEGMENT,
        epoch: 1,
        offset: 4096,
        first_position: Position(1),
        durable_upto: 4096,
        chain: 0,
    };
    let mut builder = GroupBuilder::new(place, BlockBuffer::with_capacity(256 * 1024));
    for frame in frames {
        builder.push(frame, [FRAME_HEADER_BYTES].into_iter(), |_, position, record| {
            stamp(record, position, Version(1), time());
        });
    }
    bytes::Bytes::from_owner(builder.finish(GroupKind::Data).1)
}

fn pieces(criterion: &mut Criterion) {
    let mut arena = Arena::new();
    let one = event(1);
    criterion.bench_function("archive and checksum one event", |bench| {
        bench.iter(|| encode(RecordBuffer::new(), &EventBody::from(black_box(&one)), &mut arena));
    });
    let bytes = bytes::Bytes::from_owner(record_bytes(1, &mut arena));
    criterion.bench_function("checksum one record", |bench| {
        bench.iter(|| crc32fast::hash(black_box(&bytes[HEADER_BYTES..])));
    });
    criterion.bench_function("validate one record", |bench| {
        bench.iter(|| Record::parse(black_box(bytes.clone())));
    });
    let events: Vec<NewEvent> = (1..=EVENTS as u128).map(event).collect();
    let (limits, hasher) = (Limits::default(), KeyHasher::new(SEGMENT));
    let mut many = criterion.benchmark_group("100 events");
    many.throughput(Throughput::Elements(EVENTS as u64));
    many.bench_function("prepare an append", |bench| {
        bench.iter(|| {
            let events: Vec<EventBody<'_>> =
                black_box(&events).iter().map(EventBody::from).collect();
            PreparedAppend::new(&events, &[], &limits, hasher, Origin::Client)
        });
    });
    let frames = frames();
    many.bench_function("build a group", |bench| bench.iter(|| group(black_box(&frames))));
    let bytes = group(&frames);
    many.bench_function("check a group, headers only", |bench| {
        bench.iter(|| Group::check(black_box(&bytes), SEGMENT, 4096, 1 << 20));
    });
    many.bench_function("check a group and every record", |bench| {
        bench.iter(|| {
            let group = Group::check(black_box(&bytes), SEGMENT, 4096, 1 << 20);
            group.map(|group| group.records().flatten().count())
        });
    });
    many.finish();
}

/// An append and a page of records as they travel, there and back.
fn codec(criterion: &mut Criterion) {
    let events: Vec<NewEvent> = (1..=EVENTS as u128).map(event).collect();
    let key = events[0].aggregate.clone();
    let append = Append { events, expectations: vec![(key, ExpectedVersion::NoStream)] };
    let append = AppendRequest::from(append);
    let mut arena = Arena::new();
    let record = |id| {
        let bytes = bytes::Bytes::from_owner(record_bytes(id, &mut arena));
        Record::parse(bytes).expect("what was encoded is a record")
    };
    let records: Vec<Record> = (1..=EVENTS as u128).map(record).collect();
    let mut codec = criterion.benchmark_group("a message of 100 events");
    codec.throughput(Throughput::Elements(EVENTS as u64));
    let mut out = BytesMut::new();
    codec.bench_function("encode an append", |bench| {
        bench.iter(|| {
            out.clear();
            black_box(&append).encode(1, &mut out);
        });
    });
    // The bench before may have been left out.
    out.clear();
    append.encode(1, &mut out);
    let body = out.split().freeze().slice(MESSAGE_HEADER_BYTES..);
    codec.bench_function("decode an append", |bench| {
        bench.iter(|| BorrowedAppend::decode(black_box(&body)).map(|append| append.events.len()));
    });
    codec.bench_function("encode a page of records", |bench| {
        bench.iter(|| {
            out.clear();
            Records::encode_page(black_box(&records), 1, &mut out);
        });
    });
    out.clear();
    Records::encode_page(&records, 1, &mut out);
    let body = out.split().freeze().slice(MESSAGE_HEADER_BYTES..);
    codec.bench_function("decode a page of records, validated", |bench| {
        bench.iter(|| Records::decode(black_box(&body).clone()).map(|page| page.0.len()));
    });
    codec.finish();
}

/// Every record of sealed segments, checksums verified.
fn scan(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let log = open(folder.path(), 8 << 20);
    for number in 0..SCANNED_APPENDS {
        let ids = number * 100..(number + 1) * 100;
        let append = Append { events: ids.map(|id| event(id + 1)).collect(), ..Append::default() };
        log.append(&append).expect("the disk takes it");
    }
    let events = SCANNED_APPENDS * 100;
    let count = || {
        let mut cursor = log.read(ReadRequest::default());
        let mut records = 0;
        while !cursor.is_done() {
            let page = cursor.next_page(PageLimits::default()).expect("the log is whole");
            records += page.records.len() as u128;
        }
        records
    };
    assert_eq!(count(), events);
    let mut scan = criterion.benchmark_group("a log of 30,000 events");
    scan.throughput(Throughput::Elements(u64::try_from(events).unwrap_or(u64::MAX)));
    scan.sample_size(10);
    scan.bench_function("scan it, warm", |bench| bench.iter(count));
    scan.finish();
    log.close();
}

/// The ten events of one aggregate, all over a log of some hundred sealed segments.
fn aggregate(criterion: &mut Criterion) {
    const AGGREGATES: u128 = 60_000;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let log = open(folder.path(), 2 << 20);
    let key = |id: u128| AggregateKey::new("Call", (id % AGGREGATES).to_string());
    for number in 0..AGGREGATES / 10 {
        let ids = number * 100 + 1..=(number + 1) * 100;
        let events = ids.map(|id| NewEvent { aggregate: key(id), ..event(id) });
        log.append(&Append::any(events.collect())).expect("the disk takes it");
    }
    let segments = log.shared().segments.snapshot().len();
    let mut asked = (0..100).map(|number| key(number * 7_919)).cycle();
    let mut group = criterion.benchmark_group(format!("a log of {segments} segments"));
    group.bench_function("read an aggregate of 10 events, warm", |bench| {
        bench.iter(|| {
            let filter = Filter::aggregate(asked.next().expect("there are many"));
            let mut cursor = log.read(ReadRequest { filter, ..ReadRequest::default() });
            let page = cursor.next_page(PageLimits::default()).expect("the log is whole");
            assert_eq!(page.records.len(), 10);
        });
    });
    group.finish();
    log.close();
}

/// With segments so small that all but the last are sealed.
fn open(folder: &Path, segment_bytes: u64) -> EventLog {
    let storage =
        DiskStorage::open(folder, Access::ReadWrite, Backend::default(), Mapping::default())
            .expect("the folder can be opened");
    let clock = Arc::new(System);
    let env = Environment { storage: Arc::new(storage), clock: clock.clone(), entropy: clock };
    let (event_bytes_max, append_bytes_max) = (256 << 10, 256 << 10);
    let limits = Limits { event_bytes_max, append_bytes_max, ..Limits::default() };
    let options = LogOptions { segment_bytes, limits, ..LogOptions::default() };
    EventLog::open(env, options).expect("a new log can be opened")
}

criterion_group!(benches, pieces, codec, scan, aggregate);
criterion_main!(benches);
