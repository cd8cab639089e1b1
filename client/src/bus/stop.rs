//! The wish that something ends: seen by all who look, awaited by all who wait.

use std::sync::atomic::{AtomicBool, Ordering};

use event_listener::Event;

/// Set once, for good.
#[derive(Default)]
pub(super) struct Stop {
    is_set: AtomicBool,
    event: Event,
}

impl Stop {
    pub(super) fn set(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        self.event.notify(usize::MAX);
    }

    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::SeqCst)
    }

    /// Resolves when it is set.
    pub(super) async fn wait(&self) {
        while !self.is_set() {
            let listener = self.event.listen();
            // Looked at again: what was set before the listener was there woke nobody.
            if self.is_set() {
                return;
            }
            listener.await;
        }
    }
}
