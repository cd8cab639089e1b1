//! What asks a command that runs on and on to stop.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

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

    /// The next of either.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
