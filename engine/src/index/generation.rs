//! What one segment has brought: the ids of its events, and the newest versions of its aggregates.

use quipu_types::{Position, Version};

use super::keys::{KeyHasher, TableKey, are_spread};
use super::memtable::Memtable;
use crate::bug::{Bug, seeded};
use crate::format::index_file::IndexFile;
use crate::format::index_header::IndexFault;
use crate::format::run_file::Key;

/// Room for ids, and for aggregates, where nothing says how many will come.
const ENTRIES_MIN: usize = 1 << 15;

/// Ids and versions of the records of one segment, in memory until a run holds them.
///
/// Invariant: no id in it is less than `least_id` or greater than `greatest_id`.
#[derive(Debug)]
pub struct Generation {
    ids: Memtable<1>,
    least_id: Key,
    greatest_id: Key,
    aggregates: Memtable<2>,
    born: u64,
}

impl Generation {
    /// An empty one.
    #[must_use]
    pub fn new(hasher: KeyHasher) -> Self {
        Self::with_room(ENTRIES_MIN, ENTRIES_MIN, hasher)
    }

    /// An empty one for the next segment: with room for what this one holds and an eighth more, so
    /// that it is mostly one table each, and no larger than the records ask for. Room that is not
    /// used is paid for too, in page faults and cache misses.
    #[must_use]
    pub fn next(&self, hasher: KeyHasher) -> Self {
        let room = |entries: usize| (entries + entries / 8).max(ENTRIES_MIN);
        Self::with_room(room(self.ids.len()), room(self.aggregates.len()), hasher)
    }

    fn with_room(ids: usize, aggregates: usize, hasher: KeyHasher) -> Self {
        let (ids, aggregates) = (Memtable::new(ids, hasher), Memtable::new(aggregates, hasher));
        Self { ids, least_id: [0xff; 16], greatest_id: [0; 16], aggregates, born: 0 }
    }

    /// What a sealed segment holds, from its index file.
    ///
    /// # Errors
    /// That the file is damaged.
    pub fn of_index(index: &IndexFile, hasher: KeyHasher) -> Result<Self, IndexFault> {
        let header = index.header();
        let (ids, aggregates) = (header.records as usize, header.aggregates as usize);
        let mut generation = Self::with_room(ids, aggregates, hasher);
        for entry in index.aggregates() {
            let entry = entry?;
            let key = hasher.wide(entry.aggregate_type, entry.aggregate_id);
            let before = entry.first_version.previous();
            generation.raise(&key, before, entry.last_version(), index.last_position(&entry)?);
        }
        for entry in index.ids().filter(|_| !seeded(Bug::ForgetsIndexedIds)) {
            let (id, position) = entry?;
            generation.insert_id(&hasher.id(id), position);
        }
        Ok(generation)
    }

    /// Where the event with this id stands, if it is here.
    #[must_use]
    pub fn position_of(&self, id: &TableKey) -> Option<Position> {
        // Ids of version 7 grow with time: most new ones are told from the others by this.
        if id.key > self.greatest_id {
            return None;
        }
        self.ids.get(id).map(|[position]| Position(position))
    }

    /// Remembers an id.
    pub fn insert_id(&mut self, id: &TableKey, position: Position) {
        self.ids.set(id, [position.0]);
        self.widen(&id.key);
    }

    /// Remembers an id that is not here yet.
    pub fn insert_new_id(&mut self, id: &TableKey, position: Position) {
        self.ids.insert_new(id, [position.0]);
        self.widen(&id.key);
    }

    fn widen(&mut self, id: &Key) {
        self.least_id = self.least_id.min(*id);
        self.greatest_id = self.greatest_id.max(*id);
    }

    /// How many keys a run of it needs filters for: ids, and aggregates.
    #[must_use]
    pub fn filtered(&self) -> (u64, u64) {
        let needs = are_spread(&self.least_id, &self.greatest_id);
        (if needs { self.ids.len() as u64 } else { 0 }, self.aggregates.len() as u64)
    }

    /// No id here is greater.
    #[must_use]
    pub fn greatest_id(&self) -> Key {
        self.greatest_id
    }

    /// The newest version of an aggregate, if it has any here.
    #[must_use]
    pub fn version(&self, key: &TableKey) -> Option<Version> {
        self.aggregates.get(key).map(|[version, _]| Version(version))
    }

    /// An aggregate goes from one version to another, whose event stands at `position`.
    pub fn raise(&mut self, key: &TableKey, before: Version, last: Version, position: Position) {
        self.aggregates.set(key, [last.0, position.0]);
        self.born += u64::from(before == Version::NONE);
    }

    /// The ids.
    #[must_use]
    pub fn ids(&self) -> &Memtable<1> {
        &self.ids
    }

    /// The aggregates.
    #[must_use]
    pub fn aggregates(&self) -> &Memtable<2> {
        &self.aggregates
    }

    /// Aggregates whose first event is here.
    #[must_use]
    pub fn born(&self) -> u64 {
        self.born
    }

    /// Its bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ids.bytes() + self.aggregates.bytes()
    }

    /// Forgets every id, or every version; see [`crate::bug`].
    pub(crate) fn forget(&mut self, hasher: KeyHasher) {
        if seeded(Bug::ForgetsIdsAtRoll) {
            self.ids = Memtable::new(0, hasher);
        }
        if seeded(Bug::ForgetsVersionsAtRoll) {
            self.aggregates = Memtable::new(0, hasher);
        }
    }
}
