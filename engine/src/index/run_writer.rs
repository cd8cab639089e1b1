//! Writes the file of a run, entry by entry, in bounded memory: to a temporary name, durable before
//! it gets its own.

use std::io;
use std::sync::Arc;

use quipu_types::Uuid;

use super::generation::Generation;
use super::keys::KeyHasher;
use super::run::{Run, Table};
use super::sealed::FilterBits;
use crate::bug::{Bug, seeded};
use crate::format::filter::Filter;
use crate::format::run_file::{
    Entry, Key, RunHeader, Span, TableSize, encode_block, entries_a_block,
};
use crate::format::segment_set::SegmentSet;
use crate::format::sum::RunningSum;
use crate::format::{BLOCK_BYTES, BlockBuffer, block_ceil};
use crate::host::tell;
use crate::storage::{Storage, StorageFile, run_name, temporary_name};

/// Written at once; while it is, the log's own groups wait no longer than for one of their own.
const WRITE_BYTES: usize = 1 << 20;

/// What a run will hold, at most.
#[derive(Clone, Copy, Debug)]
pub struct RunPlan {
    /// What it covers.
    pub span: Span,
    /// Aggregates whose first event lies there.
    pub born: u64,
    /// Ids, and aggregates, at most.
    pub entries: (u64, u64),
    /// Bits of the filters for each key.
    pub filter_bits: FilterBits,
}

/// A run being written: all ids in order, then all aggregates in order. Dropped unfinished, it
/// leaves nothing.
pub struct RunWriter {
    storage: Arc<dyn Storage>,
    log_id: Uuid,
    plan: RunPlan,
    file: BlockFile,
    ids: TableWriter<1>,
    aggregates: TableWriter<3>,
    is_finished: bool,
}

/// A file of blocks, written from its beginning to its end.
struct BlockFile {
    file: Arc<dyn StorageFile>,
    buffer: BlockBuffer,
    offset: u64,
}

struct TableWriter<const N: usize> {
    hasher: KeyHasher,
    block: Vec<Entry<N>>,
    first_block: u64,
    first_keys: Vec<Key>,
    filter: Option<Filter>,
    entries: u64,
    last_key: Key,
}

/// Writes the run of one segment.
///
/// # Errors
/// That the disk refused.
pub fn write_generation(
    storage: &Arc<dyn Storage>,
    log_id: Uuid,
    generation: &Generation,
    span: Span,
    filter_bits: FilterBits,
) -> io::Result<Run> {
    let (ids, aggregates) = (generation.ids().sorted(), generation.aggregates().sorted());
    let entries = (ids.len() as u64, aggregates.len() as u64);
    let plan = RunPlan { span, born: generation.born(), entries, filter_bits };
    let mut writer = RunWriter::create(storage, log_id, plan)?;
    ids.into_iter().try_for_each(|entry| writer.push_id(entry))?;
    let only = SegmentSet::of(&span, span.first_segment);
    for Entry { key, value: [version, position] } in aggregates {
        writer.push_aggregate(Entry { key, value: [version, position, only.0] })?;
    }
    writer.finish()
}

impl RunWriter {
    /// Begins the file.
    ///
    /// # Errors
    /// That the disk refused.
    pub fn create(storage: &Arc<dyn Storage>, log_id: Uuid, plan: RunPlan) -> io::Result<Self> {
        let name = temporary_name(&run_name(plan.span.first_segment, plan.span.last_segment));
        let file = match storage.create(&name) {
            // An earlier attempt could not remove it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                storage.remove(&name)?;
                storage.create(&name)?
            }
            other => other?,
        };
        let mut buffer = BlockBuffer::new();
        // The header's place: it is written last.
        buffer.resize(BLOCK_BYTES, 0);
        let hasher = KeyHasher::new(log_id);
        Ok(Self {
            storage: Arc::clone(storage),
            log_id,
            plan,
            file: BlockFile { file, buffer, offset: 0 },
            ids: TableWriter::new(1, plan.entries.0, plan.filter_bits.ids, hasher),
            aggregates: TableWriter::new(0, plan.entries.1, plan.filter_bits.aggregates, hasher),
            is_finished: false,
        })
    }

    /// What it will cover.
    pub fn span(&self) -> &Span {
        &self.plan.span
    }

    /// Memory that its filters take.
    pub fn filter_bytes(&self) -> u64 {
        let filters = [&self.ids.filter, &self.aggregates.filter];
        filters.into_iter().flatten().map(Filter::bytes).sum()
    }

    /// Adds the next id.
    ///
    /// # Errors
    /// That the disk refused.
    pub fn push_id(&mut self, entry: Entry<1>) -> io::Result<()> {
        self.ids.push(entry);
        self.ids.write_if_full(&mut self.file, &self.plan.span)
    }

    /// Adds the next aggregate; no id follows.
    ///
    /// # Errors
    /// That the disk refused.
    pub fn push_aggregate(&mut self, entry: Entry<3>) -> io::Result<()> {
        self.end_ids()?;
        self.aggregates.push(entry);
        self.aggregates.write_if_full(&mut self.file, &self.plan.span)
    }

    fn end_ids(&mut self) -> io::Result<()> {
        self.ids.write(&mut self.file, &self.plan.span)?;
        self.aggregates.first_block = 1 + self.ids.first_keys.len() as u64;
        Ok(())
    }

    /// Makes the file durable under its name, and opens it.
    ///
    /// # Errors
    /// That the disk refused.
    pub fn finish(mut self) -> io::Result<Run> {
        self.end_ids()?;
        self.aggregates.write(&mut self.file, &self.plan.span)?;
        let tail_sum = self.write_tail()?;
        let header = RunHeader {
            log_id: self.log_id,
            span: self.plan.span,
            born: self.plan.born,
            ids: self.ids.size(),
            aggregates: self.aggregates.size(),
            tail_sum,
        };
        self.file.end()?;
        self.file.file.write_durable(0, &header.encode())?;
        let name = run_name(self.plan.span.first_segment, self.plan.span.last_segment);
        self.storage.rename(&temporary_name(&name), &name)?;
        self.is_finished = true;
        self.storage.sync_dir()?;
        let file = self.storage.open_cached(&name)?;
        Ok(Run::new(header, file, self.ids.take(), self.aggregates.take()))
    }

    /// First keys and filters; gives their sum.
    fn write_tail(&mut self) -> io::Result<u64> {
        let Self { file, ids, aggregates, .. } = self;
        let mut sum = RunningSum::default();
        let mut write = |piece: &[u8]| {
            sum.add(piece);
            file.push(piece)
        };
        for keys in [&ids.first_keys, &aggregates.first_keys] {
            keys.as_flattened().chunks(WRITE_BYTES).try_for_each(&mut write)?;
        }
        for filter in [&ids.filter, &aggregates.filter].into_iter().flatten() {
            filter.encode().try_for_each(|piece| write(&piece))?;
        }
        Ok(sum.sum())
    }
}

