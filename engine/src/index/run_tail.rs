//! What a run keeps in memory, first keys and filters, read from the end of its file. They may be
//! hundreds of megabytes, so they go where they stay a piece at a time.

use std::io;

use crate::format::filter::{FILTER_BLOCK_BYTES, Filter};
use crate::format::run_file::Key;
use crate::format::sum::RunningSum;
use crate::storage::StorageFile;

/// Whole keys and whole blocks of filters.
const PIECE_BYTES: usize = 256 << 10;

/// Reads the tail of a run's file, part after part.
pub(super) struct RunTail<'a> {
    file: &'a dyn StorageFile,
    offset: u64,
    piece: Vec<u8>,
    sum: RunningSum,
}

impl<'a> RunTail<'a> {
    /// At the beginning of a tail of so many bytes.
    pub(super) fn new(file: &'a dyn StorageFile, offset: u64, bytes: u64) -> Self {
        let piece = usize::try_from(bytes).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
        Self { file, offset, piece: vec![0; piece], sum: RunningSum::default() }
    }

    /// The next part, of so many bytes: keys.
    pub(super) fn keys(&mut self, bytes: u64) -> io::Result<Vec<Key>> {
        let mut keys = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0) / size_of::<Key>());
        self.part(bytes, |piece| keys.extend_from_slice(piece.as_chunks().0))?;
        Ok(keys)
    }

    /// The next part, of so many bytes: a filter, if there is one and it is to be kept.
    pub(super) fn filter(&mut self, bytes: u64, is_kept: bool) -> io::Result<Option<Filter>> {
        let blocks = u32::try_from(bytes / FILTER_BLOCK_BYTES as u64).unwrap_or(0);
        let mut filter = (is_kept && blocks > 0).then(|| Filter::with_room(blocks));
        self.part(bytes, |piece| {
            if let Some(filter) = &mut filter {
                filter.extend(piece);
            }
        })?;
        Ok(filter)
    }

    fn part(&mut self, bytes: u64, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let end = self.offset + bytes;
        while self.offset < end {
            let left = usize::try_from(end - self.offset).unwrap_or(PIECE_BYTES);
            let piece = &mut self.piece[..left.min(PIECE_BYTES)];
            if self.file.read(self.offset, piece)? != piece.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.sum.add(piece);
            take(piece);
            self.offset += piece.len() as u64;
        }
        Ok(())
    }

    /// The sum of everything that was read.
    pub(super) fn sum(&self) -> u64 {
        self.sum.sum()
    }
}
