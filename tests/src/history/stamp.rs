//! When something happened, for all processes of this machine alike.

use std::fmt;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A moment, in nanoseconds of the machine's monotonic clock: one order for all its processes. Two
/// equal ones are taken as concurrent.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Before everything.
    pub const FIRST: Self = Self(0);
    /// After everything: what was never answered has this for its end.
    pub const NEVER: Self = Self(u64::MAX);

    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let (seconds, nanos) = (now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs());
        Self(seconds * 1_000_000_000 + nanos)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NEVER => f.write_str("never"),
            Self(nanos) => write!(f, "{}.{:06} ms", nanos / 1_000_000, nanos % 1_000_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on() {
        let (first, second) = (Stamp::now(), Stamp::now());
        assert!(Stamp::FIRST < first && first <= second && second < Stamp::NEVER);
    }
}
