//! Given, when, then: the rules of an aggregate, tested without a log.
//!
//! Every event goes through its JSON and back, as it will in the log.
#![expect(clippy::missing_panics_doc, reason = "a test that fails panics with its reason")]

use std::fmt::Debug;

use bytes::Bytes;
use quipu_types::record::{EventBody, RecordBuffer, encode, stamp};
use quipu_types::{AggregateKey, NewEvent, Position, Record, Timestamp, Uuid, Version};
use rkyv::ser::allocator::Arena;

use crate::aggregates::Aggregate;
use crate::context::EventContext;
use crate::event_type::AggregateEvent;
use crate::folded::Folded;
use crate::stamps::Stamp;

/// The id of the aggregate whose rules are tested.
const AGGREGATE_ID: &str = "given";

/// The record that a log would store.
#[must_use]
pub fn stored(event: &NewEvent, position: Position, version: Version) -> Record {
    let mut bytes = encode(RecordBuffer::new(), &EventBody::from(event), &mut Arena::new());
    stamp(&mut bytes, position, version, event.timestamp);
    Record::parse(Bytes::from_owner(bytes)).expect("what was just encoded is a record")
}

/// An aggregate with a history.
pub struct Given<A> {
    folded: Folded<A>,
}

/// What came of a decision.
pub struct Outcome<A: Aggregate, R> {
    folded: Folded<A>,
    decided: Result<Vec<A::Event>, R>,
}

/// An aggregate to which these have happened.
#[track_caller]
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A>
where
    A::Event: PartialEq + Debug,
{
    let mut folded = Folded::default();
    for event in events {
        take(&mut folded, &event);
    }
    Given { folded }
}

impl<A: Aggregate> Given<A> {
    /// A decision is asked for.
    #[must_use]
    pub fn when<R>(self, decide: impl FnOnce(&A) -> Result<Vec<A::Event>, R>) -> Outcome<A, R> {
        let decided = decide(&self.folded.state);
        Outcome { folded: self.folded, decided }
    }

    /// Its state.
    pub fn state(&self) -> &A {
        &self.folded.state
    }
}

impl<A: Aggregate, R: PartialEq + Debug> Outcome<A, R>
where
    A::Event: PartialEq + Debug,
{
    /// Exactly these events came of it, and the state takes them; gives the history with them.
    #[track_caller]
    pub fn then(mut self, expected: impl IntoIterator<Item = A::Event>) -> Given<A> {
        let expected: Vec<A::Event> = expected.into_iter().collect();
        assert_eq!(self.decided.as_ref(), Ok(&expected));
        for event in &expected {
            take(&mut self.folded, event);
        }
        Given { folded: self.folded }
    }

    /// It was refused for this reason.
    #[track_caller]
    pub fn then_refused(self, expected: R) {
        assert_eq!(self.decided, Err(expected));
    }
}

#[track_caller]
fn take<A: Aggregate>(folded: &mut Folded<A>, event: &A::Event)
where
    A::Event: PartialEq + Debug,
{
    let key = AggregateKey::new(A::TYPE, AGGREGATE_ID);
    let (version, position) = (folded.version.next(), folded.position.next());
    let stamp = Stamp {
        event_id: Uuid::from_u128(u128::from(position.0)),
        timestamp: Timestamp::default(),
    };
    let encoded = event.encode().unwrap_or_else(|error| panic!("{error}"));
    let new_event = EventContext::new().new_event(key.clone(), encoded, stamp);
    let record = stored(&new_event.unwrap_or_else(|error| panic!("{error}")), position, version);
    let read = A::Event::decode(&record).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&read, event, "an event comes back from its JSON as it was");
    folded.take(&key, &record).unwrap_or_else(|error| panic!("{error}"));
}
