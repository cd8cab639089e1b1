//! A table in memory that never moves what it holds: who inserts never waits for it to grow.

use hashbrown::HashTable;

use super::keys::{KeyHasher, TableKey};
use crate::format::run_file::Entry;

/// Entries of `N` words, by key.
///
/// When a table is full another is put beside it, as large as all before it: an insertion never
/// copies the others, as a table that doubles would. Made large enough, one table is all there is.
#[derive(Debug)]
pub struct Memtable<const N: usize> {
    tables: Vec<HashTable<Entry<N>>>,
    hasher: KeyHasher,
}

impl<const N: usize> Memtable<N> {
    /// An empty one, with room for so many entries.
    #[must_use]
    pub fn new(entries: usize, hasher: KeyHasher) -> Self {
        Self { tables: vec![HashTable::with_capacity(entries)], hasher }
    }

    /// What is known of a key.
    #[must_use]
    pub fn get(&self, key: &TableKey) -> Option<[u64; N]> {
        let find = |table: &HashTable<Entry<N>>| {
            table.find(key.hash, |it| it.key == key.key).map(|entry| entry.value)
        };
        self.tables.iter().find_map(find)
    }

    /// Sets what is known of a key; true if nothing was before.
    pub fn set(&mut self, key: &TableKey, value: [u64; N]) -> bool {
        for table in &mut self.tables {
            if let Some(entry) = table.find_mut(key.hash, |it| it.key == key.key) {
                entry.value = value;
                return false;
            }
        }
        self.insert_new(key, value);
        true
    }

    /// Adds a key that is not here yet.
    pub fn insert_new(&mut self, key: &TableKey, value: [u64; N]) {
        debug_assert!(self.get(key).is_none(), "each key is once in it");
        let hasher = self.hasher;
        let room = |table: &HashTable<Entry<N>>| table.len() < table.capacity();
        if !self.tables.last().is_some_and(room) {
            self.tables.push(HashTable::with_capacity(self.len().max(1)));
        }
        if let Some(table) = self.tables.last_mut() {
            let entry = Entry { key: key.key, value };
            table.insert_unique(key.hash, entry, |it| hasher.hash(&it.key));
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.iter().map(HashTable::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(HashTable::is_empty)
    }

    /// Its bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.tables.iter().map(|table| table.allocation_size() as u64).sum()
    }

    /// Every entry, by key.
    #[must_use]
    pub fn sorted(&self) -> Vec<Entry<N>> {
        let mut entries: Vec<Entry<N>> = self.tables.iter().flatten().copied().collect();
        entries.sort_unstable_by_key(|entry| entry.key);
        entries
    }
}

#[cfg(test)]
mod tests {
    use quipu_types::Uuid;

    use super::*;

    #[test]
    fn it_holds_more_than_it_was_made_for_and_moves_nothing() {
        let hasher = KeyHasher::new(Uuid::from_u128(1));
        let mut table = Memtable::<1>::new(10, hasher);
        let key = |number: u64| hasher.id(Uuid::from_u128(u128::from(number * 7)));
        for number in 0..5_000 {
            assert!(table.set(&key(number), [number]));
            let capacities = table.tables.iter().map(HashTable::capacity).sum::<usize>();
            assert!(table.len() <= capacities, "no table has grown");
        }
        let first = table.tables[0].capacity();
        assert!(first < 20 && table.tables.len() > 5, "{first}");
        assert!(!table.set(&key(3), [77]), "it was there");
        for number in 0..5_000 {
            let expected = if number == 3 { 77 } else { number };
            assert_eq!(table.get(&key(number)), Some([expected]));
        }
        assert_eq!(table.get(&key(9_999)), None);
        let sorted = table.sorted();
        assert_eq!(sorted.len(), 5_000);
        assert!(sorted.is_sorted_by(|a, b| a.key < b.key));
    }
}
