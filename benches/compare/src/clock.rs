//! The clock of the measurements: no log is behind a seam here.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time itself")]

use std::time::{Duration, Instant, SystemTime};

/// Now, for durations.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Microseconds since 1970.
pub(crate) fn unix_us() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

/// Lets the time pass, where nobody tells when something is ready.
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
