//! The notes of one handler, for people and for other programs: what is parked, and what is to
//! become of it. They need no running bus; one that runs hears of what they say.

use std::sync::Arc;

use quipu_types::{
    AggregateKey, Append, AppendError, Filter, Invalid, Position, SubscribeRequest,
    SubscriptionItem, Uuid,
};

use super::error::BusError;
use super::handler::check_name;
use super::note::{Note, cut, stream_of};
use super::parked::ParkedEvent;
use super::places::Places;
use super::replay::ReplayRequest;
use super::shared::Remembered;
use crate::stamps::{Stamps, SystemStamps};
use crate::store::EventStore;

/// The notes of one handler of one bus.
///
/// ```no_run
/// # use std::sync::Arc;
/// # use quipu_client::*;
/// # async fn mend(store: Arc<dyn EventStore>) -> Result<(), BusError> {
/// let notes = HandlerNotes::of(store, "main", "invoices").await?;
/// for event in notes.parked().await? {
///     println!("{} {}: {}", event.position, event.event_type, event.error);
///     notes.replay_parked(event.position).await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct HandlerNotes {
    store: Arc<dyn EventStore>,
    bus: String,
    handler: String,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayState {
    /// Asked for; no bus has begun it, or it has not got far.
    Asked,
    /// Under way.
    Running {
        /// Everything up to here is done.
        position: Position,
        /// So many events were handled, parked or skipped.
        events: u64,
    },
    /// Done.
    Ended {
        /// So many events were handled, parked or skipped.
        events: u64,
    },
    /// Nobody asked for it.
    Unknown,
}

impl HandlerNotes {
    /// The notes of a handler that a bus knows.
    ///
    /// # Errors
    /// That the bus does not know it, or the log cannot be read.
    pub async fn of(
        store: Arc<dyn EventStore>,
        bus: impl Into<String>,
        handler: impl Into<String>,
    ) -> Result<Self, BusError> {
        let notes = Self { store, bus: bus.into(), handler: handler.into() };
        check_name("bus", &notes.bus)?;
        check_name("handler", &notes.handler)?;
        let places = Places::newest(&*notes.store, &notes.bus).await?.1;
        match places {
            Some(places) if places.handlers.contains_key(&notes.handler) => Ok(notes),
            _ => Err(BusError::UnknownHandler { bus: notes.bus, handler: notes.handler }),
        }
    }

    /// What is parked, in order.
    ///
    /// # Errors
    /// That the log cannot be read.
    pub async fn parked(&self) -> Result<Vec<ParkedEvent>, BusError> {
        Ok(self.read().await?.parked.events().cloned().collect())
    }

    /// Asks that a parked event be handled again: by the bus that runs, or when one runs next. If
    /// that fails it stays parked. Where later events of an aggregate are parked behind it, those
    /// before it are handled first.
    ///
    /// # Errors
    /// That it is not parked, or the log cannot be written.
    pub async fn replay_parked(&self, position: Position) -> Result<(), BusError> {
        self.check_parked(position).await?;
        self.store(Note::ParkedReplayAsked { position }).await
    }

    /// Decides that a parked event shall not be handled, for a reason.
    ///
    /// # Errors
    /// That it is not parked, or the log cannot be written.
    pub async fn drop_parked(&self, position: Position, reason: &str) -> Result<(), BusError> {
        self.check_parked(position).await?;
        self.store(Note::ParkedDropped { position, reason: cut(reason) }).await
    }

    /// Asks that a part of the past be handled again: by the bus that runs, or when one runs next.
    /// Meanwhile nothing new is handed to the handler. Gives the replay's id.
    ///
    /// # Errors
    /// That [`ReplayRequest::after`] is a time that cannot be spelled, or that the log cannot be
    /// written.
    pub async fn replay(&self, request: ReplayRequest) -> Result<Uuid, BusError> {
        if let Some(after) = request.after.filter(|after| !after.is_spellable()) {
            let invalid = Invalid::Timestamp { micros: after.as_micros() };
            return Err(AppendError::from(invalid).into());
        }
        let replay_id = SystemStamps.next().event_id;
        self.store(Note::ReplayAsked { replay_id, request }).await?;
        Ok(replay_id)
    }

    /// How far a replay is.
    ///
    /// # Errors
    /// That the log cannot be read.
    pub async fn replay_state(&self, replay_id: Uuid) -> Result<ReplayState, BusError> {
        Ok(self.read().await?.state_of(replay_id))
    }

    /// Waits until a replay has ended, for as long as it takes; gives how many events it was.
    ///
    /// # Errors
    /// That the log cannot be read.
    pub async fn replayed(&self, replay_id: Uuid) -> Result<u64, BusError> {
        let filter = Filter::aggregate(self.stream());
        let request = SubscribeRequest { filter, ..SubscribeRequest::default() };
        let mut subscription = self.store.subscribe(request)?;
        let mut remembered = Remembered::default();
        loop {
            for item in subscription.next_batch().await? {
                if let SubscriptionItem::Event(record) = item {
                    remembered.take(&record);
                }
            }
            if let ReplayState::Ended { events } = remembered.state_of(replay_id) {
                return Ok(events);
            }
        }
    }

    /// The stream of the notes.
    pub fn stream(&self) -> AggregateKey {
        stream_of(&self.bus, &self.handler)
    }

    async fn read(&self) -> Result<Remembered, BusError> {
        Ok(Remembered::read(&*self.store, &self.bus, &self.handler).await?)
    }

    async fn check_parked(&self, position: Position) -> Result<(), BusError> {
        match self.read().await?.parked.get(position) {
            Some(_) => Ok(()),
            None => Err(BusError::NotParked { handler: self.handler.clone(), position }),
        }
    }

    async fn store(&self, note: Note) -> Result<(), BusError> {
        let event = note.event(self.stream(), Uuid::nil());
        self.store.append_system(Append::any(vec![event])).await?;
        Ok(())
    }
}
