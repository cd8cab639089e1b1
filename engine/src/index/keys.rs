//! The keyed hash under which aggregates and correlation ids are indexed.

use std::hash::Hasher;

use quipu_types::{AggregateKey, Uuid};
use siphasher::sip::SipHasher13;

/// SipHash-1-3 under the log's id: clients choose what is hashed, and without the key they cannot
/// choose what collides. On disk (segments-format.md §7), so it never changes.
#[derive(Clone, Copy, Debug)]
pub struct KeyHasher {
    key: [u8; 16],
}

impl KeyHasher {
    /// The hasher of one log.
    #[must_use]
    pub fn new(log_id: Uuid) -> Self {
        Self { key: log_id.into_bytes() }
    }

    /// Hash of an aggregate key.
    #[must_use]
    pub fn aggregate(&self, key: &AggregateKey) -> u64 {
        self.parts(&key.aggregate_type, &key.aggregate_id)
    }

    /// Hash of an aggregate key given in parts.
    #[must_use]
    pub fn parts(&self, aggregate_type: &str, aggregate_id: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(aggregate_type.as_bytes());
        hasher.write(&[0]);
        hasher.write(aggregate_id.as_bytes());
        hasher.finish()
    }

    /// Hash of a correlation id.
    #[must_use]
    pub fn correlation(&self, id: &str) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(id.as_bytes());
        hasher.finish()
    }
}
