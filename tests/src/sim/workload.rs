//! What clients submit: fresh appends, repetitions, and repetitions with something changed.

use fastrand::Rng;
use quipu_types::{AggregateKey, Append, ExpectedVersion, NewEvent, Timestamp, Uuid, Version};

use super::model::Model;

/// Aggregates that are written to.
const AGGREGATES: u8 = 5;

/// Makes appends.
#[derive(Default)]
pub struct Workload {
    next_id: u128,
    past: Vec<Append>,
}

impl Workload {
    /// The next append; it is remembered, to be submitted again one day.
    pub fn next(&mut self, model: &Model, rng: &mut Rng) -> Append {
        let append = if !self.past.is_empty() && rng.u8(0..8) == 0 {
            self.repeat(rng)
        } else {
            self.fresh(model, rng)
        };
        self.past.push(append.clone());
        append
    }

    /// One event of an aggregate, that nothing can be wrong with.
    pub fn plain(&mut self, rng: &mut Rng) -> Append {
        Append::one(self.event(rng), ExpectedVersion::Any)
    }

    /// Any aggregate.
    pub fn aggregate(rng: &mut Rng) -> AggregateKey {
        AggregateKey::new("T", rng.u8(0..AGGREGATES).to_string())
    }

    fn repeat(&mut self, rng: &mut Rng) -> Append {
        let mut append = self.past[rng.usize(0..self.past.len())].clone();
        match rng.u8(0..6) {
            0 => append.events[0].payload.extend_from_slice(b" "),
            1 if append.events.len() > 1 => append.events.truncate(1),
            2 => append.events.push(self.event(rng)),
            _ => {}
        }
        append
    }

    fn fresh(&mut self, model: &Model, rng: &mut Rng) -> Append {
        let count = if rng.u8(0..6) == 0 { rng.usize(2..8) } else { 1 };
        let events: Vec<NewEvent> = (0..count).map(|_| self.event(rng)).collect();
        let key = events[0].aggregate.clone();
        let expected = match rng.u8(0..6) {
            0 => ExpectedVersion::Any,
            1 => ExpectedVersion::Exact(Version(rng.u64(0..6))),
            2 => ExpectedVersion::NoStream,
            _ => ExpectedVersion::Exact(model.version(&key)),
        };
        let mut expectations = vec![(key, expected)];
        let other = Self::aggregate(rng);
        if rng.u8(0..8) == 0 && other != expectations[0].0 {
            let version = model.version(&other);
            expectations.push((other, ExpectedVersion::Exact(version)));
        }
        Append { events, expectations }
    }

    fn event(&mut self, rng: &mut Rng) -> NewEvent {
        self.next_id += 1;
        let number = self.next_id;
        // Some are far from the others, as at random: new ones are not above all that are known.
        let id = if number % 4 == 3 { 0xd1ce << 112 | number } else { number };
        let size = if rng.u8(0..8) == 0 { rng.usize(0..3_000) } else { 10 };
        let payload = format!("{{\"n\":{number},\"x\":\"{}\"}}", "y".repeat(size));
        let now = Timestamp::from_micros(0);
        NewEvent::json(Uuid::from_u128(id), Self::aggregate(rng), "E", now, payload)
    }
}
