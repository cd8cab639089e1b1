//! Made-up events, as `quipu bench` makes them: a kilobyte of JSON that does not compress, an id by
//! time, correlation and causation, and the version that the aggregate must be at.

use std::sync::LazyLock;

use fastrand::Rng;
use uuid::{Builder, Uuid};

use crate::clock;
use crate::workload::AGGREGATES;

pub(crate) const AGGREGATE_TYPE: &str = "Bench";
pub(crate) const EVENT_TYPE: &str = "Measured";
/// JSON, its quotes and braces included.
pub(crate) const PAYLOAD_BYTES: usize = 1_024;

/// Payloads are cut from this much random text: more than a compressor's window.
const TEXT_BYTES: usize = 16 * 1024 * 1024;
const PREFIX: &str = "{\"data\":\"";
const SUFFIX: &str = "\"}";

static TEXT: LazyLock<String> = LazyLock::new(|| {
    let mut random = Rng::new();
    (0..TEXT_BYTES).map(|_| random.alphanumeric()).collect()
});

/// One event as it is submitted.
pub(crate) struct Event {
    pub(crate) id: Uuid,
    /// Its version in its aggregate, from 1.
    pub(crate) version: u64,
    /// When it was made, in microseconds since 1970.
    pub(crate) created_us: i64,
    pub(crate) correlation_id: String,
    pub(crate) causation_id: String,
    pub(crate) payload: String,
}

impl Event {
    /// The metadata as a JSON document.
    pub(crate) fn metadata(&self) -> String {
        let Self { correlation_id, causation_id, .. } = self;
        format!(r#"{{"correlation_id":"{correlation_id}","causation_id":"{causation_id}"}}"#)
    }
}

/// Events of one aggregate, stored whole or not at all.
pub(crate) struct Append {
    pub(crate) aggregate_id: Uuid,
    /// The version that the aggregate must be at.
    pub(crate) expected_version: u64,
    pub(crate) events: Vec<Event>,
}

/// Makes the appends of one client, which alone writes to its aggregates.
pub(crate) struct Events {
    random: Rng,
    aggregates: Vec<(Uuid, u64)>,
    cause: Uuid,
}

impl Events {
    /// For one of so many clients.
    pub(crate) fn new(clients: usize) -> Self {
        LazyLock::force(&TEXT);
        let mut random = Rng::new();
        let own = AGGREGATES.div_ceil(clients);
        let aggregates = (0..own).map(|_| (random_id(&mut random), 0)).collect();
        Self { random, aggregates, cause: Uuid::nil() }
    }

    /// The next append, of so many events.
    pub(crate) fn append(&mut self, events: usize) -> Append {
        let index = self.random.usize(..self.aggregates.len());
        let (aggregate_id, expected_version) = self.aggregates[index];
        self.aggregates[index].1 += events as u64;
        let correlation_id = random_id(&mut self.random).to_string();
        let events = (1..=events as u64)
            .map(|number| self.event(expected_version + number, &correlation_id))
            .collect();
        Append { aggregate_id, expected_version, events }
    }

    fn event(&mut self, version: u64, correlation_id: &str) -> Event {
        let created_us = clock::unix_us();
        let id = id_by_time(created_us, &mut self.random);
        let text_bytes = PAYLOAD_BYTES - PREFIX.len() - SUFFIX.len();
        let start = self.random.usize(..TEXT_BYTES - text_bytes);
        let text = &TEXT[start..start + text_bytes];
        let cause = std::mem::replace(&mut self.cause, id);
        Event {
            id,
            version,
            created_us,
            correlation_id: correlation_id.to_owned(),
            causation_id: cause.to_string(),
            payload: [PREFIX, text, SUFFIX].concat(),
        }
    }
}

fn random_id(random: &mut Rng) -> Uuid {
    Builder::from_random_bytes(random.u128(..).to_le_bytes()).into_uuid()
}

fn id_by_time(unix_us: i64, random: &mut Rng) -> Uuid {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    Builder::from_unix_timestamp_millis(unix_us.unsigned_abs() / 1_000, &bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_json_of_the_stated_size_and_versions_follow_one_another() {
        let mut events = Events::new(AGGREGATES);
        for round in 0..3 {
            let append = events.append(10);
            assert_eq!(append.expected_version, round * 10);
            for (event, version) in append.events.iter().zip(round * 10 + 1..) {
                assert_eq!((event.version, event.payload.len()), (version, PAYLOAD_BYTES));
                assert!(serde_json::from_str::<serde_json::Value>(&event.payload).is_ok());
                assert!(serde_json::from_str::<serde_json::Value>(&event.metadata()).is_ok());
                assert_eq!(event.id.get_version_num(), 7);
            }
        }
    }

    #[test]
    fn clients_share_out_the_aggregates() {
        assert_eq!(Events::new(64).aggregates.len(), 157);
        assert_eq!(Events::new(1).aggregates.len(), AGGREGATES);
    }
}
