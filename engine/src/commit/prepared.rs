//! An append made ready in its caller's task: checked, archived, hashed. What the sequencer still
//! has to do for each event is two look-ups and a header.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use quipu_types::event::{check_client_type, check_key, check_system_append_type};
use quipu_types::record::{EventBody, RecordBuffer, RecordHeader, encode};
use quipu_types::{AggregateKey, ExpectedVersion, Invalid, Limits, Record, Timestamp, Uuid};
use rkyv::ser::allocator::Arena;

use crate::format::group::{FRAME_HEADER_BYTES, write_frame_header};
use crate::index::keys::{KeyHasher, TableKey};

/// Who submits: clients may not write to the system's aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A host or a TCP client.
    Client,
    /// A host or a TCP client, with what it keeps in the system's aggregates.
    SystemClient,
    /// One of the system's own operations.
    System,
}

/// An append ready for the sequencer.
pub struct PreparedAppend {
    /// The whole frame; record headers lack position, version and `recorded_at`.
    pub(crate) frame: RecordBuffer,
    pub(crate) records: Vec<PreparedRecord>,
    pub(crate) aggregates: Vec<PreparedAggregate>,
    /// Every event type that occurs, those in a row named once.
    pub(crate) event_types: Vec<String>,
    /// The earliest and the latest timestamp.
    pub(crate) timestamps: (Timestamp, Timestamp),
}

/// One event of a prepared append.
pub(crate) struct PreparedRecord {
    pub(crate) id: TableKey,
    /// Where its record begins in the frame.
    pub(crate) at: usize,
    /// Bytes of its archive, and their checksum.
    pub(crate) archive: (u32, u32),
    /// Which of the append's aggregates it belongs to.
    pub(crate) aggregate: usize,
    /// Hash of its correlation id, if it has one.
    pub(crate) correlation: Option<u64>,
}

impl PreparedRecord {
    /// The event's id.
    pub(crate) fn event_id(&self) -> Uuid {
        Uuid::from_bytes(self.id.key)
    }
}

/// One aggregate that a prepared append writes or checks.
pub(crate) struct PreparedAggregate {
    pub(crate) key: Arc<AggregateKey>,
    /// Its hash in the indexes of segments.
    pub(crate) hash: u64,
    /// What it is found by in sorted runs.
    pub(crate) wide: TableKey,
    pub(crate) expected: ExpectedVersion,
    /// How many events it gets; 0 if it is only checked.
    pub(crate) events: u64,
}

type FastHash = foldhash::fast::RandomState;

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(Arena::new());
}

