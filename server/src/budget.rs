//! Bytes that may be held at once, by one connection and by all: whoever wants more waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that may be held at once; first come, first served.
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    limit: u32,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        let limit = u32::try_from(bytes).unwrap_or(u32::MAX).max(1);
        Self { left: Arc::new(Semaphore::new(limit as usize)), limit }
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> usize {
        (self.limit as usize).saturating_sub(self.left.available_permits())
    }

    /// What is larger than all there is takes all there is: nothing waits for ever.
    async fn hold(&self, bytes: usize) -> OwnedSemaphorePermit {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limit);
        let held = Arc::clone(&self.left).acquire_many_owned(bytes).await;
        held.expect("a budget is never closed")
    }
}

/// One connection's budget within that of all.
pub(crate) struct Purse {
    own: Budget,
    shared: Arc<Budget>,
}

impl Purse {
    pub(crate) fn new(bytes: usize, shared: &Arc<Budget>) -> Self {
        Self { own: Budget::new(bytes), shared: Arc::clone(shared) }
    }

    /// Waits until so many bytes may be held.
    pub(crate) async fn charge(&self, bytes: usize) -> Charge {
        let own = self.own.hold(bytes).await;
        Charge { own, shared: self.shared.hold(bytes).await }
    }
}

/// Bytes that are held until it is dropped.
pub(crate) struct Charge {
    own: OwnedSemaphorePermit,
    shared: OwnedSemaphorePermit,
}

impl Charge {
    /// Gives back what turned out not to be needed.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        for held in [&mut self.own, &mut self.shared] {
            let more = held.num_permits().saturating_sub(bytes);
            drop(held.split(more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_held_comes_back_and_the_largest_takes_all() {
        let all = Arc::new(Budget::new(100));
        let purse = Purse::new(50, &all);
        let mut charge = purse.charge(1_000).await;
        assert_eq!((purse.own.held(), all.held()), (50, 100));
        charge.shrink_to(20);
        assert_eq!((purse.own.held(), all.held()), (20, 20));
        let more = tokio::time::timeout(std::time::Duration::from_millis(5), purse.charge(31));
        assert!(more.await.is_err(), "31 more do not fit");
        assert_eq!((purse.own.held(), all.held()), (20, 20));
        drop((charge, purse.charge(30).await));
        assert_eq!((purse.own.held(), all.held()), (0, 0));
    }
}
