//! What a handler at work waits for, and what has come of it.

use std::sync::Arc;
use std::time::Duration;

use futures_timer::Delay;
use quipu_types::{Append, AppendError, ReadError};

use super::calls::Attempted;
use super::lanes::{Cause, Work};
use super::note::{Note, Noted, stream_of};
use super::parked::ParkedEvent;
use super::shared::{BusShared, HandlerShared, record_at};

const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What has come of something that was waited for.
pub(super) enum Step {
    Attempted {
        works: Vec<Work>,
        attempted: Attempted,
    },
    /// It is time for another attempt.
    Due(Work),
    /// A note about an event is stored, or is not because the handler stops.
    Noted {
        work: Work,
        stored: Result<bool, AppendError>,
    },
    /// A note about a replay.
    ReplayNoted {
        is_end: bool,
        stored: Result<bool, AppendError>,
    },
    /// A parked event that is to be handled again.
    Loaded(Result<Work, ReadError>),
}

/// Stores a note, however long the log cannot; `false` if the handler stops before it could.
pub(super) async fn noted(
    bus: Arc<BusShared>,
    handler: Arc<HandlerShared>,
    note: Note,
) -> Result<bool, AppendError> {
    // The same event each time: it is stored once, although an answer may be lost.
    let event = note.event(stream_of(&bus.name, handler.name()), bus.run);
    let at = event.timestamp;
    let append = Append::any(vec![event]);
    loop {
        match bus.store.append_system(append.clone()).await {
            Ok(outcome) => {
                handler.noted(&Noted { note, at, position: outcome.last_position() });
                return Ok(true);
            }
            Err(error) if !error.is_retryable() => return Err(error),
            Err(_) if handler.stop.is_set() => return Ok(false),
            Err(_) => Delay::new(RETRY_PAUSE).await,
        }
    }
}

/// Reads a parked event, however long the log cannot.
pub(super) async fn loaded(bus: Arc<BusShared>, event: ParkedEvent) -> Result<Work, ReadError> {
    let ParkedEvent { position, attempts, .. } = event;
    loop {
        match record_at(&*bus.store, position).await {
            Err(error) if error.is_retryable() => Delay::new(RETRY_PAUSE).await,
            read => return Ok(Work::new(read?, Cause::Parked { attempts })),
        }
    }
}
