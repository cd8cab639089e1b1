//! A clock that stalls and jumps, and randomness from a seed.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use quipu_engine::{Clock, Entropy};
use quipu_types::{Timestamp, Uuid};

/// A clock that moves only when told to.
#[derive(Clone, Default)]
pub struct SimClock {
    now: Arc<Mutex<(i64, Duration)>>,
}

impl SimClock {
    /// Moves both clocks; the wall clock may jump either way.
    pub fn advance(&self, micros: u64, wall_jump: i64) {
        let mut now = self.now.lock();
        now.1 += Duration::from_micros(micros);
        now.0 = now.0.saturating_add_unsigned(micros).saturating_add(wall_jump);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.lock().0)
    }

    fn monotonic(&self) -> Duration {
        self.now.lock().1
    }
}

/// UUIDs from a seed.
pub struct SimEntropy {
    rng: Mutex<Rng>,
    /// Always the same one.
    stuck: bool,
}

impl SimEntropy {
    pub fn new(seed: u64, stuck: bool) -> Self {
        Self { rng: Mutex::new(Rng::with_seed(seed)), stuck }
    }
}

impl Entropy for SimEntropy {
    fn uuid(&self) -> Uuid {
        let fresh = self.rng.lock().u128(1..);
        Uuid::from_u128(if self.stuck { 1 } else { fresh })
    }
}
