//! Buffers of groups, used again and again: fresh memory costs a page fault every 4 KiB, which was
//! a seventh of all time with appends of 100.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::format::BlockBuffer;

/// Smaller buffers are not of the pool: the allocator has them at hand.
const BUFFER_BYTES_MIN: usize = 32 << 10;
/// Nor are larger ones: groups as large are rare.
const BUFFER_BYTES_MAX: usize = 2 << 20;
/// Buffers kept for use at once; the others are in groups that readers may still ask for.
const IDLE_BYTES_MAX: usize = 16 << 20;

/// Buffers whose sizes are powers of two.
#[derive(Default)]
pub struct BlockPool {
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    buffers: Vec<BlockBuffer>,
    bytes: usize,
}

impl BlockPool {
    /// An empty buffer with room for `bytes`, and for less than twice as many: a group stays in
    /// memory for readers, and its buffer with it.
    #[must_use]
    pub fn take(&self, bytes: usize) -> BlockBuffer {
        if !(BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&bytes) {
            return BlockBuffer::with_capacity(bytes);
        }
        let capacity = bytes.next_power_of_two();
        self.idle.lock().take(capacity).unwrap_or_else(|| BlockBuffer::with_capacity(capacity))
    }

    /// Shares a filled buffer; when its last reader is gone it comes back, if it is of the pool. A
    /// buffer that is mostly empty is exchanged for one that fits.
    #[must_use]
    pub fn share(self: &Arc<Self>, mut buffer: BlockBuffer) -> Bytes {
        if 2 * buffer.len() < buffer.capacity() {
            let mut fitting = self.take(buffer.len());
            fitting.extend_from_slice(&buffer);
            self.give_back(std::mem::replace(&mut buffer, fitting));
        }
        Bytes::from_owner(Shared { buffer, pool: Arc::downgrade(self) })
    }

    fn give_back(&self, mut buffer: BlockBuffer) {
        let bytes = buffer.capacity();
        let of_pool =
            bytes.is_power_of_two() && (BUFFER_BYTES_MIN..=BUFFER_BYTES_MAX).contains(&bytes);
        if of_pool {
            buffer.clear();
            self.idle.lock().keep(buffer);
        }
    }
}

impl Idle {
    fn take(&mut self, capacity: usize) -> Option<BlockBuffer> {
        let at = self.buffers.iter().rposition(|buffer| buffer.capacity() == capacity)?;
        self.bytes -= capacity;
        Some(self.buffers.swap_remove(at))
    }

    /// Keeps a buffer; the oldest goes where there are too many, so that sizes may change.
    fn keep(&mut self, buffer: BlockBuffer) {
        self.bytes += buffer.capacity();
        self.buffers.push(buffer);
        while self.bytes > IDLE_BYTES_MAX {
            self.bytes -= self.buffers.remove(0).capacity();
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
        let pool = Arc::new(BlockPool::default());
        let mut buffer = pool.take(1 << 16);
        buffer.resize(1 << 16, 7);
        let address = buffer.as_ptr();
        let shared = pool.share(buffer);
        assert_eq!(shared[5], 7);
        let reader = shared.clone();
        drop(shared);
        assert!(pool.idle.lock().buffers.is_empty(), "a reader has it");
        drop(reader);
        assert_ne!(pool.take(1 << 15).as_ptr(), address, "another size");
        let again = pool.take((1 << 16) - 5);
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), address);
        drop(pool.share(pool.take(100)));
        assert!(pool.idle.lock().buffers.is_empty());
    }

    #[test]
    fn a_large_buffer_with_little_in_it_does_not_stay_with_the_group() {
        let pool = Arc::new(BlockPool::default());
        let mut buffer = pool.take(1 << 16);
        buffer.extend_from_slice(b"small");
        let shared = pool.share(buffer);
        assert_eq!(&shared[..], b"small");
        assert_eq!(pool.idle.lock().buffers.len(), 1, "the large one is back at once");
    }

    #[test]
    fn no_more_is_kept_than_allowed_and_the_oldest_goes_first() {
        let pool = Arc::new(BlockPool::default());
        for bytes in [BUFFER_BYTES_MAX, BUFFER_BYTES_MIN] {
            let buffers: Vec<BlockBuffer> =
                (0..=IDLE_BYTES_MAX / bytes).map(|_| pool.take(bytes)).collect();
            for mut buffer in buffers {
                buffer.resize(bytes, 1);
                drop(pool.share(buffer));
            }
            let idle = pool.idle.lock();
            assert_eq!(idle.bytes, IDLE_BYTES_MAX);
            assert!(idle.buffers.iter().all(|buffer| buffer.capacity() == bytes));
        }
    }
}
