//! Buffers of large groups, used again and again: fresh memory costs a page fault every 4 KiB,
//! which was a seventh of all time with appends of 100.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::format::BlockBuffer;

/// Buffers kept for use at once; the others are in groups that readers may still ask for.
const IDLE_MAX: usize = 16;

/// Buffers of one size.
pub struct BlockPool {
    idle: Mutex<Vec<BlockBuffer>>,
    buffer_bytes: usize,
}

impl BlockPool {
    /// A pool of buffers of this size.
    #[must_use]
    pub fn new(buffer_bytes: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), buffer_bytes })
    }

    /// An empty buffer with room for `bytes`. A small one is not of the pool: a group stays in
    /// memory for readers, and its buffer with it.
    #[must_use]
    pub fn take(&self, bytes: usize) -> BlockBuffer {
        if 2 * bytes < self.buffer_bytes {
            return BlockBuffer::with_capacity(bytes);
        }
        let mut buffer = self.idle.lock().pop().unwrap_or_default();
        buffer.reserve(bytes.max(self.buffer_bytes));
        buffer
    }

    /// Shares a filled buffer; when its last reader is gone it comes back, if it is of the pool. A
    /// buffer that is mostly empty is exchanged for one that fits.
    #[must_use]
    pub fn share(self: &Arc<Self>, mut buffer: BlockBuffer) -> Bytes {
        if 2 * buffer.len() < buffer.capacity() {
            let mut fitting = BlockBuffer::with_capacity(buffer.len());
            fitting.extend_from_slice(&buffer);
            self.give_back(std::mem::replace(&mut buffer, fitting));
        }
        Bytes::from_owner(Shared { buffer, pool: Arc::downgrade(self) })
    }

    /// Keeps a buffer of the pool's size for the next who asks.
    fn give_back(&self, mut buffer: BlockBuffer) {
        let mut idle = self.idle.lock();
        let of_pool = (self.buffer_bytes..=2 * self.buffer_bytes).contains(&buffer.capacity());
        if of_pool && idle.len() < IDLE_MAX {
            buffer.clear();
            idle.push(buffer);
        }
    }
}

struct Shared {
    buffer: BlockBuffer,
    pool: Weak<BlockPool>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give_back(std::mem::take(&mut self.buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_comes_back_and_a_small_one_is_not_of_the_pool() {
        let pool = BlockPool::new(1 << 16);
        let mut buffer = pool.take(1 << 16);
        buffer.resize(1 << 16, 7);
        let address = buffer.as_ptr();
        let shared = pool.share(buffer);
        assert_eq!(shared[5], 7);
        let reader = shared.clone();
        drop(shared);
        assert!(pool.idle.lock().is_empty(), "a reader has it");
        drop(reader);
        let again = pool.take(1 << 15);
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
        drop(pool.share(pool.take(100)));
        assert!(pool.idle.lock().is_empty());
    }

    #[test]
    fn a_large_buffer_with_little_in_it_does_not_stay_with_the_group() {
        let pool = BlockPool::new(1 << 16);
        let mut buffer = pool.take(1 << 16);
        buffer.extend_from_slice(b"small");
        let shared = pool.share(buffer);
        assert_eq!(&shared[..], b"small");
        assert_eq!(pool.idle.lock().len(), 1, "the large one is back at once");
    }
}
