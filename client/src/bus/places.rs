//! How far the handlers of a bus have come, and who runs the bus: one record for all of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::lock::Mutex;
use futures_timer::Delay;
use quipu_types::{
    AggregateKey, Append, AppendError, Direction, ExpectedVersion, Filter, NewEvent, Position,
    ReadRequest, Uuid, Version,
};
use serde::{Deserialize, Serialize};

use super::error::BusError;
use super::handler::Subject;
use crate::stamps::{Stamps, SystemStamps};
use crate::store::EventStore;

/// The aggregate type of places; the aggregate's id is the bus's name.
pub const CHECKPOINT_TYPE: &str = "$checkpoint";
const SAVED: &str = "PlacesSaved";
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// How far the handlers of a bus have come, and who runs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// The log in which they were saved.
    pub log_id: Uuid,
    /// The run of the bus that saved them.
    pub run: Uuid,
    /// Who runs it, in its own words.
    pub holder: String,
    /// Whether that run has ended in order.
    pub is_closed: bool,
    /// The handlers, by their names.
    pub handlers: BTreeMap<String, Place>,
}

/// Where the record of some places stands; zeros if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlacesAt {
    /// Its version: how often places were saved.
    pub version: Version,
    /// Its position.
    pub position: Position,
}

/// How far one handler has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// What it hears of.
    pub subject: Subject,
    /// Everything up to here is handled, parked or skipped, or is none of its events.
    pub position: Position,
}

impl Places {
    /// The newest places of a bus, and where their record stands; none if it never ran.
    ///
    /// # Errors
    /// That the log or the record cannot be read.
    pub async fn newest(
        store: &dyn EventStore,
        bus: &str,
    ) -> Result<(PlacesAt, Option<Self>), BusError> {
        let request = ReadRequest {
            filter: Filter::aggregate(stream_of(bus)),
            direction: Direction::Backward,
            limit: Some(1),
            ..ReadRequest::default()
        };
        let page = store.read(request).next_batch().await?;
        let Some(record) = page.first() else { return Ok((PlacesAt::default(), None)) };
        let places = serde_json::from_slice(record.payload()).map_err(|error| {
            let (bus, position) = (bus.to_owned(), record.position());
            BusError::Places { bus, position, problem: error.to_string() }
        })?;
        let at = PlacesAt { version: record.version(), position: record.position() };
        Ok((at, Some(places)))
    }

    fn append(&self, bus: &str, version: Version) -> Append {
        let stamp = SystemStamps.next();
        let json = serde_json::to_vec(self).expect("names and numbers have JSON");
        let event = NewEvent::json(stamp.event_id, stream_of(bus), SAVED, stamp.timestamp, json);
        Append::one(event, ExpectedVersion::Exact(version))
    }
}

pub(super) fn stream_of(bus: &str) -> AggregateKey {
    AggregateKey::new(CHECKPOINT_TYPE, bus)
}

/// The places of the bus that runs here.
///
/// Invariant: each record follows the one before it (`Exact`), so that of two that both believe to
/// run the bus one learns of the other before it moves a place.
pub(super) struct SavedPlaces {
    store: Arc<dyn EventStore>,
    bus: String,
    saved: Mutex<Saved>,
}

struct Saved {
    version: Version,
    places: Places,
    sent: Option<Sent>,
}

/// Places that were sent, and of which nobody has told yet whether they are stored: whoever waited
/// for the answer may have given up, or there was none.
#[derive(Clone)]
struct Sent {
    append: Append,
    places: Places,
    /// An attempt before may have been stored.
    is_uncertain: bool,
}

impl SavedPlaces {
    /// Saves the first places of a run, behind the record with this version; gives their position.
    pub(super) async fn open(
        store: Arc<dyn EventStore>,
        bus: &str,
        version: Version,
        places: Places,
    ) -> Result<(Self, Position), BusError> {
        let bus = bus.to_owned();
        let saved = Mutex::new(Saved { version, places: places.clone(), sent: None });
        let opened = Self { store, bus, saved };
        let position = opened.save(|_| places).await?;
        Ok((opened, position))
    }

    /// Saves new places; gives the position of their record.
    pub(super) async fn save(
        &self,
        change: impl FnOnce(Places) -> Places,
    ) -> Result<Position, BusError> {
        let mut saved = self.saved.lock().await;
        if let Some(sent) = saved.sent.clone() {
            self.send(&mut saved, sent).await?;
        }
        let places = change(saved.places.clone());
        let append = places.append(&self.bus, saved.version);
        self.send(&mut saved, Sent { append, places, is_uncertain: false }).await
    }

    /// Sent again it is found by its id, if it was stored: nothing else is saved before that is
    /// known, or it would meet its own record and take it for that of another run.
    async fn send(&self, saved: &mut Saved, sent: Sent) -> Result<Position, BusError> {
        saved.sent = Some(Sent { is_uncertain: true, ..sent.clone() });
        let Sent { append, places, mut is_uncertain } = sent;
        let answer = loop {
            match self.store.append_system(append.clone()).await {
                Err(error) if error.is_outcome_unknown() => {
                    is_uncertain = true;
                    Delay::new(RETRY_PAUSE).await;
                }
                answer => break answer,
            }
        };
        if !is_uncertain || answer.as_ref().err().is_none_or(tells_of_all) {
            saved.sent = None;
        }
        match answer {
            Ok(outcome) => {
                (saved.version, saved.places) = (saved.version.next(), places);
                Ok(outcome.last_position())
            }
            Err(AppendError::Conflict(_)) => Err(BusError::Lost { bus: self.bus.clone() }),
            Err(error) => Err(error.into()),
        }
    }

    /// What was saved last.
    pub(super) async fn last(&self) -> Places {
        self.saved.lock().await.places.clone()
    }
}

/// Whether an error says that no attempt was stored, and not just that the last one was not.
fn tells_of_all(error: &AppendError) -> bool {
    use AppendError::{Conflict, IdConflict, Invalid};
    // The ids are looked up before the versions; and what is invalid once is so always.
    matches!(error, Conflict(_) | IdConflict { .. } | Invalid(_))
}
