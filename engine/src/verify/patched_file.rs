//! A file that is read on behind what the disk does not give: bytes of no valid group stand for it,
//! and where it lies is known afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::format::BLOCK_BYTES;
use crate::storage::StorageFile;

const BLOCK: u64 = BLOCK_BYTES as u64;
/// Neither zeros nor anything that a group could hold there by chance.
const PATCH: [u8; 16] = *b"unreadable block";

/// A file whose unreadable blocks are patched over.
pub(super) struct PatchedFile {
    file: Arc<dyn StorageFile>,
    /// Blocks that could not be read, by offset, and what the system said.
    unreadable: Mutex<BTreeMap<u64, String>>,
}

/// What of a file could not be read.
pub(super) struct Unreadable {
    offset: u64,
    bytes: u64,
    problem: String,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, bytes, problem } = self;
        write!(f, "at offset {offset}: {bytes} bytes cannot be read: {problem}")
    }
}

impl PatchedFile {
    pub(super) fn new(file: Arc<dyn StorageFile>) -> Arc<Self> {
        Arc::new(Self { file, unreadable: Mutex::default() })
    }

    /// What could not be read there, of what was asked for.
    pub(super) fn unreadable_in(&self, range: Range<u64>) -> Option<Unreadable> {
        let unreadable = self.unreadable.lock();
        let mut blocks = unreadable.range(range);
        let (offset, problem) = blocks.next()?;
        let bytes = (1 + blocks.count() as u64) * BLOCK;
        Some(Unreadable { offset: *offset, bytes, problem: problem.clone() })
    }

    /// Block by block, so that no more is lost than cannot be read.
    fn read_blocks(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.file.len()?.saturating_sub(offset);
        let length = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut unreadable = self.unreadable.lock();
        for (at, block) in (offset..).step_by(BLOCK_BYTES).zip(buffer.chunks_mut(BLOCK_BYTES)) {
            if at >= offset + length as u64 {
                break;
            }
            if !unreadable.contains_key(&at)
                && let Err(error) = self.file.read(at, block)
            {
                unreadable.insert(at, error.to_string());
            }
            if unreadable.contains_key(&at) {
                block.chunks_mut(PATCH.len()).for_each(|it| it.copy_from_slice(&PATCH[..it.len()]));
            }
        }
        Ok(length)
    }
}

impl StorageFile for PatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        // What is known to be unreadable is not asked for again: a failing disk takes its time.
        let known = self.unreadable_in(offset..offset.saturating_add(buffer.len() as u64));
        if known.is_none()
            && let Ok(read) = self.file.read(offset, buffer)
        {
            return Ok(read);
        }
        self.read_blocks(offset, buffer)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_durable(offset, bytes)
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.file.allocate(end)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
