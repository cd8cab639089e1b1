//! A host's code, called by the log: the wakers of its tasks, and its replies.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Calls it. One that panics must not take the log's thread with it, nor who is called next.
pub(crate) fn call_host(call: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(call)).is_err() {
        tracing::error!("a host's waker, or what hears an answer, panicked");
    }
}

/// Wakes them all.
pub(crate) fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        call_host(|| waker.wake());
    }
}
