//! What each step of an append and of a scan costs, for an event with 1 KB of JSON.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quipu_engine::Origin;
use quipu_engine::commit::prepared::PreparedAppend;
use quipu_engine::format::BlockBuffer;
use quipu_engine::format::group::{
    FRAME_HEADER_BYTES, Group, GroupBuilder, GroupKind, GroupPlace, write_frame_header,
};
use quipu_engine::index::keys::KeyHasher;
use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
use quipu_types::{AggregateKey, Limits, NewEvent, Position, Record, Timestamp, Uuid, Version};
use rkyv::ser::allocator::Arena;

const SEGMENT: Uuid = Uuid::from_u128(7);
const EVENTS: usize = 100;

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

criterion_group!(benches, pieces);
criterion_main!(benches);
