//! One task that tells all followers that the log has advanced: the thread that completes a group
//! wakes one waker, however many follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quipu_engine::EventLog;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::meter::Meter;

/// Followers are told a lane at a time: what comes in need not wait until all have been served.
const LANES: u32 = 32;
/// For each follower that was told, the appends are left so much time…
const PAUSE_FOR_EACH: Duration = Duration::from_micros(40);
/// …once it comes to this: timers are no finer…
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// …and nobody waits longer in all for an event that is there.
const PAUSES_MAX: Duration = Duration::from_millis(10);

/// Tells of every advance, and of the log's closing, until it is dropped.
pub(crate) struct Herald {
    lanes: Arc<[Notify]>,
    joined: AtomicUsize,
    _ends: DropGuard,
}

impl Herald {
    /// A herald of a log, on the runtime that this is called on.
    pub(crate) fn of(log: Arc<EventLog>, meter: Arc<Meter>) -> Self {
        let lanes: Arc<[Notify]> = (0..LANES).map(|_| Notify::new()).collect();
        let end = CancellationToken::new();
        let rounds = proclaim(log, meter, Arc::clone(&lanes));
        tokio::spawn(end.clone().run_until_cancelled_owned(rounds));
        Self { lanes, joined: AtomicUsize::new(0), _ends: end.drop_guard() }
    }

    /// A lane for one more follower, each in its turn.
    pub(crate) fn join(&self) -> Lane {
        let index = self.joined.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        Lane { lanes: Arc::clone(&self.lanes), index }
    }
}

/// Where a follower is told.
pub(crate) struct Lane {
    lanes: Arc<[Notify]>,
    index: usize,
}

impl Lane {
    /// Resolves once there is news. Take it before looking: an advance after this call is told.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.lanes[self.index].notified()
    }
}

async fn proclaim(log: Arc<EventLog>, meter: Arc<Meter>, lanes: Arc<[Notify]>) {
    loop {
        // Taken before the round, so that an advance during it makes the next one.
        let advanced = log.shared().watermark.listen();
        tell(&lanes, meter.subscribers()).await;
        advanced.await;
    }
}

async fn tell(lanes: &[Notify], followers: usize) {
    let followers = u32::try_from(followers).unwrap_or(u32::MAX);
    let pauses = PAUSE_FOR_EACH.saturating_mul(followers).min(PAUSES_MAX);
    let mut due = Duration::ZERO;
    for lane in lanes {
        lane.notify_waiters();
        due += pauses / LANES;
        if due >= PAUSE_MIN {
            sleep(std::mem::take(&mut due)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::yield_now;
    use tokio::time::Instant;

    use super::*;

    /// After what time each lane hears of the news.
    async fn told_after(followers: usize) -> Vec<Duration> {
        let lanes: Arc<[Notify]> = (0..LANES).map(|_| Notify::new()).collect();
        let began = Instant::now();
        let hear = |lane: usize| {
            let lanes = Arc::clone(&lanes);
            tokio::spawn(async move {
                lanes[lane].notified().await;
                began.elapsed()
            })
        };
        let heard: Vec<_> = (0..lanes.len()).map(hear).collect();
        yield_now().await;
        tell(&lanes, followers).await;
        let mut told = Vec::new();
        for hearing in heard {
            told.push(hearing.await.unwrap());
        }
        told
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_told_a_part_at_a_time_and_a_few_all_at_once() {
        let at_once = told_after(20).await;
        assert!(at_once.iter().all(Duration::is_zero), "{at_once:?}");
        let in_turn = told_after(100_000).await;
        assert!(in_turn.is_sorted() && in_turn[0] < in_turn[LANES as usize / 2], "{in_turn:?}");
        // Timers count whole milliseconds, upwards.
        assert!(in_turn.iter().all(|it| *it <= 2 * PAUSES_MAX), "{in_turn:?}");
    }
}
