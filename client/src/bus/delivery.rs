//! What a handler is given, and what it may answer.

use quipu_types::{AppendError, ReadError, Record};

use crate::codec_error::{DecodeError, EncodeError};
use crate::context::EventContext;
use crate::event_type::AggregateEvent;
use crate::repository_error::{LoadError, SaveError};

/// One event, on its way to a handler.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub(super) record: Record,
    pub(super) attempt: u32,
    pub(super) is_replay: bool,
    pub(super) was_parked: bool,
}

impl Delivery {
    /// The event as it is stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The how-manieth attempt this is; the first is 1. An event may come again also at its first:
    /// after the process was killed between handling it and saving that.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether it belongs to a part of the past that somebody wants to be handled again. Not so an
    /// event that is parked, in whatever way it comes again: it was never handled.
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// Whether it is parked: no attempt has succeeded so far.
    pub fn was_parked(&self) -> bool {
        self.was_parked
    }

    /// The typed event.
    ///
    /// # Errors
    /// That it is none of these, or does not fit. Handed on with `?`, the handler's choice for what
    /// it cannot read applies: [`Unreadable`](super::Unreadable).
    pub fn event<E: AggregateEvent>(&self) -> Result<E, DecodeError> {
        E::decode(&self.record)
    }

    /// The context of what is raised while the event is handled.
    pub fn context(&self) -> EventContext {
        EventContext::caused_by(&self.record)
    }
}

/// Why a handler did not handle an event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandlerError {
    /// It failed, and may succeed later.
    #[error("{0}")]
    Failed(String),
    /// The event is none that the handler knows: another attempt is of no use.
    #[error(transparent)]
    Unreadable(Box<DecodeError>),
}

impl HandlerError {
    /// A failure, with its reason.
    pub fn because(reason: impl std::fmt::Display) -> Self {
        Self::Failed(reason.to_string())
    }
}

impl From<DecodeError> for HandlerError {
    fn from(error: DecodeError) -> Self {
        Self::Unreadable(Box::new(error))
    }
}

macro_rules! failed {
    ($($error:ty),*) => {$(
        impl From<$error> for HandlerError {
            fn from(error: $error) -> Self {
                Self::because(error)
            }
        }
    )*};
}

failed!(
    &str,
    String,
    AppendError,
    ReadError,
    LoadError,
    SaveError,
    EncodeError,
    std::io::Error,
    Box<dyn std::error::Error + Send + Sync>
);
