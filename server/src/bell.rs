//! One wake-up of the log for all that is submitted by connections which are ready together.

use std::sync::Arc;

use quipu_engine::EventLog;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Wakes the log for whoever rings, until it is dropped.
pub(crate) struct Bell {
    rung: Arc<Notify>,
    _ends: DropGuard,
}

impl Bell {
    /// The bell of a log, on the runtime that this is called on.
    pub(crate) fn of(log: Arc<EventLog>) -> Self {
        let (rung, end) = (Arc::<Notify>::default(), CancellationToken::new());
        let toll = toll(log, Arc::clone(&rung));
        tokio::spawn(end.clone().run_until_cancelled_owned(toll));
        Self { rung, _ends: end.drop_guard() }
    }

    /// An append was submitted quietly.
    pub(crate) fn ring(&self) {
        self.rung.notify_one();
    }
}

async fn toll(log: Arc<EventLog>, rung: Arc<Notify>) {
    let toll = Toll(log);
    loop {
        rung.notified().await;
        // Behind the tasks that are ready now: connections among them may bring appends, too.
        yield_now().await;
        toll.0.wake();
    }
}

/// Nothing stays held back when the bell ends: a runtime may end at any await.
struct Toll(Arc<EventLog>);

impl Drop for Toll {
    fn drop(&mut self) {
        self.0.wake();
    }
}
