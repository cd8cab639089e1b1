//! Why a bus does not do what it was asked for.

use quipu_types::{AppendError, Position, ReadError, Uuid};

use super::handler::Subject;

/// Why a bus cannot be opened, a handler not subscribed, or a request to it not noted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// A name that cannot be one.
    #[error("{given:?} is no name of a {what}: {problem}")]
    Name {
        /// A bus or a handler.
        what: &'static str,
        /// The name given, or its beginning.
        given: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another process, or another part of this one, runs the bus.
    #[error("bus {bus:?} is run by {holder} (run {run}): stop that, or wait for it")]
    Held {
        /// The bus.
        bus: String,
        /// Who it is, in its own words.
        holder: String,
        /// Its run.
        run: Uuid,
    },
    /// Another one has taken the bus over, because this one did not answer in time.
    #[error("bus {bus:?} was taken over by another run: this one handles nothing any more")]
    Lost {
        /// The bus.
        bus: String,
    },
    /// Two handlers of one name.
    #[error("a handler named {handler:?} is already subscribed")]
    NameTaken {
        /// The name.
        handler: String,
    },
    /// The name belongs to a handler of other events.
    #[error("handler {handler:?} was subscribed to {saved}, not to {given}: use another name")]
    OtherSubject {
        /// The name.
        handler: String,
        /// What the handler of this name hears of.
        saved: Subject,
        /// What was asked for.
        given: Subject,
    },
    /// Too many handlers for one record of their places.
    #[error("a bus has at most {limit} handlers")]
    TooManyHandlers {
        /// Handlers allowed.
        limit: usize,
    },
    /// No such handler.
    #[error("bus {bus:?} knows no handler named {handler:?}")]
    UnknownHandler {
        /// The bus.
        bus: String,
        /// The name.
        handler: String,
    },
    /// The places were saved in another log, of which this one may be a restored copy: what
    /// handlers did outside may be ahead of it.
    #[error("the places of bus {bus:?} were saved in log {given}; this is log {actual}")]
    OtherLog {
        /// The bus.
        bus: String,
        /// The log they were saved in.
        given: Uuid,
        /// The log there is.
        actual: Uuid,
    },
    /// A place past the end of the log: its handler would miss events.
    #[error("handler {handler:?} is at position {given}, past the end of the log, {end}")]
    PastEnd {
        /// The handler.
        handler: String,
        /// Its place.
        given: Position,
        /// The last position there is.
        end: Position,
    },
    /// The record of the places cannot be read.
    #[error("the places of bus {bus:?} (position {position}) cannot be read: {problem}")]
    Places {
        /// The bus.
        bus: String,
        /// Where the record stands.
        position: Position,
        /// What is wrong with it.
        problem: String,
    },
    /// The event is not parked.
    #[error("position {position} is not parked by handler {handler:?}")]
    NotParked {
        /// The handler.
        handler: String,
        /// The position given.
        position: Position,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log refused what the bus keeps in it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The system gave no thread.
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

impl From<std::io::Error> for BusError {
    fn from(error: std::io::Error) -> Self {
        Self::Thread(error.to_string())
    }
}
