//! Aggregate to newest version: what optimistic concurrency is checked against.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use quipu_types::{AggregateKey, Version};

/// Newest admitted version of every aggregate. Held by the sequencer alone.
///
/// A hash table in memory: about 150 bytes an aggregate. The seam is these methods.
#[derive(Default)]
pub struct VersionIndex {
    table: HashTable<Slot>,
}

struct Slot {
    hash: u64,
    key: Arc<AggregateKey>,
    version: Version,
}

impl VersionIndex {
    /// Newest version of an aggregate, `Version::NONE` if it was never written.
    #[must_use]
    pub fn get(&self, hash: u64, key: &AggregateKey) -> Version {
        self.table.find(hash, |slot| *slot.key == *key).map_or(Version::NONE, |slot| slot.version)
    }

    /// Sets the newest version of an aggregate.
    pub fn set(&mut self, hash: u64, key: &Arc<AggregateKey>, version: Version) {
        match self.table.entry(hash, |slot| slot.key == *key, |slot| slot.hash) {
            Entry::Occupied(mut slot) => slot.get_mut().version = version,
            Entry::Vacant(slot) => {
                slot.insert(Slot { hash, key: Arc::clone(key), version });
            }
        }
    }

    /// Number of aggregates.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }
}
