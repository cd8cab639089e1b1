//! What the sequencer answers to an append.

use std::sync::Arc;

use quipu_types::{AggregateKey, AppendError, Position, Version};

use super::prepared::PreparedAppend;

/// How an append was admitted.
pub enum Admitted {
    /// Stored: durable, indexed, visible.
    Stored {
        /// Position of its first event; the others follow without a gap.
        first: Position,
        /// Number of events.
        events: u64,
        /// Each aggregate written, with its version after the append.
        versions: Vec<(Arc<AggregateKey>, Version)>,
    },
    /// All its ids are known and durable: whether it is a duplicate depends on its content, which
    /// the caller compares, off the sequencer.
    Known {
        /// Where each event's id is stored.
        positions: Vec<Position>,
        /// The append.
        append: Box<PreparedAppend>,
    },
}

/// Called once, when everything that the answer depends on is durable. Answers to successive groups
/// come from different threads and may overtake each other: whoever owes them in order, sorts them.
pub type Reply = Box<dyn FnOnce(Result<Admitted, AppendError>) + Send>;

/// An answer and who gets it; sent outside the sequencer's lock.
pub struct Answer {
    reply: Reply,
    result: Result<Admitted, AppendError>,
}

impl Answer {
    /// Pairs them.
    pub fn new(reply: Reply, result: Result<Admitted, AppendError>) -> Self {
        Self { reply, result }
    }

    /// Makes it the failure of the log, for this reason. What may be stored is not denied: what was
    /// known before, and what is new if it was submitted to the disk.
    #[must_use]
    pub fn failed(self, reason: &str, was_submitted: bool) -> Self {
        let may_be_stored = match self.result {
            Ok(Admitted::Stored { .. }) => was_submitted,
            Ok(Admitted::Known { .. }) => true,
            Err(_) => false,
        };
        let error = if may_be_stored {
            AppendError::OutcomeUnknown(reason.to_owned())
        } else {
            AppendError::NotWritten(reason.to_owned())
        };
        Self { reply: self.reply, result: Err(error) }
    }

    /// Sends it.
    pub fn send(self) {
        (self.reply)(self.result);
    }
}
