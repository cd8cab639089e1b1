//! Made-up events for benchmarks: like real ones, and cheap to make.

use clap::ValueEnum;
use quipu_client::{AggregateKey, Append, ExpectedVersion, NewEvent, Uuid, Version};
use quipu_engine::clock::{Clock, System};

use crate::random::Random;

/// Payloads are cut from this much random text, which a processor cache holds, as what a host has
/// just made lies there; and which is more than a compressor's window.
const TEXT_BYTES_MIN: usize = 1024 * 1024;
const PREFIX: &[u8] = b"{\"data\":\"";
const SUFFIX: &[u8] = b"\"}";

/// The smallest payload that is JSON.
pub(crate) const EVENT_BYTES_MIN: u64 = (PREFIX.len() + SUFFIX.len()) as u64;
/// The largest payload.
pub(crate) const EVENT_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// How event ids are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ids {
    /// By time, as Quipu makes them.
    V7,
    /// At random: the worst case for an index.
    V4,
}

/// Random text in an alphabet of 64 letters.
pub(crate) struct RandomText(Vec<u8>);

impl RandomText {
    /// Makes it, for payloads of up to `event_bytes`.
    pub(crate) fn new(random: &mut Random, event_bytes: u64) -> Self {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let twice = usize::try_from(2 * event_bytes).unwrap_or(usize::MAX);
        let bytes = TEXT_BYTES_MIN.max(twice);
        let mut text = Vec::with_capacity(bytes + 16);
        while text.len() < bytes {
            text.extend(random.bytes().map(|byte| LETTERS[usize::from(byte % 64)]));
        }
        Self(text)
    }

    fn cut(&self, random: &mut Random, bytes: usize) -> &[u8] {
        let starts = self.0.len() - bytes;
        let start = usize::try_from(random.below(starts as u64)).unwrap_or(0);
        &self.0[start..start + bytes]
    }
}

/// What made-up events are like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// How their ids are made.
    pub(crate) ids: Ids,
    /// Bytes of payload.
    pub(crate) event_bytes: usize,
    /// Whether they have correlation and causation ids.
    pub(crate) is_linked: bool,
    /// Whether each event of an append is of another aggregate, not all of one.
    pub(crate) is_spread: bool,
}

/// Makes the appends of one writer, which alone writes to its aggregates.
pub(crate) struct Events<'a> {
    text: &'a RandomText,
    random: Random,
    kind: Kind,
    /// Aggregate ids follow from this, so that a million of them take no memory.
    seed: u64,
    versions: Vec<u32>,
    cause: String,
}

impl<'a> Events<'a> {
    /// Events of this kind for this many aggregates.
    pub(crate) fn new(text: &'a RandomText, kind: Kind, aggregates: usize) -> Self {
        let mut random = Random::from_entropy();
        let seed = random.number();
        let versions = vec![0; aggregates];
        Self { text, random, kind, seed, versions, cause: String::new() }
    }

    /// The next append: so many events of one aggregate, or each of another, at exactly the version
    /// that it is at.
    pub(crate) fn append(&mut self, events: u64) -> Append {
        let correlation = self.random.uuid().to_string();
        let mut append = Append { events: Vec::new(), expectations: Vec::new() };
        let of_each = if self.kind.is_spread { 1 } else { events };
        while (append.events.len() as u64) < events {
            self.add(&mut append, of_each, &correlation);
        }
        append
    }

    fn add(&mut self, append: &mut Append, events: u64, correlation: &str) {
        let chosen = self.random.below(self.versions.len() as u64);
        let aggregate_id = Random::from_seed(self.seed.wrapping_add(chosen)).uuid().to_string();
        let key = AggregateKey::new("Bench", aggregate_id);
        let at = usize::try_from(chosen).unwrap_or(0);
        let before = ExpectedVersion::Exact(Version(self.versions[at].into()));
        self.versions[at] += u32::try_from(events).unwrap_or(u32::MAX);
        append.events.extend((0..events).map(|_| self.event(&key, correlation)));
        if append.expectations.iter().all(|(known, _)| *known != key) {
            append.expectations.push((key, before));
        }
    }

