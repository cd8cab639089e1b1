//! Made-up events of calls: what compliance and call statistics are measured with.

use std::sync::Arc;

use futures::executor::block_on;
use quipu_client::{AggregateKey, Append, Embedded, EventStore, EventType, NewEvent, encode_event};
use quipu_domain::catalogue::{
    CallAnswered, CallAttempted, CallCompleted, CallCreated, CallStarted, ConsentGranted,
    DNCCheckPerformed,
};
use quipu_domain::{PhoneKey, PhoneNumberHash};
use quipu_replicator::Projection;

use super::{APPEND_EVENTS, CallStatistics, Compliance, OnFailure};
use crate::failure::Failure;
use crate::random::Random;

/// Numbers that are called.
const NUMBERS: u64 = 10_000;
/// How often a call begins with consent and a look into the lists.
const CONSENT_EVERY: u64 = 10;

/// The read models of calls.
pub(super) fn projections() -> Vec<Arc<dyn Projection>> {
    vec![Arc::new(Compliance::new(OnFailure::Stop)), Arc::new(CallStatistics::new(OnFailure::Stop))]
}

/// Appends so many events.
pub(super) fn fill(log: &Embedded, events: u64) -> Result<(), Failure> {
    let mut source = Calls::new()?;
    let mut left = events;
    while left > 0 {
        let count = left.min(APPEND_EVENTS);
        block_on(log.append(source.append(log, count)))?;
        left -= count;
    }
    Ok(())
}

/// Calls, one after the other, each from wish to end.
pub(super) struct Calls {
    random: Random,
    numbers: Vec<PhoneNumberHash>,
    /// What is left of the call that was begun.
    waiting: Vec<NewEvent>,
    begun: u64,
}

impl Calls {
    pub(super) fn new() -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
        let key = PhoneKey::new("bench", &[7; 32]).map_err(|error| wrong(&error))?;
        let number = |number: u64| {
            let number = format!("+1212{:07}", 5_550_000 + number).parse();
            number.map(|number| key.hash(&number)).map_err(|error| wrong(&error))
        };
        let numbers: Result<_, Failure> = (0..NUMBERS).map(number).collect();
        let random = Random::from_entropy();
        Ok(Self { random, numbers: numbers?, waiting: Vec::new(), begun: 0 })
    }

    /// The next so many events.
    pub(super) fn append(&mut self, log: &Embedded, events: u64) -> Append {
        let events = usize::try_from(events).unwrap_or(usize::MAX);
        let mut append = Vec::with_capacity(events);
        while append.len() < events {
            if self.waiting.is_empty() {
                self.begin(log);
            }
            append.extend(self.waiting.pop());
        }
        Append::any(append)
    }

    /// How many events end the call that was begun; its last one is taken by every read model.
    pub(super) fn unfinished(&self) -> u64 {
        self.waiting.len() as u64
    }

    fn begin(&mut self, log: &Embedded) {
        let chosen = self.random.below(NUMBERS);
        let hash = self.numbers[usize::try_from(chosen).unwrap_or(0)];
        let (id, call_id) = (log.new_id().to_string(), log.new_id());
        let mut events = Vec::with_capacity(7);
        self.begun += 1;
        if self.begun.is_multiple_of(CONSENT_EVERY) {
            let number = hash.to_string();
            let grant = ConsentGranted { phone_number_hash: hash, ..ConsentGranted::example() };
            events.push(event(log, &number, &grant));
            let checked =
                DNCCheckPerformed { phone_number_hash: hash, ..DNCCheckPerformed::example() };
            events.push(event(log, &number, &checked));
        }
        events.push(event(log, &id, &CallCreated {}));
        let attempt = CallAttempted { call_id, to_number_hash: hash, ..CallAttempted::example() };
        events.push(event(log, &id, &attempt));
        let started = CallStarted { to_number_hash: hash, ..CallStarted::example() };
        events.push(event(log, &id, &started));
        events.push(event(log, &id, &CallAnswered {}));
        events.push(event(log, &id, &CallCompleted::example()));
        events.reverse();
        self.waiting = events;
    }
}

fn event<E: EventType>(log: &Embedded, id: &str, event: &E) -> NewEvent {
    let encoded = encode_event(event).expect("what is made up here has JSON");
    let key = AggregateKey::new(E::AGGREGATE_TYPE, id);
    log.new_event(key, encoded.event_type, encoded.payload)
}
