//! Histories that a correct log makes, for the tests of the check.

use fastrand::Rng;
use quipu_types::{ExpectedVersion, Position, Version};

use super::calls::{
    AppendCall, CallId, Expectation, Following, Heard, Item, Outcome, ReadCall, VersionCall,
};
use super::journal::History;
use super::stamp::Stamp;
use super::stored::{Stored, Submitted};

const AGGREGATES: u32 = 6;
const CLIENTS: u32 = 4;
const STEPS: u64 = 400;
/// Between two moments at which the log does something.
const STEP: u64 = 100;
/// Questions and answers are on their way for so long at most, so that operations overlap.
const ON_THE_WAY: u64 = 450;

/// A log that does one thing after the other, and clients that hear of it earlier or later.
pub(super) struct Example {
    rng: Rng,
    now: u64,
    numbers: [u64; CLIENTS as usize],
    history: History,
}

impl Example {
    pub(super) fn new(seed: u64) -> Self {
        let mut example = Self {
            rng: Rng::with_seed(seed),
            now: 10 * ON_THE_WAY,
            numbers: [0; CLIENTS as usize],
            history: History::default(),
        };
        for _ in 0..STEPS {
            example.now += STEP;
            match example.rng.u8(..10) {
                0..5 => example.append(),
                5 => example.append_again(),
                6 | 7 => example.read(),
                8 => example.ask(),
                _ => example.follow(),
            }
        }
        example
    }

    pub(super) fn history(self) -> History {
        self.history
    }

    fn call(&mut self) -> (CallId, Stamp, Stamp) {
        let client = self.rng.u32(..CLIENTS);
        let number = &mut self.numbers[client as usize];
        *number += 1;
        let id = CallId { client, number: *number };
        let invoked = Stamp(self.now - self.rng.u64(..ON_THE_WAY));
        (id, invoked, Stamp(self.now + self.rng.u64(..ON_THE_WAY)))
    }

    fn version(&self, aggregate: u32) -> Version {
        Version(self.history.log.iter().filter(|it| it.aggregate == aggregate).count() as u64)
    }

    fn expectation(&mut self, aggregate: u32) -> Expectation {
        let expected = match self.rng.u8(..6) {
            0 => ExpectedVersion::NoStream,
            1 => ExpectedVersion::StreamExists,
            2 => ExpectedVersion::Exact(Version(self.rng.u64(..4))),
            3 => ExpectedVersion::Exact(self.version(aggregate)),
            _ => ExpectedVersion::Any,
        };
        Expectation { aggregate, expected }
    }

    fn append(&mut self) {
        let (id, invoked, responded) = self.call();
        let first = self.rng.u32(..AGGREGATES);
        let second = (first + 1) % AGGREGATES;
        let aggregates = [first, second];
        let events = (0..self.rng.usize(1..4)).map(|index| {
            let id = self.rng.u128(1..);
            Submitted { id, aggregate: aggregates[index % 2], content: self.rng.u64(..) }
        });
        let events: Vec<Submitted> = events.collect();
        let expectations = vec![self.expectation(first), self.expectation(second)];
        let mut call = AppendCall {
            id,
            invoked,
            responded,
            events,
            expectations,
            outcome: Outcome::Failed("never sent".to_owned()),
        };
        match self.rng.u8(..12) {
            0 => {}
            1 => (call.responded, call.outcome) = (Stamp::NEVER, Outcome::Unknown),
            2 => {
                self.answer(&call);
                (call.responded, call.outcome) = (Stamp::NEVER, Outcome::Unknown);
            }
            _ => call.outcome = self.answer(&call),
        }
        self.history.appends.push(call);
    }

    /// The same ids once more: the same events, with another content, or with one that is new.
    fn append_again(&mut self) {
        let Some(earlier) = self.rng.choice(&self.history.appends).cloned() else { return };
        let (id, invoked, responded) = self.call();
        let mut call = AppendCall { id, invoked, responded, ..earlier };
        match self.rng.u8(..4) {
            0 => call.events[0].content ^= 1,
            1 => call.events.push(Submitted {
                id: self.rng.u128(1..),
                aggregate: call.events[0].aggregate,
                content: 0,
            }),
            _ => {}
        }
        call.outcome = self.answer(&call);
        self.history.appends.push(call);
    }

