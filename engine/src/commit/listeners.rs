//! Tasks that wait for something that all of them are told of.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use crate::host;
use crate::sync::Mutex;

/// Who waits.
///
/// Invariants:
/// 1. A listener resolves once all have been woken after it was made, and no sooner.
/// 2. Wakers are a host's code and may come back here: none is cloned, woken or dropped under the
///    lock.
#[derive(Default)]
pub struct Listeners {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How often all were woken.
    wakes: u64,
    next_ticket: u64,
    /// Of the tasks that wait, by ticket.
    wakers: BTreeMap<u64, Waker>,
}

impl Listeners {
    /// Wakes all who listen.
    pub fn wake_all(&self) {
        let mut state = self.state.lock();
        state.wakes += 1;
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        host::wake_all(wakers.into_values());
    }

    /// Resolves at the next [`Self::wake_all`] after this call.
    pub fn listen(&self) -> Listener {
        let made_after = self.state.lock().wakes;
        Listener { state: Arc::clone(&self.state), made_after, ticket: None }
    }
}

/// Resolves when all who listen are woken.
#[must_use = "it only listens, and does not wait by itself"]
pub struct Listener {
    state: Arc<Mutex<State>>,
    made_after: u64,
    /// Taken when it is first polled in vain.
    ticket: Option<u64>,
}

impl Future for Listener {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let waker = context.waker().clone();
        let listeners = Arc::clone(&self.state);
        let mut state = listeners.lock();
        if state.wakes != self.made_after {
            drop(state);
            return Poll::Ready(());
        }
        let replaced = state.put(&mut self.ticket, waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let waker = self.state.lock().wakers.remove(&ticket);
        drop(waker);
    }
}

impl State {
    /// Keeps a task's waker; gives back the one it had before.
    fn put(&mut self, ticket: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let ticket = *ticket.get_or_insert_with(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        self.wakers.insert(ticket, waker)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    fn poll(listener: &mut Listener, waker: &Waker) -> Poll<()> {
        Pin::new(listener).poll(&mut Context::from_waker(waker))
    }

    /// As of an executor that runs its tasks at once: listens anew, and lets go of another
    /// listener, when it is woken; and looks here when it is dropped.
    struct Reentrant {
        listeners: Arc<Listeners>,
        other: Mutex<Option<Listener>>,
        woken: Arc<AtomicUsize>,
    }

    impl Reentrant {
        fn of(listeners: &Arc<Listeners>, woken: &Arc<AtomicUsize>) -> Waker {
            let mut other = listeners.listen();
            assert!(poll(&mut other, Waker::noop()).is_pending());
            let (listeners, woken) = (Arc::clone(listeners), Arc::clone(woken));
            Waker::from(Arc::new(Self { listeners, other: Mutex::new(Some(other)), woken }))
        }

        fn come_back(&self) {
            assert!(!self.listeners.state.is_locked(), "called under the lock");
            assert!(poll(&mut self.listeners.listen(), Waker::noop()).is_pending());
        }
    }

    impl Wake for Reentrant {
        fn wake(self: Arc<Self>) {
            self.come_back();
            drop(self.other.lock().take());
            self.woken.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Drop for Reentrant {
        fn drop(&mut self) {
            self.come_back();
        }
    }

    #[test]
    fn who_is_woken_may_listen_anew_and_let_others_go() {
        let (listeners, woken) = (Arc::<Listeners>::default(), Arc::default());
        let mut all: Vec<Listener> = (0..3).map(|_| listeners.listen()).collect();
        for listener in &mut all {
            assert!(poll(listener, &Reentrant::of(&listeners, &woken)).is_pending());
            // A second look replaces the first waker.
            assert!(poll(listener, &Reentrant::of(&listeners, &woken)).is_pending());
        }
        listeners.wake_all();
        assert_eq!(woken.load(Ordering::Relaxed), 3, "each once");
        for mut listener in all {
            assert!(poll(&mut listener, Waker::noop()).is_ready());
        }
        assert!(listeners.state.lock().wakers.is_empty());
    }

    #[test]
    fn a_waker_that_panics_keeps_nobody_else_from_being_woken() {
        struct Panicking;
        impl Wake for Panicking {
            fn wake(self: Arc<Self>) {
                panic!("as a host's waker may");
            }
        }
        let (listeners, woken) = (Arc::<Listeners>::default(), Arc::default());
        let panicking = Waker::from(Arc::new(Panicking));
        for round in 1..=2 {
            let (mut first, mut second) = (listeners.listen(), listeners.listen());
            assert!(poll(&mut first, &panicking).is_pending());
            assert!(poll(&mut second, &Reentrant::of(&listeners, &woken)).is_pending());
            listeners.wake_all();
            assert_eq!(woken.load(Ordering::Relaxed), round);
        }
    }

    #[test]
    fn who_lets_go_is_forgotten_and_who_comes_later_waits_for_the_next() {
        let (listeners, woken) = (Arc::<Listeners>::default(), Arc::default());
        let mut gone = listeners.listen();
        assert!(poll(&mut gone, &Reentrant::of(&listeners, &woken)).is_pending());
        drop(gone);
        assert!(listeners.state.lock().wakers.is_empty());
        listeners.wake_all();
        assert_eq!(woken.load(Ordering::Relaxed), 0);
        let mut late = listeners.listen();
        assert!(poll(&mut late, Waker::noop()).is_pending());
        let mut early = listeners.listen();
        listeners.wake_all();
        assert!(poll(&mut late, Waker::noop()).is_ready());
        assert!(poll(&mut early, Waker::noop()).is_ready(), "also where it was not polled before");
    }
}
