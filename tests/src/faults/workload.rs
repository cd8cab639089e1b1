//! What a client does next: appends in every expected mode, for one or several aggregates,
//! repetitions, reads and questions, at random.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;
use quipu_client::{
    Append, Direction, ExpectedVersion, Filter, NewEvent, ReadRequest, Timestamp, Uuid, Version,
};

use crate::history::calls::{Expectation, Outcome};
use crate::history::stored::{Submitted, key_of};

/// Aggregates that all clients write to.
const SHARED_AGGREGATES: u32 = 40;
/// Earlier appends that are kept to be repeated.
const REMEMBERED: usize = 256;
const LARGE_BYTES: usize = 60_000;

/// An append, as it is sent and as it is recorded.
#[derive(Clone)]
pub struct Made {
    pub append: Append,
    pub events: Vec<Submitted>,
    pub expectations: Vec<Expectation>,
}

/// One operation.
pub enum Step {
    Append(Made),
    Read { of: Option<u32>, request: ReadRequest },
    AskVersion(u32),
}

/// Appends of all clients, which any may repeat.
pub type Earlier = Arc<Mutex<VecDeque<Made>>>;

/// What one client does.
pub struct Workload {
    rng: Rng,
    client: u32,
    aggregates: u32,
    /// Versions as the client knows them: often right, sometimes not any more.
    versions: HashMap<u32, Version>,
    earlier: Earlier,
    /// About how many events there are.
    length: u64,
    /// How many bytes most events carry at most.
    bytes_max: usize,
}

impl Workload {
    pub fn new(seed: u64, client: u32, earlier: Earlier, bytes_max: usize) -> Self {
        let rng = Rng::with_seed(seed ^ (u64::from(client) << 32));
        let versions = HashMap::new();
        Self { rng, client, aggregates: 0, versions, earlier, length: 0, bytes_max }
    }

    pub fn next_step(&mut self) -> Step {
        match self.rng.u8(..100) {
            0..52 => Step::Append(self.fresh()),
            52..64 => Step::Append(self.repeated()),
            64..85 => self.read(),
            _ => Step::AskVersion(self.rng.u32(..SHARED_AGGREGATES)),
        }
    }

    /// Learns from an answer.
    pub fn learn(&mut self, made: Made, outcome: &Outcome) {
        match outcome {
            Outcome::Stored { positions, versions, .. } => {
                self.versions.extend(versions.iter().copied());
                let last = positions.iter().max().map_or(0, |position| position.0);
                self.length = self.length.max(last);
            }
            Outcome::Conflict(actual) => self.versions.extend(actual.iter().copied()),
            // Whoever repeats it finds out.
            Outcome::Unknown => {}
            Outcome::IdConflict { .. } | Outcome::Failed(_) => return,
        }
        let mut earlier = self.earlier.lock();
        if earlier.len() == REMEMBERED {
            earlier.pop_front();
        }
        earlier.push_back(made);
    }

    pub fn learn_version(&mut self, aggregate: u32, version: Version) {
        self.versions.insert(aggregate, version);
    }

    fn fresh(&mut self) -> Made {
        let first = self.aggregate();
        let second = self.rng.u32(..SHARED_AGGREGATES);
        let aggregates = if self.rng.u8(..4) == 0 { [first, second] } else { [first, first] };
        let events = 0..self.rng.usize(1..=4);
        let events: Vec<_> = events.map(|index| self.event(aggregates[index % 2])).collect();
        let mut expectations = vec![self.expectation(first)];
        // Also of an aggregate that is only checked.
        if second != first && self.rng.bool() {
            expectations.push(self.expectation(second));
        }
        Made::new(events, expectations)
    }

    /// One that all write to, or one of its own that nobody has written to.
    fn aggregate(&mut self) -> u32 {
        if self.rng.u8(..8) == 0 {
            self.aggregates += 1;
            1_000_000 * (self.client + 1) + self.aggregates
        } else {
            self.rng.u32(..SHARED_AGGREGATES)
        }
    }

    fn expectation(&mut self, aggregate: u32) -> Expectation {
        let known = self.versions.get(&aggregate).copied().unwrap_or_default();
        let expected = match self.rng.u8(..20) {
            0..6 => ExpectedVersion::Any,
            6..8 if known > Version::NONE => ExpectedVersion::StreamExists,
            6..9 => ExpectedVersion::NoStream,
            9 => ExpectedVersion::Exact(Version(self.rng.u64(..=known.0 + 1))),
            _ => ExpectedVersion::Exact(known),
        };
        Expectation { aggregate, expected }
    }

    fn event(&mut self, aggregate: u32) -> (u32, NewEvent) {
        let bytes = match self.rng.u8(..) {
            0 => LARGE_BYTES.max(self.bytes_max),
            _ => self.bytes_max,
        };
        let text: String = (0..self.rng.usize(..bytes)).map(|_| self.rng.alphanumeric()).collect();
        let now =
            Timestamp::from_micros(1_800_000_000_000_000 + self.rng.i64(0..1_000_000_000_000));
        let id = Uuid::from_u128(self.rng.u128(1..));
        let payload = format!("{{\"text\":\"{text}\"}}");
        (aggregate, NewEvent::json(id, key_of(aggregate), "Tied", now, payload))
    }

    /// An earlier append, of whatever client, with the same ids: as it was, with another content,
    /// or with one event more.
    fn repeated(&mut self) -> Made {
        let earlier = self.earlier.lock();
        let Some(Made { append, events, expectations }) = self.rng.choice(&*earlier).cloned()
        else {
            drop(earlier);
            return self.fresh();
        };
        drop(earlier);
        let aggregates = events.iter().map(|event| event.aggregate);
        let mut events: Vec<_> = aggregates.zip(append.events).collect();
        match self.rng.u8(..10) {
            0 => events[0].1.payload = b"{\"text\":\"another\"}".to_vec(),
            1 => {
                let more = self.event(events[0].0);
                events.push(more);
            }
            _ => {}
        }
        Made::new(events, expectations)
    }

    fn read(&mut self) -> Step {
        let of = (self.rng.u8(..3) > 0).then(|| self.rng.u32(..SHARED_AGGREGATES));
        let filter = of.map_or_else(Filter::default, |of| Filter::aggregate(key_of(of)));
        let end = match of {
            Some(aggregate) => self.versions.get(&aggregate).map_or(1, |version| version.0),
            None => self.length,
        };
        let is_short = of.is_some() && end < 200;
        let from = (!is_short || self.rng.bool()).then(|| self.rng.u64(1..end + 5));
        let limit = (!is_short || self.rng.bool()).then(|| self.rng.u64(1..60));
        let directions = [Direction::Forward, Direction::Backward];
        let direction = directions[self.rng.usize(..2)];
        Step::Read { of, request: ReadRequest { filter, from, direction, limit } }
    }
}

impl Made {
    pub fn new(events: Vec<(u32, NewEvent)>, expectations: Vec<Expectation>) -> Self {
        let submitted = events.iter().map(|(aggregate, event)| Submitted::of(event, *aggregate));
        let submitted = submitted.collect();
        let mut append = Append::any(events.into_iter().map(|(_, event)| event).collect());
        for Expectation { aggregate, expected } in &expectations {
            append = append.expect(key_of(*aggregate), *expected);
        }
        Self { append, events: submitted, expectations }
    }
}
