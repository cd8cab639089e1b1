//! An append made ready in its caller's task: checked, archived, hashed. What the sequencer still
//! has to do for each event is two look-ups and a header.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use quipu_types::event::{check_client_key, check_key};
use quipu_types::record::{EventBody, RecordBuffer, RecordHeader, encode};
use quipu_types::{AggregateKey, Append, ExpectedVersion, Invalid, Limits, NewEvent, Record, Uuid};
use rkyv::ser::allocator::Arena;

use crate::format::group::{FRAME_HEADER_BYTES, write_frame_header};
use crate::index::keys::KeyHasher;

/// Who submits: clients may not write to the system's aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A host or a TCP client.
    Client,
    /// One of the system's own operations.
    System,
}

/// An append ready for the sequencer.
pub struct PreparedAppend {
    /// The whole frame; record headers lack position, version and `recorded_at`.
    pub(crate) frame: RecordBuffer,
    pub(crate) records: Vec<PreparedRecord>,
    pub(crate) aggregates: Vec<PreparedAggregate>,
}

/// One event of a prepared append.
pub(crate) struct PreparedRecord {
    pub(crate) event_id: Uuid,
    /// Where its record begins in the frame.
    pub(crate) at: usize,
    /// Which of the append's aggregates it belongs to.
    pub(crate) aggregate: usize,
}

/// One aggregate that a prepared append writes or checks.
pub(crate) struct PreparedAggregate {
    pub(crate) key: Arc<AggregateKey>,
    pub(crate) hash: u64,
    pub(crate) expected: ExpectedVersion,
    /// How many events it gets; 0 if it is only checked.
    pub(crate) events: u64,
}

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(Arena::new());
}

impl PreparedAppend {
    /// Checks and archives an append.
    ///
    /// # Errors
    /// The first thing that can never be stored.
    pub fn new(
        append: &Append,
        limits: &Limits,
        hasher: KeyHasher,
        origin: Origin,
    ) -> Result<Self, Invalid> {
        check_counts(append, limits)?;
        for event in &append.events {
            event.check(limits)?;
        }
        for key in append.events.iter().map(|event| &event.aggregate) {
            if origin == Origin::Client {
                check_client_key(key)?;
            }
        }
        let (aggregates, of_event) = collect_aggregates(append, hasher)?;
        let (frame, places) = encode_frame(&append.events);
        if frame.len() > limits.append_bytes_max {
            let (limit, given) = (limits.append_bytes_max, frame.len());
            return Err(Invalid::AppendTooLarge { limit, given });
        }
        let records = (append.events.iter().zip(places).zip(of_event))
            .map(|((event, at), aggregate)| PreparedRecord {
                event_id: event.event_id,
                at,
                aggregate,
            })
            .collect();
        Ok(Self { frame, records, aggregates })
    }

    /// Bytes it takes in a group.
    #[must_use]
    pub fn frame_bytes(&self) -> usize {
        self.frame.len()
    }

    /// The `index`th event as a record, to compare it with a stored one.
    pub(crate) fn record(&self, index: usize) -> Option<Record> {
        let at = self.records.get(index)?.at;
        let length = RecordHeader::decode(&self.frame[at..])?.record_bytes();
        let mut aligned = RecordBuffer::with_capacity(length);
        aligned.extend_from_slice(&self.frame[at..at + length]);
        Record::parse(bytes::Bytes::from_owner(aligned)).ok()
    }
}

fn check_counts(append: &Append, limits: &Limits) -> Result<(), Invalid> {
    let given = append.events.len();
    if given == 0 {
        return Err(Invalid::NoEvents);
    }
    if given > limits.append_events_max {
        return Err(Invalid::TooManyEvents { limit: limits.append_events_max, given });
    }
    if append.expectations.len() > limits.append_events_max {
        let (limit, given) = (limits.append_events_max, append.expectations.len());
        return Err(Invalid::TooManyEvents { limit, given });
    }
    // A first look before anything is archived; the exact figure comes after.
    let given: usize =
        append.events.iter().map(|it| it.payload.len() + it.metadata.custom.len()).sum();
    if given > limits.append_bytes_max {
        return Err(Invalid::AppendTooLarge { limit: limits.append_bytes_max, given });
    }
    let mut ids =
        HashSet::with_capacity_and_hasher(given.min(64), foldhash::fast::RandomState::default());
    match append.events.iter().find(|event| !ids.insert(event.event_id.as_u128())) {
        Some(event) => Err(Invalid::RepeatedEventId { event_id: event.event_id }),
        None => Ok(()),
    }
}

/// The aggregates written, in order of first appearance, then those only checked; and for each
/// event the index of its aggregate.
fn collect_aggregates(
    append: &Append,
    hasher: KeyHasher,
) -> Result<(Vec<PreparedAggregate>, Vec<usize>), Invalid> {
    let mut aggregates: Vec<PreparedAggregate> = Vec::new();
    let mut known: HashMap<&AggregateKey, usize, foldhash::fast::RandomState> = HashMap::default();
    let mut of_event: Vec<usize> = Vec::with_capacity(append.events.len());
    let add = |aggregates: &mut Vec<PreparedAggregate>, key: &AggregateKey| {
        let (hash, expected) = (hasher.aggregate(key), ExpectedVersion::Any);
        let key = Arc::new(key.clone());
        aggregates.push(PreparedAggregate { key, hash, expected, events: 0 });
        aggregates.len() - 1
    };
    for event in &append.events {
        let key = &event.aggregate;
        let index = match of_event.last() {
            Some(last) if aggregates.get(*last).is_some_and(|it| *it.key == *key) => *last,
            _ => *known.entry(key).or_insert_with(|| add(&mut aggregates, key)),
        };
        aggregates[index].events += 1;
        of_event.push(index);
    }
    let mut expected: HashSet<&AggregateKey> = HashSet::new();
    for (key, expectation) in &append.expectations {
        check_key(key)?;
        if !expected.insert(key) {
            return Err(Invalid::RepeatedExpectation { key: key.clone() });
        }
        let index = *known.entry(key).or_insert_with(|| add(&mut aggregates, key));
        aggregates[index].expected = *expectation;
    }
    Ok((aggregates, of_event))
}

fn encode_frame(events: &[NewEvent]) -> (RecordBuffer, Vec<usize>) {
    let data: usize = events.iter().map(|event| event.payload.len() + 512).sum();
    let mut frame = RecordBuffer::with_capacity(FRAME_HEADER_BYTES + data);
    frame.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let mut places = Vec::with_capacity(events.len());
    ARENA.with_borrow_mut(|arena| {
        for event in events {
            places.push(frame.len());
            frame = encode(std::mem::take(&mut frame), &EventBody::from(event), arena);
        }
    });
    write_frame_header(&mut frame, events.len());
    (frame, places)
}
