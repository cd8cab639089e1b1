//! A run that is open: what is known of the events of some sealed segments, found with about one
//! access to its file.

use std::sync::{Arc, OnceLock};

use quipu_types::{Position, Uuid, Version};

use super::keys::TableKey;
use super::run_tail::RunTail;
use crate::format::BLOCK_BYTES;
use crate::format::filter::Filter;
use crate::format::run_file::{
    Key, RunFault, RunHeader, Span, TableBlock, TableSize, entries_a_block,
};
use crate::format::segment_set::SegmentSet;
use crate::shared::Counters;
use crate::storage::{Storage, StorageFile, run_name};

/// Why a run cannot be used, or a look-up in it failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file is damaged, or none of this log.
    #[error(transparent)]
    Fault(#[from] RunFault),
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A sorted run. It never changes; its file may have been removed meanwhile.
pub struct Run {
    header: RunHeader,
    file: Arc<dyn StorageFile>,
    ids: Table<1>,
    aggregates: Table<3>,
    damage: OnceLock<String>,
}

/// What a run keeps in memory of a table.
pub(super) struct Table<const N: usize> {
    pub(super) size: TableSize,
    /// Number of its first block in the file.
    pub(super) first_block: u64,
    /// The first key of each block.
    pub(super) first_keys: Vec<Key>,
    /// Left out where there is no memory for it: then a look-up always reads.
    pub(super) filter: Option<Filter>,
}

impl std::fmt::Debug for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("header", &self.header).finish_non_exhaustive()
    }
}

impl Run {
    /// Opens the run of these segments; `filter_bytes` is what its filters may take in memory.
    ///
    /// # Errors
    /// That there is none, or not of this state of the log.
    pub fn open(
        storage: &dyn Storage,
        segments: (u64, u64),
        log_id: Uuid,
        filter_bytes: u64,
    ) -> Result<Self, RunError> {
        let file = storage.open_cached(&run_name(segments.0, segments.1))?;
        let mut block = [0; BLOCK_BYTES];
        let read = file.read(0, &mut block)?;
        let header = RunHeader::decode(&block[..read])?;
        let span = &header.span;
        if header.log_id != log_id || (span.first_segment, span.last_segment) != segments {
            return Err(RunFault::OtherLog.into());
        }
        if header.file_bytes() != Some(file.len()?) {
            return Err(RunFault::Length.into());
        }
        let (ids, aggregates) = (header.ids, header.aggregates);
        let parts = header.tail_parts();
        let mut tail = RunTail::new(&*file, header.tail_at(), parts.iter().sum());
        let [id_keys, aggregate_keys, id_filter, aggregate_filter] = parts;
        let has_memory = id_filter + aggregate_filter <= filter_bytes;
        let (id_keys, aggregate_keys) = (tail.keys(id_keys)?, tail.keys(aggregate_keys)?);
        let id_filter = tail.filter(id_filter, has_memory)?;
        let aggregate_filter = tail.filter(aggregate_filter, has_memory)?;
        if tail.sum() != header.tail_sum {
            return Err(RunFault::Sum.into());
        }
        let first_block = header.first_aggregate_block();
        let ids = Table::new(ids, 1, id_keys, id_filter)?;
        let aggregates = Table::new(aggregates, first_block, aggregate_keys, aggregate_filter)?;
        Ok(Self::new(header, file, ids, aggregates))
    }

    pub(super) fn new(
        header: RunHeader,
        file: Arc<dyn StorageFile>,
        ids: Table<1>,
        aggregates: Table<3>,
    ) -> Self {
        Self { header, file, ids, aggregates, damage: OnceLock::new() }
    }

    /// Its header.
    pub fn header(&self) -> &RunHeader {
        &self.header
    }

    /// What it covers.
    pub fn span(&self) -> &Span {
        &self.header.span
    }

    /// Name of its file.
    pub fn name(&self) -> String {
        run_name(self.span().first_segment, self.span().last_segment)
    }

    /// Bytes of its file.
    pub fn file_bytes(&self) -> u64 {
        self.header.file_bytes().unwrap_or(0)
    }

    /// Where the event with this id stands, if it is here.
    ///
    /// # Errors
    /// That it cannot be told.
    pub fn position_of(
        &self,
        id: &TableKey,
        counters: &Counters,
    ) -> Result<Option<Position>, RunError> {
        let found = self.ids.get(id, self, counters)?;
        Ok(found.map(|[position]| Position(position)))
    }

