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

    /// Makes it a failure, whatever it was.
    #[must_use]
    pub fn failed(self, error: AppendError) -> Self {
        Self { reply: self.reply, result: Err(error) }
    }

    /// Whether it says that the append's events are stored, now or before.
    #[must_use]
    pub fn may_be_stored(&self) -> bool {
        self.result.is_ok()
    }

    /// Sends it.
    pub fn send(self) {
        (self.reply)(self.result);
    }
}
