//! The position up to which the log is durable and visible.

use quipu_types::Position;

use super::listeners::{Listener, Listeners};
use crate::sync::{AtomicU64, Ordering};

/// Durable and visible up to here.
///
/// Invariants:
/// 1. It never goes back.
/// 2. Everything up to it is durable, and readers find it: segments publish before it advances.
/// 3. Wakers are a host's code: whoever moves it wakes those who wait later, under no lock.
pub struct CommitWatermark {
    position: AtomicU64,
    advanced: Listeners,
}

impl CommitWatermark {
    /// A watermark at `position`.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self { position: AtomicU64::new(position.0), advanced: Listeners::default() }
    }

    /// Where it stands.
    pub fn current(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// Moves it forward; [`Self::wake`] tells those who wait.
    pub fn advance(&self, to: Position) {
        self.position.fetch_max(to.0, Ordering::Release);
    }

    /// Wakes all who wait: it has advanced, or the log is closed or damaged.
    pub fn wake(&self) {
        self.advanced.wake_all();
    }

    /// Resolves at the next [`Self::wake`] after this call. Look at [`Self::current`] in between:
    /// one before this call is not told.
    pub fn listen(&self) -> Listener {
        self.advanced.listen()
    }
}
