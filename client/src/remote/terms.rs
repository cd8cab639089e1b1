//! What the server at the other end takes: asked before anything is queued, for a message that
//! is too large would end the connection, and every one after it.

use quipu_protocol::{Fault, Welcome};
use quipu_types::{AppendError, Invalid, Limits, ReadError};

use super::error::read_error;

/// What a server takes.
#[derive(Clone, Copy)]
pub(super) struct Terms {
    pub(super) limits: Limits,
    pub(super) message_bytes_max: usize,
}

impl Terms {
    pub(super) fn of(welcome: &Welcome) -> Self {
        Self {
            limits: Limits {
                event_bytes_max: welcome.event_bytes_max as usize,
                append_events_max: welcome.append_events_max as usize,
                append_bytes_max: welcome.append_bytes_max as usize,
            },
            message_bytes_max: welcome.message_bytes_max as usize,
        }
    }

    /// Whether an append of so many bytes may be sent; an earlier server may have taken more.
    pub(super) fn check_append(self, given: usize, uncertain: bool) -> Result<(), AppendError> {
        let limit = self.message_bytes_max;
        if given <= limit {
            return Ok(());
        }
        let too_large = Invalid::AppendTooLarge { limit, given };
        if uncertain {
            return Err(AppendError::OutcomeUnknown(format!("sent, and then: {too_large}")));
        }
        Err(too_large.into())
    }

    /// Whether another request of so many bytes may be sent.
    pub(super) fn check_request(self, given: usize) -> Result<(), ReadError> {
        match self.message_bytes_max {
            limit if given > limit => Err(read_error(Fault::over("message", limit, given))),
            _ => Ok(()),
        }
    }
}
