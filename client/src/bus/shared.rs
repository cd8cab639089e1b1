//! What the parts of a bus share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use event_listener::Event;
use futures::StreamExt;
use parking_lot::Mutex;
use quipu_types::{Direction, Filter, Position, ReadError, ReadRequest, Record, Uuid};

use super::error::BusError;
use super::handler::Handler;
use super::in_hand::InHand;
use super::metrics::{HandlerMetrics, HandlerStatus, Meter};
use super::note::{Note, Noted, stream_of};
use super::notes::ReplayState;
use super::parked::Parked;
use super::places::{Place, SavedPlaces};
use super::replay::ReplayRequest;
use super::stop::Stop;
use crate::store::EventStore;

/// So many skipped positions are worth saving a place for.
const WORTH_SAVING: u64 = 10_000;

/// What the parts of a bus share.
pub(super) struct BusShared {
    pub(super) store: Arc<dyn EventStore>,
    pub(super) name: String,
    /// This run of the bus.
    pub(super) run: Uuid,
    pub(super) places: SavedPlaces,
    pub(super) handlers: Mutex<BTreeMap<String, Arc<HandlerShared>>>,
    /// The bus ends, with all its handlers.
    pub(super) stop: Stop,
    /// Another run has taken the bus over.
    pub(super) lost: Stop,
    /// Why places could not be saved last time.
    pub(super) problem: Mutex<Option<String>>,
}

impl BusShared {
    /// Another run has taken the bus over: every handler stops.
    pub(super) fn lose(&self) {
        self.lost.set();
        let reason = BusError::Lost { bus: self.name.clone() }.to_string();
        for handler in self.handlers.lock().values() {
            handler.stop_with(reason.clone());
        }
    }

    /// The places as they are now; `None` if none is worth saving.
    pub(super) fn places_worth_saving(&self) -> Option<BTreeMap<String, Place>> {
        let handlers = self.handlers.lock();
        let is_worth = handlers.values().any(|handler| handler.is_worth_saving());
        is_worth.then(|| handlers.iter().map(|(name, it)| (name.clone(), it.place())).collect())
    }

    /// Saves the places if that is worth it.
    pub(super) async fn save_places(&self) {
        let Some(now) = self.places_worth_saving() else { return };
        let saved = self.places.save(|mut places| {
            places.handlers.extend(now.clone());
            places
        });
        let problem = match saved.await {
            Ok(_) => {
                let handlers = self.handlers.lock();
                for (name, place) in now {
                    handlers.get(&name).inspect(|handler| handler.saved(place.position));
                }
                None
            }
            Err(error) => {
                if matches!(error, BusError::Lost { .. }) {
                    self.lose();
                }
                Some(error.to_string())
            }
        };
        *self.problem.lock() = problem;
    }

    /// The last position of the log.
    pub(super) async fn end(&self) -> Result<Position, ReadError> {
        end_of(&*self.store).await
    }
}

/// The last position of a log.
pub(super) async fn end_of(store: &dyn EventStore) -> Result<Position, ReadError> {
    let request = ReadRequest {
        filter: Filter { include_system: true, ..Filter::default() },
        direction: Direction::Backward,
        limit: Some(1),
        ..ReadRequest::default()
    };
    let page = store.read(request).next_batch().await?;
    Ok(page.first().map_or(Position::START, Record::position))
}

/// The record at a position.
pub(super) async fn record_at(
    store: &dyn EventStore,
    position: Position,
) -> Result<Record, ReadError> {
    let request = ReadRequest { from: Some(position.0), limit: Some(1), ..ReadRequest::default() };
    let page = store.read(request).next_batch().await?;
    let found = page.into_iter().find(|record| record.position() == position);
    match found {
        Some(record) => Ok(record),
        None => Err(ReadError::PastEnd { given: position, end: end_of(store).await? }),
    }
}

/// A part of the past that somebody wants to be handled again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AskedReplay {
    pub(super) replay_id: Uuid,
    pub(super) request: ReplayRequest,
    /// How far it is already, and how many events that were.
    pub(super) position: Position,
    pub(super) events: u64,
}

/// What a handler's notes say.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) parked: Parked,
    pub(super) replays: VecDeque<AskedReplay>,
    ended: BTreeMap<Uuid, u64>,
    /// Notes up to here are taken.
    upto: Position,
}

impl Remembered {
    /// Folds all notes of a handler.
    pub(super) async fn read(
        store: &dyn EventStore,
        bus: &str,
        handler: &str,
    ) -> Result<Self, ReadError> {
        let filter = Filter::aggregate(stream_of(bus, handler));
        let mut notes = store.read(ReadRequest { filter, ..ReadRequest::default() });
        let mut remembered = Self::default();
        while let Some(record) = notes.next().await {
            remembered.take(&record?);
        }
        Ok(remembered)
    }

