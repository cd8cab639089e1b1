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

/// Whether ids lie so far apart that many others may be between the first and the last. Those of
/// version 7 do not: they begin with their time, so that others are before them or behind them, and
/// no filter need say that they are not here. The first two bytes count spans of 50 days.
#[must_use]
pub fn are_spread(first: &Key, last: &Key) -> bool {
    let in_50_days = |key: &Key| u32::from(key[0]) << 8 | u32::from(key[1]);
    in_50_days(last).saturating_sub(in_50_days(first)) > 1
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_some_weeks_lie_together_and_ids_at_random_do_not() {
        let at = |days: u128| ((20_000 + days) * 86_400_000) << 80;
        let key = |id: u128| Uuid::from_u128(id).into_bytes();
        assert!(!are_spread(&key(at(0)), &key(at(0))));
        assert!(!are_spread(&key(at(0)), &key(at(40))));
        assert!(are_spread(&key(at(0)), &key(at(120))));
        assert!(are_spread(&key(at(0)), &key(0xd000 << 112)));
    }
}
