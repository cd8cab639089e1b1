//! The hashes under which aggregates, correlation ids and event ids are indexed.

use std::hash::Hasher;

use quipu_types::{AggregateKey, Uuid};
use sha2::{Digest, Sha256};
use siphasher::sip::SipHasher13;

use crate::format::run_file::Key;

/// A key of a run's table, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableKey {
    /// The key.
    pub key: Key,
    /// SipHash-1-3 of the key.
    pub hash: u64,
}

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

    /// An event id as a key of a run's table.
    #[must_use]
    pub fn id(&self, id: Uuid) -> TableKey {
        self.table_key(id.into_bytes())
    }

    /// An aggregate as a key of a run's table: so wide, and so hard to choose, that no two
    /// aggregates share one. The first half of SHA-256 of the log's id and the aggregate's key.
    #[must_use]
    pub fn wide(&self, aggregate_type: &str, aggregate_id: &str) -> TableKey {
        let mut hasher = Sha256::new_with_prefix(self.key);
        hasher.update(aggregate_type);
        hasher.update([0]);
        hasher.update(aggregate_id);
        let digest: [u8; 32] = hasher.finalize().into();
        self.table_key(digest.first_chunk().copied().unwrap_or_default())
    }

    /// Hash of a key of a run's table.
    #[must_use]
    pub fn hash(&self, key: &Key) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(key);
        hasher.finish()
    }

    /// A key with its hash.
    #[must_use]
    pub fn table_key(&self, key: Key) -> TableKey {
        TableKey { key, hash: self.hash(&key) }
    }
}
