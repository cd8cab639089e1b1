//! What the server counts: connections, bytes, and how far each subscriber has come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use quipu_types::Position;

/// The counters of one server.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) connections: AtomicUsize,
    pub(crate) connections_total: AtomicU64,
    /// Those being told that they are too many.
    pub(crate) refusals: AtomicUsize,
    pub(crate) refused_total: AtomicU64,
    /// How often the system refused to accept a connection.
    pub(crate) accept_failures: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) streams: AtomicUsize,
    subscribers: Mutex<HashMap<u64, Arc<AtomicU64>>>,
    next_subscriber: AtomicU64,
}

impl Meter {
    pub(crate) fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Counts something until the guard is dropped.
    pub(crate) fn count(self: &Arc<Self>, what: fn(&Self) -> &AtomicUsize) -> Counted {
        let before = what(self).fetch_add(1, Ordering::Relaxed);
        Counted { meter: Arc::clone(self), what, before }
    }

    pub(crate) fn subscribe(self: &Arc<Self>, after: Position) -> Subscriber {
        let place = Arc::new(AtomicU64::new(after.0));
        let number = self.next_subscriber.fetch_add(1, Ordering::Relaxed);
        self.subscribers.lock().insert(number, Arc::clone(&place));
        Subscriber { meter: Arc::clone(self), number, place }
    }

    pub(crate) fn subscribers(&self) -> usize {
        self.subscribers.lock().len()
    }

    /// How far the last of the subscribers is behind.
    pub(crate) fn lag_max(&self, end: Position) -> u64 {
        let places = self.subscribers.lock();
        let lags = places.values().map(|it| end.0.saturating_sub(it.load(Ordering::Relaxed)));
        lags.max().unwrap_or(0)
    }
}

/// One of what is counted.
pub(crate) struct Counted {
    meter: Arc<Meter>,
    what: fn(&Meter) -> &AtomicUsize,
    /// How many there were before it.
    pub(crate) before: usize,
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.what)(&self.meter).fetch_sub(1, Ordering::Relaxed);
    }
}

/// A subscriber's place, known to the meter until it is dropped.
pub(crate) struct Subscriber {
    meter: Arc<Meter>,
    number: u64,
    place: Arc<AtomicU64>,
}

impl Subscriber {
    pub(crate) fn is_at(&self, after: Position) {
        self.place.store(after.0, Ordering::Relaxed);
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.meter.subscribers.lock().remove(&self.number);
    }
}
