//! What asks a command that runs on and on to stop.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::failure::Failure;

/// A signal that follows so soon was meant as one with the first.
const SAME_AGAIN: Duration = Duration::from_millis(500);

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on they are heard, and no longer end the process.
    pub(crate) fn new() -> Result<Self, Failure> {
        let take = |kind| {
            let cannot = |error| Failure::Unreachable(format!("cannot take signals: {error}"));
            signal(kind).map_err(cannot)
        };
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Self { terminate: take(terminate)?, interrupt: take(interrupt)? })
    }

    /// One more, after the first: not the same again, that came to the process and to its group.
    pub(crate) async fn another(&mut self) {
        let again = Instant::now() + SAME_AGAIN;
        loop {
            self.next().await;
            if Instant::now() >= again {
                return;
            }
        }
    }

    /// The next of either.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
