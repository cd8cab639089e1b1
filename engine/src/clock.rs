//! Time and randomness, as parameters: the only place that asks the system for either.
#![expect(clippy::disallowed_methods, reason = "this module is the clock and randomness boundary")]

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quipu_types::{Timestamp, Uuid};

/// What time it is.
pub trait Clock: Send + Sync {
    /// The wall clock. It may jump; nothing is ordered by it.
    fn now(&self) -> Timestamp;
    /// Time since some fixed moment; never goes back.
    fn monotonic(&self) -> Duration;
}

/// Where ids come from that must differ every time.
pub trait Entropy: Send + Sync {
    /// A fresh random UUID.
    fn uuid(&self) -> Uuid;
}

/// The system's clock and randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_micros()).unwrap_or(i64::MAX),
        };
        Timestamp::from_micros(micros)
    }

    fn monotonic(&self) -> Duration {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed()
    }
}

impl Entropy for System {
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }
}
