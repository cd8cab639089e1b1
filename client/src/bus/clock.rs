//! The clock of handlers: how long they take, and when something is due.
#![expect(clippy::disallowed_methods, reason = "the clock of hosts that have no engine")]

use std::time::Instant;

/// Now.
pub(super) fn now() -> Instant {
    Instant::now()
}