    fn event(&mut self, key: &AggregateKey, correlation: &str) -> NewEvent {
        let now = System.now();
        let id = self.id(now.as_micros());
        let mut payload = Vec::with_capacity(self.kind.event_bytes);
        payload.extend_from_slice(PREFIX);
        let text_bytes = self.kind.event_bytes - PREFIX.len() - SUFFIX.len();
        payload.extend_from_slice(self.text.cut(&mut self.random, text_bytes));
        payload.extend_from_slice(SUFFIX);
        let mut event = NewEvent::json(id, key.clone(), "Measured", now, payload);
        if self.kind.is_linked {
            correlation.clone_into(&mut event.metadata.correlation_id);
            event.metadata.causation_id = std::mem::replace(&mut self.cause, id.to_string());
        }
        event
    }

    fn id(&mut self, now_us: i64) -> Uuid {
        let random = self.random.bytes();
        match self.kind.ids {
            Ids::V4 => Uuid::from_bytes(version_4(random)),
            Ids::V7 => Uuid::from_bytes(version_7(random, now_us)),
        }
    }
}

fn version_4(mut bytes: [u8; 16]) -> [u8; 16] {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

/// The milliseconds, then the microseconds within them where RFC 9562 allows a finer clock.
fn version_7(mut bytes: [u8; 16], now_us: i64) -> [u8; 16] {
    let micros = now_us.unsigned_abs();
    bytes[..6].copy_from_slice(&big_endian(micros / 1_000)[2..]);
    let fraction = (micros % 1_000) * 4_096 / 1_000;
    bytes[6..8].copy_from_slice(&big_endian(fraction | 0x7000)[6..]);
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes
}

fn big_endian(number: u64) -> [u8; 8] {
    let mut bytes = number.to_le_bytes();
    bytes.reverse();
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use quipu_client::Limits;

    use super::*;

    #[test]
    fn made_up_events_are_valid_and_their_versions_follow_one_another() {
        let text = RandomText::new(&mut Random::from_seed(1), 1_024);
        for ids in [Ids::V4, Ids::V7] {
            let is_linked = ids == Ids::V4;
            let kind = Kind { ids, event_bytes: 1_024, is_linked, is_spread: false };
            let mut events = Events::new(&text, kind, 1);
            for round in 0..3 {
                let append = events.append(10);
                assert_eq!(append.expectations[0].1, ExpectedVersion::Exact(Version(round * 10)));
                for event in &append.events {
                    assert_eq!(event.check(&Limits::default()), Ok(()));
                    assert_eq!(event.payload.len(), 1_024);
                    assert_eq!(event.metadata.correlation_id.is_empty(), !is_linked);
                    assert_eq!(
                        event.event_id.get_version_num(),
                        if ids == Ids::V4 { 4 } else { 7 }
                    );
                }
            }
        }
    }

    #[test]
    fn events_that_are_spread_expect_each_aggregate_once_where_it_is() {
        let text = RandomText::new(&mut Random::from_seed(1), 1_024);
        let (ids, event_bytes) = (Ids::V7, 64);
        let kind = Kind { ids, event_bytes, is_linked: false, is_spread: true };
        let mut events = Events::new(&text, kind, 5);
        let mut stored = HashMap::<AggregateKey, u64>::new();
        for _ in 0..20 {
            let append = events.append(30);
            let aggregates = append.events.iter().map(|event| &event.aggregate);
            let distinct = aggregates.collect::<HashSet<_>>().len();
            assert_eq!((append.events.len(), append.expectations.len()), (30, distinct));
            assert!(distinct > 1);
            for (key, before) in append.expectations {
                let version = stored.get(&key).copied().unwrap_or(0);
                assert_eq!(before, ExpectedVersion::Exact(Version(version)));
            }
            for event in append.events {
                *stored.entry(event.aggregate).or_default() += 1;
            }
        }
    }

    #[test]
    fn version_7_ids_carry_their_time_and_are_in_its_order() {
        let (early, late) = (1_700_000_000_000_001, 1_700_000_000_000_999);
        let [early, late] = [early, late].map(|us| Uuid::from_bytes(version_7([0xff; 16], us)));
        assert!(early < late);
        let seconds = early.get_timestamp().map(|time| time.to_unix().0);
        assert_eq!(seconds, Some(1_700_000_000));
    }
}