    /// What a log does with an append.
    fn answer(&mut self, call: &AppendCall) -> Outcome {
        let log = &self.history.log;
        let find = |event: &Submitted| log.iter().find(|stored| stored.id == event.id);
        let known: Vec<Option<&Stored>> = call.events.iter().map(find).collect();
        if let Some(first) = known.iter().flatten().next() {
            let conflict = |stored: &Stored, partly| Outcome::IdConflict {
                event: stored.id,
                position: stored.position,
                partly,
            };
            let Some(known) = known.iter().copied().collect::<Option<Vec<_>>>() else {
                return conflict(first, true);
            };
            let mut pairs = call.events.iter().zip(&known);
            return match pairs.find(|(event, stored)| event.content != stored.content) {
                Some((_, stored)) => conflict(stored, false),
                None => acknowledged(&known, true),
            };
        }
        let conflicts: Vec<_> = (call.expectations.iter())
            .map(|it| (it.aggregate, it.expected, self.version(it.aggregate)))
            .filter(|(_, expected, actual)| !expected.is_met_by(*actual))
            .map(|(aggregate, _, actual)| (aggregate, actual))
            .collect();
        if !conflicts.is_empty() {
            return Outcome::Conflict(conflicts);
        }
        let start = self.history.log.len();
        for event in &call.events {
            let position = Position(self.history.log.len() as u64 + 1);
            let (version, recorded_at) = (self.version(event.aggregate).next(), 7);
            let Submitted { id, aggregate, content } = *event;
            let stored = Stored { position, version, id, aggregate, content, recorded_at };
            self.history.log.push(stored);
        }
        acknowledged(&self.history.log[start..].iter().collect::<Vec<_>>(), false)
    }

    fn read(&mut self) {
        let (id, invoked, responded) = self.call();
        let of = self.rng.bool().then(|| self.rng.u32(..AGGREGATES));
        let backward = self.rng.bool();
        let from = self.rng.bool().then(|| self.rng.u64(1..20));
        let limit = self.rng.bool().then(|| self.rng.u64(1..9));
        let log = self.history.log.iter().filter(|it| of.is_none_or(|of| it.aggregate == of));
        let numbered = log.zip(1_u64..);
        let most = usize::try_from(limit.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let seen = if backward {
            let all: Vec<_> = numbered.filter(|it| from.is_none_or(|from| it.1 <= from)).collect();
            all.iter().rev().take(most).map(|it| it.0.seen()).collect()
        } else {
            let all = numbered.filter(|it| from.is_none_or(|from| it.1 >= from));
            all.take(most).map(|it| it.0.seen()).collect()
        };
        let read =
            ReadCall { id, invoked, responded, of, backward, from, limit, seen, whole: true };
        self.history.reads.push(read);
    }

    fn ask(&mut self) {
        let (id, invoked, responded) = self.call();
        let aggregate = self.rng.u32(..AGGREGATES);
        let version = self.version(aggregate);
        self.history.versions.push(VersionCall { id, invoked, responded, aggregate, version });
    }

    /// A subscription that catches up, and is told so.
    fn follow(&mut self) {
        let (id, invoked, responded) = self.call();
        let of = self.rng.bool().then(|| self.rng.u32(..AGGREGATES));
        let end = Position(self.history.log.len() as u64);
        let after = Position(self.rng.u64(..=end.0));
        let stored = self.history.log.iter().filter(|it| it.position > after);
        let stored = stored.filter(|it| of.is_none_or(|of| it.aggregate == of));
        let heard = stored.map(|it| Heard { at: responded, item: Item::Event(it.seen()) });
        let mark = Heard { at: responded, item: Item::Mark(end) };
        let heard = heard.chain([mark]).collect();
        let (after, due) = (Some(after), Some(end));
        self.history.followings.push(Following { id, invoked, of, after, heard, due });
    }
}

fn acknowledged(stored: &[&Stored], duplicate: bool) -> Outcome {
    let positions = stored.iter().map(|it| it.position).collect();
    let mut versions: Vec<(u32, Version)> = Vec::new();
    for stored in stored {
        match versions.iter_mut().find(|it| it.0 == stored.aggregate) {
            Some((_, version)) => *version = stored.version,
            None => versions.push((stored.aggregate, stored.version)),
        }
    }
    Outcome::Stored { duplicate, positions, versions }
}