    /// How far a replay is.
    pub(super) fn state_of(&self, replay_id: Uuid) -> ReplayState {
        if let Some(events) = self.ended.get(&replay_id) {
            return ReplayState::Ended { events: *events };
        }
        match self.replays.iter().find(|asked| asked.replay_id == replay_id) {
            None => ReplayState::Unknown,
            Some(asked) if asked.position == Position::START => ReplayState::Asked,
            Some(AskedReplay { position, events, .. }) => {
                ReplayState::Running { position: *position, events: *events }
            }
        }
    }

    /// Takes a note, unless it is taken already.
    pub(super) fn take(&mut self, record: &Record) {
        if record.position() <= self.upto {
            return;
        }
        self.upto = record.position();
        if let Some(noted) = Note::read(record) {
            self.take_noted(&noted);
        }
    }

    fn take_noted(&mut self, noted: &Noted) {
        self.parked.take(noted);
        match noted.note.clone() {
            Note::ReplayAsked { replay_id, request } => {
                let (position, events) = (Position::START, 0);
                self.replays.push_back(AskedReplay { replay_id, request, position, events });
            }
            Note::ReplayProgressed { replay_id, position, events } => {
                let asked = self.replays.iter_mut().find(|asked| asked.replay_id == replay_id);
                if let Some(asked) = asked {
                    (asked.position, asked.events) = (position, events);
                }
            }
            Note::ReplayEnded { replay_id, events } => {
                self.replays.retain(|asked| asked.replay_id != replay_id);
                self.ended.insert(replay_id, events);
            }
            _ => {}
        }
    }
}

/// What the parts of a bus know of one handler.
pub(super) struct HandlerShared {
    pub(super) settings: Handler,
    pub(super) meter: Arc<Meter>,
    pub(super) notes: Mutex<Remembered>,
    progress: Mutex<Progress>,
    status: Mutex<HandlerStatus>,
    pub(super) stop: Arc<Stop>,
    /// Somebody asked for something.
    pub(super) asked: Event,
}

#[derive(Default)]
struct Progress {
    position: Position,
    saved: Position,
    /// The place when something was handled last.
    handled: Position,
    /// Events in hand, and their bytes.
    queue: usize,
    queue_bytes: usize,
}

impl HandlerShared {
    pub(super) fn new(settings: Handler, position: Position) -> Self {
        let progress = Progress { position, saved: position, ..Progress::default() };
        Self {
            settings,
            meter: Arc::default(),
            notes: Mutex::default(),
            progress: Mutex::new(progress),
            status: Mutex::default(),
            stop: Arc::default(),
            asked: Event::new(),
        }
    }

    /// Whether an event is parked now.
    pub(super) fn is_parked(&self, position: Position) -> bool {
        self.notes.lock().parked.get(position).is_some()
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Reads the notes. Those that are heard of meanwhile are among them in the end.
    pub(super) async fn remember(
        &self,
        store: &dyn EventStore,
        bus: &str,
    ) -> Result<(), ReadError> {
        loop {
            let read = Remembered::read(store, bus, self.name()).await?;
            let mut notes = self.notes.lock();
            if read.upto >= notes.upto {
                *notes = read;
                return Ok(());
            }
        }
    }

    /// A note that somebody else wrote.
    pub(super) fn hear(&self, record: &Record) {
        self.notes.lock().take(record);
        self.asked.notify(usize::MAX);
    }

    /// A note that this run wrote.
    pub(super) fn noted(&self, noted: &Noted) {
        self.notes.lock().take_noted(noted);
    }

    pub(super) fn set_status(&self, status: HandlerStatus) {
        let mut now = self.status.lock();
        if !matches!(*now, HandlerStatus::Stopped(_)) {
            *now = status;
        }
    }

    /// The handler stops; the first reason stands.
    pub(super) fn stop_with(&self, reason: String) {
        self.set_status(HandlerStatus::Stopped(reason));
        self.stop.set();
    }

    pub(super) fn progressed(&self, position: Position, handled: bool, in_hand: &InHand) {
        let mut progress = self.progress.lock();
        progress.position = progress.position.max(position);
        if handled {
            progress.handled = progress.position;
        }
        (progress.queue, progress.queue_bytes) = (in_hand.events(), in_hand.bytes());
    }

    pub(super) fn place(&self) -> Place {
        let position = self.progress.lock().position;
        Place { subject: self.settings.subject.clone(), position }
    }

    fn is_worth_saving(&self) -> bool {
        let progress = self.progress.lock();
        let moved = progress.position.0 - progress.saved.0;
        moved >= WORTH_SAVING || progress.handled > progress.saved
    }

    fn saved(&self, position: Position) {
        self.progress.lock().saved = position;
    }

    pub(super) fn metrics(&self, end: Position) -> HandlerMetrics {
        let (position, queue, queue_bytes) = {
            let progress = self.progress.lock();
            (progress.position, progress.queue, progress.queue_bytes)
        };
        HandlerMetrics {
            subject: self.settings.subject.clone(),
            status: self.status.lock().clone(),
            position,
            lag: end.0.saturating_sub(position.0),
            queue,
            queue_bytes,
            parked: self.notes.lock().parked.len(),
            event_types: self.meter.counts(),
        }
    }
}
