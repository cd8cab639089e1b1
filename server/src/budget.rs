//! Bytes that may be held at once, by one connection and by all: whoever wants more waits. What
//! others hold never keeps a connection from one small message.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::inlet::SMALL_BYTES;
use crate::reader::BESIDE_APPEND_BYTES;

/// What a connection may hold of its own where all others together hold everything: one small
/// message, and what is kept beside it.
const RESERVE_BYTES: usize = SMALL_BYTES + BESIDE_APPEND_BYTES;

/// Bytes that may be held at once; first come, first served.
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    limit: u32,
    /// How many wait for bytes.
    waiting: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let limit = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        let left = Arc::new(Semaphore::new(limit as usize));
        Self { left, limit, waiting: AtomicUsize::new(0) }
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        (self.limit as usize).saturating_sub(self.left.available_permits())
    }

    /// What is larger than all there is takes all there is: nothing waits for ever.
    async fn hold(&self, bytes: usize) -> OwnedSemaphorePermit {
        if let Ok(held) = self.try_hold(bytes) {
            return held;
        }
        let _waiting = Waiting::new(&self.waiting);
        let held = Arc::clone(&self.left).acquire_many_owned(self.bounded(bytes)).await;
        held.expect("a budget is never closed")
    }

    fn try_hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        Arc::clone(&self.left).try_acquire_many_owned(self.bounded(bytes))
    }

    fn bounded(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limit)
    }
}

/// Counts one that waits until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection's budget within that of all.
///
/// Invariants:
/// 1. Each charge is counted in the connection's own budget, and either in that of all or, one at a
///    time and up to [`RESERVE_BYTES`], in the connection's reserve.
/// 2. The reserve is used only where the budget of all has no room.
pub(crate) struct Purse {
    own: Budget,
    shared: Arc<Budget>,
    reserve: Arc<Semaphore>,
    /// Charges that are counted in the budget of all.
    in_shared: Arc<AtomicUsize>,
}

impl Purse {
    pub(crate) fn new(bytes: usize, shared: &Arc<Budget>) -> Self {
        Self {
            own: Budget::new(bytes),
            shared: Arc::clone(shared),
            reserve: Arc::new(Semaphore::new(1)),
            in_shared: Arc::default(),
        }
    }

    /// Waits until so many bytes may be held.
    pub(crate) async fn charge(&self, bytes: usize) -> Charge {
        let own = self.own.hold(bytes).await;
        if bytes > RESERVE_BYTES {
            return self.in_shared(own, bytes, self.shared.hold(bytes).await);
        }
        self.charge_small(own, bytes).await
    }

    /// As [`Self::charge`]; but where others hold everything, and this connection's reserve is
    /// free, no more than that.
    pub(crate) async fn charge_at_most(&self, bytes: usize) -> Charge {
        let own = self.own.hold(bytes).await;
        if let Ok(shared) = self.shared.try_hold(bytes) {
            return self.in_shared(own, bytes, shared);
        }
        let less = bytes.min(RESERVE_BYTES);
        let mut charge = self.charge_small(own, less).await;
        charge.shrink_to(less);
        charge
    }

    /// As [`Self::charge`], but does not wait.
    pub(crate) fn try_charge(&self, bytes: usize) -> Option<Charge> {
        let own = self.own.try_hold(bytes).ok()?;
        let shared = self.shared.try_hold(bytes).ok()?;
        Some(self.in_shared(own, bytes, shared))
    }

    async fn charge_small(&self, own: OwnedSemaphorePermit, bytes: usize) -> Charge {
        if let Ok(shared) = self.shared.try_hold(bytes) {
            return self.in_shared(own, bytes, shared);
        }
        tokio::select! {
            biased;
            reserve = Arc::clone(&self.reserve).acquire_owned() => {
                let reserve = reserve.expect("a reserve is never closed");
                Charge { bytes, own, shared: None, _reserve: Some(reserve) }
            }
            shared = self.shared.hold(bytes) => self.in_shared(own, bytes, shared),
        }
    }

    fn in_shared(
        &self,
        own: OwnedSemaphorePermit,
        bytes: usize,
        shared: OwnedSemaphorePermit,
    ) -> Charge {
        self.in_shared.fetch_add(1, Ordering::Relaxed);
        let shared = Some(InShared { held: shared, count: Arc::clone(&self.in_shared) });
        Charge { bytes, own, shared, _reserve: None }
    }

    /// Whether this connection holds what another one waits for.
    pub(crate) fn is_in_the_way(&self) -> bool {
        self.shared.waiting.load(Ordering::Relaxed) > 0
            && self.in_shared.load(Ordering::Relaxed) > 0
    }
}

/// Bytes that are held until it is dropped.
pub(crate) struct Charge {
    bytes: usize,
    own: OwnedSemaphorePermit,
    shared: Option<InShared>,
    _reserve: Option<OwnedSemaphorePermit>,
}

/// A part of the budget of all.
struct InShared {
    held: OwnedSemaphorePermit,
    count: Arc<AtomicUsize>,
}

impl Drop for InShared {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Charge {
    /// What it was taken for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what turned out not to be needed.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
        let shared = self.shared.as_mut().map(|shared| &mut shared.held);
        for held in [Some(&mut self.own), shared].into_iter().flatten() {
            let more = held.num_permits().saturating_sub(bytes);
            drop(held.split(more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    const SOON: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn what_is_held_comes_back_and_the_largest_takes_all() {
        let all = Arc::new(Budget::new(100));
        let purse = Purse::new(50, &all);
        let mut charge = purse.charge(1_000).await;
        assert_eq!((purse.own.held(), all.held()), (50, 100));
        charge.shrink_to(20);
        assert_eq!((purse.own.held(), all.held(), charge.bytes()), (20, 20, 20));
        assert!(timeout(SOON, purse.charge(31)).await.is_err(), "31 more do not fit");
        assert_eq!((purse.own.held(), all.held()), (20, 20));
        drop((charge, purse.charge(30).await));
        assert_eq!((purse.own.held(), all.held()), (0, 0));
    }

    #[tokio::test]
    async fn whoever_holds_nothing_gets_one_small_message_whatever_others_hold() {
        const PAGE: usize = 4 * RESERVE_BYTES;
        let all = Arc::new(Budget::new(PAGE));
        let (greedy, modest) = (Purse::new(PAGE, &all), Purse::new(PAGE, &all));
        let everything = greedy.charge(PAGE).await;
        assert!(!greedy.is_in_the_way(), "nobody waits");
        let page = timeout(SOON, modest.charge_at_most(PAGE)).await.expect("the reserve");
        assert_eq!((page.bytes(), modest.own.held()), (RESERVE_BYTES, RESERVE_BYTES));
        let second = modest.charge(1);
        let mut second = std::pin::pin!(second);
        assert!(timeout(SOON, &mut second).await.is_err(), "one at a time");
        assert!(greedy.is_in_the_way() && !modest.is_in_the_way());
        drop(page);
        drop(timeout(SOON, second).await.expect("the reserve is free again"));
        let large = modest.charge(RESERVE_BYTES + 1);
        let mut large = std::pin::pin!(large);
        assert!(timeout(SOON, &mut large).await.is_err(), "what is large waits");
        drop(everything);
        timeout(SOON, large).await.expect("there is room again");
        assert_eq!((all.held(), modest.own.held()), (0, 0));
    }
}
