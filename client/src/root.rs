//! A loaded aggregate, and what it has raised since.

use quipu_types::{AggregateKey, NewEvent, Version};

use crate::aggregates::{Aggregate, Inapplicable};
use crate::codec_error::EncodeError;
use crate::context::EventContext;
use crate::event_type::AggregateEvent;
use crate::folded::Folded;
use crate::save::Uncommitted;
use crate::stamps::{Stamp, Stamps};

/// An aggregate in hand.
///
/// Invariants:
/// 1. `state` is the fold of what is stored up to `version`, then of the uncommitted events.
/// 2. An uncommitted event keeps the stamp it was first given, so that saving again after an
///    unknown outcome submits the same event, and the log stores it once.
#[derive(Debug)]
pub struct Root<A: Aggregate> {
    key: AggregateKey,
    state: A,
    version: Version,
    uncommitted: Vec<A::Event>,
    stamps: Vec<Stamp>,
}

impl<A: Aggregate> Root<A> {
    /// An aggregate that is not stored yet.
    pub fn new(aggregate_id: impl Into<String>) -> Self {
        let key = AggregateKey::new(A::TYPE, aggregate_id);
        Self::loaded(key, Folded { state: A::default(), ..Default::default() })
    }

    pub(crate) fn loaded(key: AggregateKey, folded: Folded<A>) -> Self {
        let Folded { state, version, .. } = folded;
        Self { key, state, version, uncommitted: Vec::new(), stamps: Vec::new() }
    }

    /// Its type and id.
    pub fn key(&self) -> &AggregateKey {
        &self.key
    }

    /// Its state, uncommitted events included.
    pub fn state(&self) -> &A {
        &self.state
    }

    /// Its last stored version; 0 if nothing is stored.
    pub fn version(&self) -> Version {
        self.version
    }

    /// What it raised and nobody has saved.
    pub fn uncommitted_events(&self) -> &[A::Event] {
        &self.uncommitted
    }

    /// Takes an event into the state; it is stored with the next save.
    ///
    /// # Errors
    /// That the event does not belong into the state; throw the root away then.
    pub fn raise(&mut self, event: impl Into<A::Event>) -> Result<(), Inapplicable> {
        let event = event.into();
        self.state.apply(&event)?;
        self.uncommitted.push(event);
        Ok(())
    }

    /// Takes all events of a decision into the state.
    ///
    /// # Errors
    /// As [`Self::raise`].
    pub fn raise_all(&mut self, events: Vec<A::Event>) -> Result<(), Inapplicable> {
        events.into_iter().try_for_each(|event| self.raise(event))
    }

    /// Says that the uncommitted events are stored. A repository's save does it itself.
    pub fn mark_committed(&mut self) {
        let count = u64::try_from(self.uncommitted.len()).unwrap_or(u64::MAX);
        self.version = Version(self.version.0.saturating_add(count));
        self.uncommitted.clear();
        self.stamps.clear();
    }
}

impl<A: Aggregate> Uncommitted for Root<A> {
    fn key(&self) -> &AggregateKey {
        &self.key
    }

    fn version(&self) -> Version {
        self.version
    }

    fn new_events(
        &mut self,
        stamps: &dyn Stamps,
        context: &EventContext,
    ) -> Result<Vec<NewEvent>, EncodeError> {
        let missing = self.uncommitted.len() - self.stamps.len();
        self.stamps.extend((0..missing).map(|_| stamps.next()));
        let stamped = self.uncommitted.iter().zip(&self.stamps);
        stamped
            .map(|(event, stamp)| context.new_event(self.key.clone(), event.encode()?, *stamp))
            .collect()
    }

    fn mark_committed(&mut self) {
        Self::mark_committed(self);
    }
}
