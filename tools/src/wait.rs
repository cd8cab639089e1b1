//! Time, and waiting for a future but not for ever: the command line has no async runtime.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, ready};
use quipu_engine::clock::{Clock, System};

/// How often a log is looked at that another process writes.
pub(crate) const REFRESH_EVERY: Duration = Duration::from_millis(50);

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The time since some fixed moment; never goes back.
pub(crate) fn now() -> Duration {
    System.monotonic()
}

/// The time since an earlier [`now`].
pub(crate) fn since(earlier: Duration) -> Duration {
    now().saturating_sub(earlier)
}

/// Begins what a future does, here and now, rather than when somebody waits for it.
pub(crate) fn begun<'a, T: Send + 'a>(mut future: BoxFuture<'a, T>) -> BoxFuture<'a, T> {
    match (&mut future).now_or_never() {
        Some(output) => ready(output).boxed(),
        None => future,
    }
}

/// Waits for a future until [`now`] reaches `deadline`; `None` is too late, and the future can be
/// waited for again.
pub(crate) fn until<F: Future>(mut future: Pin<&mut F>, deadline: Duration) -> Option<F::Output> {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        let left = deadline.checked_sub(now()).filter(|left| !left.is_zero())?;
        std::thread::park_timeout(left);
    }
}

/// Waits until [`now`] reaches `deadline`.
pub(crate) fn pause_until(deadline: Duration) {
    until(std::pin::pin!(std::future::pending::<()>()), deadline);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_is_never_ready_is_given_up_at_the_deadline_and_not_before() {
        let deadline = now() + Duration::from_millis(20);
        pause_until(deadline);
        assert!(now() >= deadline);
    }

    #[test]
    fn a_future_that_wakes_from_another_thread_is_waited_for() {
        let (sender, receiver) = futures::channel::oneshot::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || sender.send(7));
            let answer = until(std::pin::pin!(receiver), now() + Duration::from_mins(1));
            assert_eq!(answer, Some(Ok(7)));
        });
    }
}
