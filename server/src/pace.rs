//! How fast bytes must move: slow is allowed, but not without end, and less so where the bytes hold
//! room that others wait for.

use std::time::Duration;

/// Whoever holds what others wait for must be so many times as fast.
const HASTE: usize = 16;

/// Bytes that move in a window of time spent waiting for them.
pub(crate) struct Pace {
    within: Duration,
    least: usize,
    waited: Duration,
    moved: usize,
}

/// Too few bytes have moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{moved} bytes in {within:?}, where at least {least} must move")]
pub(crate) struct TooSlow {
    moved: usize,
    within: Duration,
    least: usize,
}

impl Pace {
    /// At least so many bytes in each such time.
    pub(crate) fn new(within: Duration, least: usize) -> Self {
        Self { within, least, waited: Duration::ZERO, moved: 0 }
    }

    /// What is left of the window.
    pub(crate) fn left(&self) -> Duration {
        self.within.saturating_sub(self.waited)
    }

    /// What moved has arrived whole.
    pub(crate) fn reset(&mut self) {
        (self.waited, self.moved) = (Duration::ZERO, 0);
    }

    /// Counts what moved in a time, and looks at the window if it is over.
    pub(crate) fn count(
        &mut self,
        waited: Duration,
        moved: usize,
        in_the_way: impl FnOnce() -> bool,
    ) -> Result<(), TooSlow> {
        self.waited += waited;
        self.moved += moved;
        if self.waited < self.within {
            return Ok(());
        }
        let least = if in_the_way() { self.least.saturating_mul(HASTE) } else { self.least };
        let slow = TooSlow { moved: self.moved, within: self.within, least };
        self.reset();
        if slow.moved < least { Err(slow) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_is_allowed_unless_it_is_in_the_way() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(5 * second, 100);
        for _ in 0..20 {
            assert_eq!(pace.count(second, 20, || false), Ok(()));
        }
        assert_eq!(pace.count(4 * second, 99, || true), Ok(()), "the window is not over");
        let slow = pace.count(second, 0, || false).unwrap_err();
        assert_eq!(slow.to_string(), "99 bytes in 5s, where at least 100 must move");
        assert_eq!(pace.count(5 * second, 1_599, || true).unwrap_err().least, 1_600);
        pace.count(4 * second, 0, || false).unwrap();
        pace.reset();
        assert_eq!(pace.count(4 * second, 0, || false), Ok(()), "it begins anew");
    }
}
