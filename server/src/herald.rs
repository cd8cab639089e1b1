//! One task that tells all followers that the log has advanced: the thread that completes a group
//! wakes one waker, however many follow.

use std::sync::Arc;
use std::time::Duration;

use quipu_engine::EventLog;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::meter::Meter;

/// Between two rounds each follower leaves the appends so much time…
const PAUSE_FOR_EACH: Duration = Duration::from_micros(20);
/// …but fewer than fifty are told at once: timers are no finer…
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// …and nobody waits longer for an event that is there.
const PAUSE_MAX: Duration = Duration::from_millis(10);

/// Tells of every advance, and of the log's closing, until it is dropped.
pub(crate) struct Herald {
    news: Arc<Notify>,
    _ends: DropGuard,
}

impl Herald {
    /// A herald of a log, on the runtime that this is called on.
    pub(crate) fn of(log: Arc<EventLog>, meter: Arc<Meter>) -> Self {
        let (news, end) = (Arc::new(Notify::new()), CancellationToken::new());
        let round = proclaim(log, meter, Arc::clone(&news));
        tokio::spawn(end.clone().run_until_cancelled_owned(round));
        Self { news, _ends: end.drop_guard() }
    }

    /// Resolves once there is news. Take it before looking: an advance after this call is told.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.news.notified()
    }
}

async fn proclaim(log: Arc<EventLog>, meter: Arc<Meter>, news: Arc<Notify>) {
    loop {
        // Taken before the round, so that an advance during it or the pause makes the next one.
        let advanced = log.shared().watermark.listen();
        news.notify_waiters();
        let crowd = u32::try_from(meter.subscribers()).unwrap_or(u32::MAX);
        let pause = PAUSE_FOR_EACH.saturating_mul(crowd).min(PAUSE_MAX);
        if pause >= PAUSE_MIN {
            sleep(pause).await;
        }
        advanced.await;
    }
}
