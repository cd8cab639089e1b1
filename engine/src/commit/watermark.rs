//! The position up to which the log is durable and visible.

use event_listener::{Event, EventListener};
use quipu_types::Position;

use crate::sync::{AtomicU64, Ordering};

/// Durable and visible up to here.
///
/// Invariants:
/// 1. It never goes back.
/// 2. Everything up to it is durable, and readers find it: segments publish before it advances.
pub struct CommitWatermark {
    position: AtomicU64,
    advanced: Event,
}

impl CommitWatermark {
    /// A watermark at `position`.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self { position: AtomicU64::new(position.0), advanced: Event::new() }
    }

    /// Where it stands.
    pub fn current(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// Moves it forward and wakes all who wait.
    pub fn advance(&self, to: Position) {
        let before = self.position.fetch_max(to.0, Ordering::Release);
        if before < to.0 {
            self.advanced.notify(usize::MAX);
        }
    }

    /// Wakes all who wait although nothing advanced, to see that the log is closed.
    pub fn wake(&self) {
        self.advanced.notify(usize::MAX);
    }

    /// Resolves at the next advance after this call. Look at [`Self::current`] in between: an
    /// advance before this call is not told.
    pub fn listen(&self) -> EventListener {
        self.advanced.listen()
    }
}
