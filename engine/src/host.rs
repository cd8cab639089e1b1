//! A host's code, called by the log: the wakers of its tasks, its replies, and what it does with
//! messages. One that panics must not take the log's thread with it, nor who is called next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Sends a message to the host's log: `tell!(warn, %error, "…")` as with `tracing`. The subscriber
/// is the host's, too: the usual one panics where standard error cannot be written, as on a full
/// disk.
macro_rules! tell {
    ($level:ident, $($message:tt)+) => {
        $crate::host::quietly(|| tracing::$level!($($message)+))
    };
}
pub(crate) use tell;

/// Calls a host's code, and says whether it panicked.
fn has_panicked(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_err()
}

/// Calls it; nobody could be told that it panicked.
pub(crate) fn quietly(call: impl FnOnce()) {
    has_panicked(call);
}

/// Calls it.
pub(crate) fn call_host(call: impl FnOnce()) {
    if has_panicked(call) {
        tell!(error, "a host's waker, or what hears an answer, panicked");
    }
}

/// Wakes them all.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        call_host(|| waker.wake());
    }
}