impl PreparedAppend {
    /// Checks and archives an append: events, and what they expect of aggregates.
    ///
    /// # Errors
    /// The first thing that can never be stored.
    pub fn new(
        events: &[EventBody<'_>],
        expectations: &[(AggregateKey, ExpectedVersion)],
        limits: &Limits,
        hasher: KeyHasher,
        origin: Origin,
    ) -> Result<Self, Invalid> {
        check_counts(events, expectations.len(), limits)?;
        for event in events {
            event.check(limits)?;
            match origin {
                Origin::Client => check_client_type(event.aggregate_type)?,
                Origin::SystemClient => check_system_append_type(event.aggregate_type)?,
                Origin::System => {}
            }
        }
        let (aggregates, of_event) = collect_aggregates(events, expectations, hasher)?;
        let (frame, places) = encode_frame(events);
        if frame.len() > limits.append_bytes_max {
            let (limit, given) = (limits.append_bytes_max, frame.len());
            return Err(Invalid::AppendTooLarge { limit, given });
        }
        let mut correlate = correlations(hasher);
        let records = (events.iter().zip(places).zip(of_event))
            .map(|((event, at), aggregate)| PreparedRecord {
                id: hasher.id(Uuid::from_bytes(event.event_id)),
                at,
                archive: archive(&frame, at),
                aggregate,
                correlation: correlate(event.correlation_id),
            })
            .collect();
        let (event_types, timestamps) = (event_types(events), timestamps(events));
        Ok(Self { frame, records, aggregates, event_types, timestamps })
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

fn check_counts(
    events: &[EventBody<'_>],
    expectations: usize,
    limits: &Limits,
) -> Result<(), Invalid> {
    let limit = limits.append_events_max;
    if events.is_empty() {
        return Err(Invalid::NoEvents);
    }
    for given in [events.len(), expectations] {
        if given > limit {
            return Err(Invalid::TooManyEvents { limit, given });
        }
    }
    // A first look before anything is archived; the exact figure comes after.
    let given: usize = events.iter().map(|it| it.payload.len() + it.custom.len()).sum();
    if given > limits.append_bytes_max {
        return Err(Invalid::AppendTooLarge { limit: limits.append_bytes_max, given });
    }
    match repeated_id(events) {
        Some(event_id) => Err(Invalid::RepeatedEventId { event_id }),
        None => Ok(()),
    }
}

fn repeated_id(events: &[EventBody<'_>]) -> Option<Uuid> {
    let ascending = events.windows(2).all(|pair| pair[0].event_id < pair[1].event_id);
    if ascending {
        // As v7 ids of one host are: none can be there twice.
        return None;
    }
    let mut ids: HashSet<[u8; 16], FastHash> =
        HashSet::with_capacity_and_hasher(events.len(), FastHash::default());
    events.iter().find(|event| !ids.insert(event.event_id)).map(|it| Uuid::from_bytes(it.event_id))
}

/// The aggregates written, in order of first appearance, then those only checked; and for each
/// event the index of its aggregate.
fn collect_aggregates(
    events: &[EventBody<'_>],
    expectations: &[(AggregateKey, ExpectedVersion)],
    hasher: KeyHasher,
) -> Result<(Vec<PreparedAggregate>, Vec<usize>), Invalid> {
    let mut aggregates: Vec<PreparedAggregate> = Vec::new();
    let mut known: HashMap<(&str, &str), usize, FastHash> = HashMap::default();
    let mut of_event: Vec<usize> = Vec::with_capacity(events.len());
    let mut index_of = |aggregates: &mut Vec<PreparedAggregate>, (of_type, id)| {
        *known.entry((of_type, id)).or_insert_with(|| {
            let (hash, wide) = (hasher.parts(of_type, id), hasher.wide(of_type, id));
            let key = Arc::new(AggregateKey::new(of_type, id));
            let expected = ExpectedVersion::Any;
            aggregates.push(PreparedAggregate { key, hash, wide, expected, events: 0 });
            aggregates.len() - 1
        })
    };
    let mut last = ("", "");
    for event in events {
        let key = (event.aggregate_type, event.aggregate_id);
        let index = match of_event.last() {
            Some(index) if last == key => *index,
            _ => index_of(&mut aggregates, key),
        };
        last = key;
        aggregates[index].events += 1;
        of_event.push(index);
    }
    let mut expected: HashSet<&AggregateKey> = HashSet::new();
    for (key, expectation) in expectations {
        check_key(key)?;
        if !expected.insert(key) {
            return Err(Invalid::RepeatedExpectation { key: key.clone() });
        }
        let index = index_of(&mut aggregates, (&key.aggregate_type, &key.aggregate_id));
        aggregates[index].expected = *expectation;
    }
    Ok((aggregates, of_event))
}

/// Hashes correlation ids; most events of an append have that of the event before.
fn correlations<'a>(hasher: KeyHasher) -> impl FnMut(&'a str) -> Option<u64> {
    let mut last = ("", None);
    move |id| {
        if id != last.0 {
            last = (id, (!id.is_empty()).then(|| hasher.correlation(id)));
        }
        last.1
    }
}

fn event_types(events: &[EventBody<'_>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for event in events {
        if names.last().is_none_or(|last| last != event.event_type) {
            names.push(event.event_type.to_owned());
        }
    }
    names
}

fn timestamps(events: &[EventBody<'_>]) -> (Timestamp, Timestamp) {
    let all = events.iter().map(|event| event.timestamp_us);
    let (first, last) = all.fold((i64::MAX, i64::MIN), |(first, last), timestamp| {
        (first.min(timestamp), last.max(timestamp))
    });
    (Timestamp::from_micros(first), Timestamp::from_micros(last))
}

/// Bytes and checksum of the archive in the record that begins at `at`.
fn archive(frame: &[u8], at: usize) -> (u32, u32) {
    let header = RecordHeader::decode(&frame[at..]).unwrap_or_default();
    (header.archive_bytes, header.crc)
}

fn encode_frame(events: &[EventBody<'_>]) -> (RecordBuffer, Vec<usize>) {
    let records: usize = events.iter().map(EventBody::record_bytes).sum();
    let mut frame = RecordBuffer::with_capacity(FRAME_HEADER_BYTES + records);
    frame.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let mut places = Vec::with_capacity(events.len());
    ARENA.with_borrow_mut(|arena| {
        for event in events {
            places.push(frame.len());
            frame = encode(std::mem::take(&mut frame), event, arena);
        }
    });
    write_frame_header(&mut frame, events.len());
    (frame, places)
}
