//! One wake-up of the log for all that is submitted by connections which are ready together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quipu_engine::EventLog;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Wakes the log for whoever rings, until it is dropped.
pub(crate) struct Bell {
    log: Arc<EventLog>,
    rope: Arc<Rope>,
    _ends: DropGuard,
}

#[derive(Default)]
struct Rope {
    rung: Notify,
    /// Nobody listens any more: whoever rings wakes the log.
    is_deaf: AtomicBool,
}

impl Bell {
    /// The bell of a log, on the runtime that this is called on.
    pub(crate) fn of(log: Arc<EventLog>) -> Self {
        let (rope, end) = (Arc::<Rope>::default(), CancellationToken::new());
        let toll = Toll { log: Arc::clone(&log), rope: Arc::clone(&rope) };
        tokio::spawn(end.clone().run_until_cancelled_owned(toll.on()));
        Self { log, rope, _ends: end.drop_guard() }
    }

    /// An append was submitted quietly.
    pub(crate) fn ring(&self) {
        self.rope.rung.notify_one();
        // The log's lock orders this: what was submitted after its last wake-up sees the flag.
        if self.rope.is_deaf.load(Ordering::Acquire) {
            self.log.wake();
        }
    }
}

/// Nothing stays held back when it ends: a runtime may end at any await, while its other threads
/// still submit.
struct Toll {
    log: Arc<EventLog>,
    rope: Arc<Rope>,
}

impl Toll {
    async fn on(self) {
        loop {
            self.rope.rung.notified().await;
            // Behind the tasks that are ready now: connections among them may bring appends, too.
            yield_now().await;
            self.log.wake();
        }
    }
}

impl Drop for Toll {
    fn drop(&mut self) {
        self.rope.is_deaf.store(true, Ordering::Release);
        self.log.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use quipu_engine::Origin;
    use quipu_types::{AggregateKey, Append, NewEvent, Timestamp, Uuid};
    use tokio::runtime::Runtime;

    use super::*;
    use crate::testing::log;

    #[test]
    fn what_is_submitted_while_the_runtime_ends_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(log(&folder));
        let (ending, staying) = (Runtime::new().unwrap(), Runtime::new().unwrap());
        let bell = ending.block_on(async { Bell::of(Arc::clone(&log)) });
        drop(ending);
        let (key, at) = (AggregateKey::new("T", "1"), Timestamp::from_micros(1));
        let event = NewEvent::json(Uuid::from_u128(1), key, "Made", at, "{}");
        let append = log.prepare(&Append::any(vec![event]), Origin::Client).unwrap();
        let (sender, answer) = channel();
        let reply = Box::new(move |it: Result<_, _>| sender.send(it.is_ok()).unwrap());
        staying.block_on(log.submit(append, reply).unwrap().quiet()).unwrap();
        bell.ring();
        assert_eq!(answer.recv_timeout(Duration::from_secs(20)), Ok(true), "nobody heard it");
    }
}
