//! What an aggregate is to the log: a type name, and a state that its events add up to.

use crate::event_type::AggregateEvent;

/// A state that events add up to; its default is that before the first event.
///
/// Decisions are plain methods that look at the state and return events or a refusal:
///
/// ```
/// # use quipu_client::*;
/// # #[derive(Default)] struct Door { is_open: bool }
/// # #[derive(Debug, PartialEq)] struct AlreadyOpen;
/// # impl Door {
/// fn open(&self) -> Result<Vec<UntypedEvent>, AlreadyOpen> {
///     if self.is_open { Err(AlreadyOpen) } else { Ok(vec![opened()]) }
/// }
/// # }
/// # fn opened() -> UntypedEvent {
/// #     UntypedEvent { event_type: "Opened".into(), schema_version: 1, data: ().into() }
/// # }
/// # assert_eq!(Door { is_open: true }.open(), Err(AlreadyOpen));
/// ```
pub trait Aggregate: Default + Send {
    /// The aggregate type's name in the log.
    const TYPE: &'static str;
    /// Its events.
    type Event: AggregateEvent;

    /// Takes an event into the state. What has happened has happened: rules belong to decisions,
    /// and only what the state cannot hold is an error.
    ///
    /// # Errors
    /// That the event does not belong into this state. The state must not be used any more.
    fn apply(&mut self, event: &Self::Event) -> Result<(), Inapplicable>;
}

/// Why an event does not belong into a state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Inapplicable {
    reason: String,
}

impl Inapplicable {
    /// An event that does not belong into a state, and why.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}
