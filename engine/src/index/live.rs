//! The index of a segment that is still being written: which group holds a position, and which
//! positions an aggregate has.

use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use quipu_types::{AggregateKey, Position, Version};

use crate::bug::{Bug, seeded};
use crate::format::group::{GroupHeader, GroupSpan};

/// An aggregate's records within one segment: versions are contiguous from the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postings {
    /// Version of the first record.
    pub first_version: Version,
    /// Every record's position, ascending.
    pub positions: Vec<Position>,
}

/// Groups and postings of a segment that is being written.
#[derive(Default)]
pub struct LiveIndex {
    groups: Vec<GroupSpan>,
    streams: HashTable<Stream>,
}

/// An aggregate and its records within the segment.
pub struct Stream {
    /// Hash of its key.
    pub hash: u64,
    /// Its key.
    pub key: Arc<AggregateKey>,
    /// Its records.
    pub postings: Postings,
}

impl LiveIndex {
    /// Takes a group that became durable; groups come in order.
    pub fn push_group(&mut self, header: &GroupHeader) {
        self.groups.push(GroupSpan {
            first_position: header.first_position,
            offset: header.offset,
            bytes: header.group_bytes as usize,
        });
    }

    /// Takes one record of an aggregate; records come in order.
    pub fn push_record(
        &mut self,
        hash: u64,
        key: &Arc<AggregateKey>,
        version: Version,
        position: Position,
    ) {
        if seeded(Bug::LosesAnIndexEntry) && position.0.is_multiple_of(16) {
            return;
        }
        match self.streams.entry(hash, |stream| stream.key == *key, |stream| stream.hash) {
            Entry::Occupied(mut stream) => stream.get_mut().postings.positions.push(position),
            Entry::Vacant(slot) => {
                let postings = Postings { first_version: version, positions: vec![position] };
                slot.insert(Stream { hash, key: Arc::clone(key), postings });
            }
        }
    }

    /// Every group, in order.
    #[must_use]
    pub fn groups(&self) -> &[GroupSpan] {
        &self.groups
    }

    /// Every aggregate, by hash and key.
    #[must_use]
    pub fn sorted_streams(&self) -> Vec<&Stream> {
        let mut streams: Vec<&Stream> = self.streams.iter().collect();
        streams.sort_unstable_by_key(|stream| (stream.hash, &*stream.key));
        streams
    }

    /// The group that holds a position, if it is one of this segment's.
    #[must_use]
    pub fn group_of(&self, position: Position) -> Option<GroupSpan> {
        let after = self.groups.partition_point(|group| group.first_position <= position);
        self.groups.get(after.checked_sub(1)?).copied()
    }

    /// Offset right after the last group of records.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.groups.last().map_or(0, |group| group.offset + group.bytes as u64)
    }

    /// An aggregate's records in this segment up to `last`.
    #[must_use]
    pub fn postings(&self, hash: u64, key: &AggregateKey, last: Position) -> Option<Postings> {
        let stream = self.streams.find(hash, |stream| *stream.key == *key)?;
        let all = &stream.postings.positions;
        let visible = all.partition_point(|position| *position <= last);
        let positions = all.get(..visible)?.to_vec();
        Some(Postings { first_version: stream.postings.first_version, positions })
    }
}