    /// The newest version of an aggregate, if it has any here.
    ///
    /// # Errors
    /// That it cannot be told.
    pub fn version(
        &self,
        key: &TableKey,
        counters: &Counters,
    ) -> Result<Option<Version>, RunError> {
        let found = self.aggregates.get(key, self, counters)?;
        Ok(found.map(|[version, ..]| Version(version)))
    }

    /// Which segments hold events of an aggregate, if any does.
    ///
    /// # Errors
    /// That it cannot be told.
    pub fn segments_of(
        &self,
        key: &TableKey,
        counters: &Counters,
    ) -> Result<Option<SegmentSet>, RunError> {
        let found = self.aggregates.get(key, self, counters)?;
        Ok(found.map(|[.., segments]| SegmentSet(segments)))
    }

    /// Says which aggregates will be asked for.
    pub fn touch_aggregates(&self, hashes: impl Iterator<Item = u64>) {
        if let Some(filter) = &self.aggregates.filter {
            filter.touch(hashes);
        }
    }

    /// Says which ids will be asked for.
    pub fn touch_ids(&self, hashes: impl Iterator<Item = u64>) {
        if let Some(filter) = &self.ids.filter {
            filter.touch(hashes);
        }
    }

    /// Whether the filters, of ids and of aggregates, let a key through.
    pub fn lets_through(&self, key: &TableKey) -> (bool, bool) {
        let lets = |filter: &Option<Filter>| filter.as_ref().is_none_or(|it| it.may_have(key.hash));
        (lets(&self.ids.filter), lets(&self.aggregates.filter))
    }

    /// Bytes of first keys, and of filters, in memory.
    pub fn memory(&self) -> (u64, u64) {
        let keys = self.ids.first_keys.len() + self.aggregates.first_keys.len();
        let filters = [&self.ids.filter, &self.aggregates.filter];
        let filters = filters.into_iter().flatten().map(Filter::bytes).sum();
        (size_of::<Key>() as u64 * keys as u64, filters)
    }

    /// The least id, and the greatest.
    pub fn ids_from_to(&self) -> Option<(Key, Key)> {
        Some((*self.ids.first_keys.first()?, self.ids.size.last_key))
    }

    /// Notes that it was found damaged, and how; true the first time.
    pub fn note_damage(&self, error: &RunError) -> bool {
        self.damage.set(error.to_string()).is_ok()
    }

    /// How it was found damaged, if it was.
    pub fn damage(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Whether it was found damaged.
    pub fn is_damaged(&self) -> bool {
        self.damage().is_some()
    }
}

impl<const N: usize> Table<N> {
    fn new(
        size: TableSize,
        first_block: u64,
        first_keys: Vec<Key>,
        filter: Option<Filter>,
    ) -> Result<Self, RunFault> {
        let last = if first_keys.is_empty() { [0; 16] } else { size.last_key };
        let in_order = first_keys.is_sorted_by(|a, b| a < b)
            && first_keys.last().is_none_or(|first| *first <= last);
        let table = Self { size, first_block, first_keys, filter };
        if in_order { Ok(table) } else { Err(RunFault::Order) }
    }

    /// The block that holds a key if any does; `None` if it is surely not here.
    fn block_of(&self, key: &TableKey) -> Option<usize> {
        // Ids of version 7 grow with time: a new one is above all that are sealed.
        if key.key > self.size.last_key {
            return None;
        }
        if self.filter.as_ref().is_some_and(|filter| !filter.may_have(key.hash)) {
            return None;
        }
        self.first_keys.partition_point(|first| *first <= key.key).checked_sub(1)
    }

    fn get(
        &self,
        key: &TableKey,
        run: &Run,
        counters: &Counters,
    ) -> Result<Option<[u64; N]>, RunError> {
        let Some(at) = self.block_of(key) else { return Ok(None) };
        counters.index_read();
        let mut block = [0; BLOCK_BYTES];
        let number = self.first_block + at as u64;
        let read = run.file.read(number * BLOCK_BYTES as u64, &mut block)?;
        let entries = self.size.entries_of::<N>(at as u64);
        let block = TableBlock::<N>::check(&block[..read], entries, number, run.span())?;
        Ok(block.get(&key.key))
    }
}

impl TableSize {
    /// How many entries of `N` words its `index`th block holds: each but the last is full.
    pub(super) fn entries_of<const N: usize>(&self, index: u64) -> usize {
        let full = entries_a_block::<N>();
        let left = self.entries.saturating_sub(index.saturating_mul(full as u64));
        usize::try_from(left).unwrap_or(full).min(full)
    }
}
