//! A log's folder in memory: for tests that open thousands of logs, each broken in its own way.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use quipu_client::MemoryStorage;
use quipu_engine::storage::ReadOrder;
use quipu_engine::{Clock, Entropy, Environment, Storage};
use quipu_types::{Timestamp, Uuid};

/// Files in memory. A clone is the same folder, [`MemoryDisk::copy`] another one.
#[derive(Clone, Default)]
pub struct MemoryDisk(MemoryStorage);

impl Deref for MemoryDisk {
    type Target = MemoryStorage;

    fn deref(&self) -> &MemoryStorage {
        &self.0
    }
}

impl MemoryDisk {
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(self.0.copy())
    }

    pub fn names(&self) -> Vec<String> {
        let files = self.0.list().expect("a folder in memory lists its files");
        files.into_iter().map(|file| file.name).collect()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        self.0
            .map(name, ReadOrder::Sequential)
            .expect("the test names a file that is there")
            .to_vec()
    }

    pub fn put(&self, name: &str, content: &[u8]) {
        self.0.write_atomic(name, content).expect("a folder in memory takes everything");
    }

    /// Not for a log that is open: it goes on with the file as it was.
    pub fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.content(name);
        change(&mut content);
        self.put(name, &content);
    }

    /// This disk with a clock and ids that are the same in every run.
    pub fn environment(&self) -> Environment {
        environment(Arc::new(self.0.clone()), Arc::new(SetClock::default()))
    }
}

/// A disk with a clock of the test's, and ids that are the same in every run.
pub fn environment(storage: Arc<dyn Storage>, clock: Arc<SetClock>) -> Environment {
    Environment { storage, clock, entropy: Arc::new(CountedIds::default()) }
}

/// A clock that stands still until the test sets it.
pub struct SetClock(AtomicI64);

impl Default for SetClock {
    fn default() -> Self {
        Self(AtomicI64::new(1_767_323_045_000_000))
    }
}

impl SetClock {
    pub fn advance(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed).unsigned_abs())
    }
}

/// Ids that differ, in a fixed order.
#[derive(Default)]
pub struct CountedIds(AtomicU64);

impl Entropy for CountedIds {
    fn uuid(&self) -> Uuid {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        // Spread over all 16 bytes, so that a byte order that is wrong shows.
        Uuid::from_u128(u128::from(number) * 0x0123_4567_89ab_4def_8123_4567_89ab_cdef)
    }
}
