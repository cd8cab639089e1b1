//! Reads a table of a run from its beginning to its end, past the page cache, which is for what is
//! looked up.

use std::sync::Arc;

use super::run::{Run, RunError};
use crate::format::run_file::{Entry, RunFault, TableBlock, TableSize};
use crate::format::{BLOCK_BYTES, BlockBuffer, zeroed_blocks};
use crate::storage::{Storage, StorageFile};

/// Read at once.
const READ_BLOCKS: u64 = 64;

/// The entries of a table, each block checked before any of it is used.
pub struct TableReader<const N: usize> {
    run: Arc<Run>,
    file: Arc<dyn StorageFile>,
    size: TableSize,
    first_block: u64,
    buffer: BlockBuffer,
    /// Numbers within the table: of the first block in the buffer, and of the next to take.
    buffered_from: u64,
    next_block: u64,
    entries: std::vec::IntoIter<Entry<N>>,
    head: Option<Entry<N>>,
}

impl TableReader<1> {
    /// The ids of a run.
    ///
    /// # Errors
    /// That the first block cannot be read.
    pub fn of_ids(storage: &dyn Storage, run: &Arc<Run>) -> Result<Self, RunError> {
        Self::new(storage, run, run.header().ids, 1)
    }
}

impl TableReader<3> {
    /// The aggregates of a run.
    ///
    /// # Errors
    /// That the first block cannot be read.
    pub fn of_aggregates(storage: &dyn Storage, run: &Arc<Run>) -> Result<Self, RunError> {
        let header = run.header();
        Self::new(storage, run, header.aggregates, header.first_aggregate_block())
    }
}

impl<const N: usize> TableReader<N> {
    fn new(
        storage: &dyn Storage,
        run: &Arc<Run>,
        size: TableSize,
        first_block: u64,
    ) -> Result<Self, RunError> {
        let mut reader = Self {
            run: Arc::clone(run),
            file: storage.open(&run.name())?,
            size,
            first_block,
            buffer: BlockBuffer::new(),
            buffered_from: 0,
            next_block: 0,
            entries: Vec::new().into_iter(),
            head: None,
        };
        reader.advance()?;
        Ok(reader)
    }

    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// The next entry, if there is one.
    pub fn head(&self) -> Option<Entry<N>> {
        self.head
    }

    /// Goes on to the entry after it.
    ///
    /// # Errors
    /// That its block cannot be read.
    pub fn advance(&mut self) -> Result<(), RunError> {
        self.head = self.entries.next();
        if self.head.is_none() && self.next_block < self.size.blocks::<N>() {
            self.read_block()?;
            self.head = self.entries.next();
        }
        Ok(())
    }

    fn read_block(&mut self) -> Result<(), RunError> {
        let buffered = self.buffered_from + (self.buffer.len() / BLOCK_BYTES) as u64;
        if self.next_block >= buffered {
            self.fill_buffer()?;
        }
        let at = usize::try_from(self.next_block - self.buffered_from).unwrap_or(0) * BLOCK_BYTES;
        let number = self.first_block + self.next_block;
        let entries = self.size.entries_of::<N>(self.next_block);
        let block = TableBlock::<N>::check(&self.buffer[at..], entries, number, self.run.span())?;
        let entries: Vec<Entry<N>> = (0..block.len()).map(|index| block.entry(index)).collect();
        if !entries.is_sorted_by(|a, b| a.key < b.key) {
            return Err(RunFault::Order.into());
        }
        self.entries = entries.into_iter();
        self.next_block += 1;
        Ok(())
    }

    fn fill_buffer(&mut self) -> Result<(), RunError> {
        let blocks = (self.size.blocks::<N>() - self.next_block).min(READ_BLOCKS);
        let bytes = usize::try_from(blocks).unwrap_or(0) * BLOCK_BYTES;
        if self.buffer.len() != bytes {
            self.buffer = zeroed_blocks(bytes);
        }
        let offset = (self.first_block + self.next_block) * BLOCK_BYTES as u64;
        if self.file.read(offset, &mut self.buffer)? != bytes {
            return Err(RunFault::Length.into());
        }
        self.buffered_from = self.next_block;
        Ok(())
    }
}
