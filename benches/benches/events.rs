//! What a typed event costs: to create and encode, to decode, and to fold a history of them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use quipu_client::{
    Aggregate, AggregateEvent, AggregateKey, EventContext, NewEvent, Stamps, SystemStamps,
};
use quipu_domain::catalogue::{
    AccountEvent, AccountOpened, CallAttempted, CallEvent, ChargeAuthorised,
};
use quipu_domain::{Account, PhoneKey, PhoneNumber};
use quipu_types::record::{EventBody, RecordBuffer, encode};
use quipu_types::{Record, Uuid};
use rkyv::ser::allocator::Arena;

const CHARGES: usize = 1_000;

fn context() -> EventContext {
    EventContext::new()
        .by_user(Uuid::from_u128(7))
        .correlated(Uuid::from_u128(8).to_string())
        .from_ip([192, 0, 2, 1].into())
        .custom("tenant", "north")
}

/// As a repository does it: the struct, its JSON, its id and time, its metadata.
fn create(event: impl Into<CallEvent>, context: &EventContext) -> NewEvent {
    let key = AggregateKey::new(CallEvent::AGGREGATE_TYPE, Uuid::from_u128(1).to_string());
    let encoded = event.into().encode().expect("the event has JSON");
    context.new_event(key, encoded, SystemStamps.next()).expect("the context has JSON")
}

fn record(event: &NewEvent) -> Record {
    let bytes = encode(RecordBuffer::new(), &EventBody::from(event), &mut Arena::new());
    Record::parse(bytes::Bytes::from_owner(bytes)).expect("what was encoded is a record")
}

fn events(criterion: &mut Criterion) {
    let context = context();
    let key = PhoneKey::new("bench", &[7; 32]).expect("a key");
    let number: PhoneNumber = "+12125550100".parse().expect("a number");
    criterion.bench_function("create and encode a typed event", |bench| {
        bench.iter(|| create(black_box(CallAttempted::example()), &context));
    });
    criterion.bench_function("create and encode a typed event, two numbers hashed", |bench| {
        bench.iter(|| {
            let (from_number_hash, to_number_hash) = (key.hash(&number), key.hash(&number));
            let attempt =
                CallAttempted { from_number_hash, to_number_hash, ..CallAttempted::example() };
            create(black_box(attempt), &context)
        });
    });
    let stored = record(&create(CallAttempted::example(), &context));
    criterion.bench_function("decode a typed event", |bench| {
        bench.iter(|| CallEvent::decode(black_box(&stored)));
    });
    fold(criterion);
}

fn fold(criterion: &mut Criterion) {
    let opened = AccountOpened::example().into();
    let charge = || AccountEvent::from(ChargeAuthorised::example());
    let history: Vec<AccountEvent> =
        std::iter::once(opened).chain(std::iter::repeat_with(charge).take(CHARGES)).collect();
    let mut group = criterion.benchmark_group("an account");
    group.throughput(Throughput::Elements(history.len() as u64));
    group.bench_function("fold 1,000 charges", |bench| {
        bench.iter(|| {
            let mut account = Account::default();
            history.iter().try_for_each(|event| account.apply(black_box(event)))
        });
    });
    group.finish();
}

criterion_group!(benches, events);
criterion_main!(benches);
