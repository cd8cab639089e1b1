//! What one segment has brought: the ids of its events, and the newest versions of its aggregates.

use quipu_types::{Position, Version};

use super::keys::{KeyHasher, TableKey};
use super::memtable::Memtable;
use crate::bug::{Bug, seeded};
use crate::format::index_file::IndexFile;

/// Segment bytes for which a generation has room for one id and one aggregate: a record takes more,
/// so that a segment's generation is one table each.
const BYTES_A_RECORD: u64 = 300;

/// Ids and versions of the records of one segment, in memory until a run holds them.
#[derive(Debug)]
pub struct Generation {
    ids: Memtable<1>,
    aggregates: Memtable<2>,
    born: u64,
}

impl Generation {
    /// An empty one, with room for the records of a segment of so many bytes.
    #[must_use]
    pub fn new(segment_bytes: u64, hasher: KeyHasher) -> Self {
        let records = usize::try_from(segment_bytes / BYTES_A_RECORD).unwrap_or(0);
        let (ids, aggregates) = (Memtable::new(records, hasher), Memtable::new(records, hasher));
        Self { ids, aggregates, born: 0 }
    }

    /// What a sealed segment holds, from its index file.
    #[must_use]
    pub fn of_index(index: &IndexFile, hasher: KeyHasher) -> Self {
        let header = index.header();
        let (ids, aggregates) = (header.records as usize, header.aggregates as usize);
        let (ids, aggregates) = (Memtable::new(ids, hasher), Memtable::new(aggregates, hasher));
        let mut generation = Self { ids, aggregates, born: 0 };
        for entry in index.aggregates() {
            let key = hasher.wide(entry.aggregate_type, entry.aggregate_id);
            let before = entry.first_version.previous();
            generation.raise(&key, before, entry.last_version(), index.last_position(&entry));
        }
        for (id, position) in index.ids().filter(|_| !seeded(Bug::ForgetsIndexedIds)) {
            generation.insert_id(&hasher.id(id), position);
        }
        generation
    }

    /// Where the event with this id stands, if it is here.
    #[must_use]
    pub fn position_of(&self, id: &TableKey) -> Option<Position> {
        self.ids.get(id).map(|[position]| Position(position))
    }

    /// Remembers an id.
    pub fn insert_id(&mut self, id: &TableKey, position: Position) {
        self.ids.set(id, [position.0]);
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