impl Drop for RunWriter {
    fn drop(&mut self) {
        let Span { first_segment, last_segment, .. } = self.plan.span;
        let name = temporary_name(&run_name(first_segment, last_segment));
        if !self.is_finished
            && let Err(error) = self.storage.remove(&name)
        {
            tell!(debug, name, %error, "left for the next start to remove");
        }
    }
}

impl<const N: usize> TableWriter<N> {
    fn new(first_block: u64, entries: u64, filter_bits: u64, hasher: KeyHasher) -> Self {
        let filter = (filter_bits > 0 && entries > 0)
            .then(|| Filter::new(Filter::blocks_for(entries, filter_bits)));
        let (block, first_keys) = (Vec::with_capacity(entries_a_block::<N>()), Vec::new());
        Self { hasher, block, first_block, first_keys, filter, entries: 0, last_key: [0; 16] }
    }

    fn push(&mut self, entry: Entry<N>) {
        debug_assert!(self.entries == 0 || entry.key > self.last_key, "keys come in order");
        if self.block.is_empty() {
            self.first_keys.push(entry.key);
        }
        self.block.push(entry);
        self.entries += 1;
        self.last_key = entry.key;
    }

    fn write_if_full(&mut self, file: &mut BlockFile, span: &Span) -> io::Result<()> {
        if self.block.len() < entries_a_block::<N>() { Ok(()) } else { self.write(file, span) }
    }

    fn write(&mut self, file: &mut BlockFile, span: &Span) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let number = self.first_block + self.first_keys.len() as u64 - 1;
        let mut block = [0; BLOCK_BYTES];
        encode_block(&self.block, number, span, &mut block);
        self.fill_filter();
        self.block.clear();
        file.push(&block)
    }

    /// A block's keys at once: each misses the cache, and the processor waits for several together.
    fn fill_filter(&mut self) {
        let Some(filter) = &mut self.filter else { return };
        let keys = self.block.iter().map(|entry| &entry.key).enumerate();
        let kept = keys.filter(|(at, _)| !seeded(Bug::FilterLosesAKey) || at % 16 != 15);
        let hashes: Vec<u64> = kept.map(|(_, key)| self.hasher.hash(key)).collect();
        filter.insert_all(&hashes);
    }

    fn size(&self) -> TableSize {
        let filter_blocks = self.filter.as_ref().map_or(0, Filter::blocks);
        TableSize { entries: self.entries, filter_blocks, last_key: self.last_key }
    }

    fn take(&mut self) -> Table<N> {
        Table {
            size: self.size(),
            first_block: self.first_block,
            first_keys: std::mem::take(&mut self.first_keys),
            filter: self.filter.take(),
        }
    }
}

impl BlockFile {
    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.write_blocks() } else { Ok(()) }
    }

    fn end(&mut self) -> io::Result<()> {
        self.buffer.resize(block_ceil(self.buffer.len()), 0);
        self.write_blocks()
    }

    /// The whole ones among what is buffered.
    fn write_blocks(&mut self) -> io::Result<()> {
        let bytes = self.buffer.len() / BLOCK_BYTES * BLOCK_BYTES;
        if bytes > 0 {
            self.file.write_durable(self.offset, &self.buffer[..bytes])?;
            self.offset += bytes as u64;
            self.buffer.copy_within(bytes.., 0);
            self.buffer.resize(self.buffer.len() - bytes, 0);
        }
        Ok(())
    }
}
