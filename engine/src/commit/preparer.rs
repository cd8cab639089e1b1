//! Space made ready ahead of the write head, off the commit path: allocated, so that a group
//! write never lacks space; zeroed, so that it need not convert extents; and the next segment's
//! file, so that a roll makes no file.

use std::io;
use std::sync::{Arc, LazyLock};

use crate::format::{BlockBuffer, zeroed_blocks};
use crate::storage::{Storage, StorageFile, is_lack, is_no_space, segment_name};

/// Zeroed in one write, so that a group that needs the place waits little.
pub(crate) const ZERO_BYTES: usize = 1 << 20;

/// Something to prepare.
pub enum PrepareJob {
    /// Space up to `end` of a segment's file.
    Allocate {
        /// The segment's file.
        file: Arc<dyn StorageFile>,
        /// Number of the segment.
        segment: u64,
        /// Offset up to which there shall be space.
        end: u64,
        /// Free space that must remain on the file system.
        reserve: u64,
    },
    /// Zeros in `from..to` of a segment's file, which nothing else is written to meanwhile.
    Zero {
        /// The segment's file.
        file: Arc<dyn StorageFile>,
        /// Number of the segment.
        segment: u64,
        /// First offset.
        from: u64,
        /// Offset after the last.
        to: u64,
    },
    /// The file of a segment to come.
    Spare {
        /// Number of the segment.
        segment: u64,
        /// Space to allocate and zero in it.
        bytes: u64,
        /// Free space that must remain on the file system.
        reserve: u64,
    },
}

/// What was prepared, or why not.
pub enum Prepared {
    /// Space up to an offset of a segment's file.
    Allocated(u64, u64, Result<(), PrepareError>),
    /// Zeros up to an offset of a segment's file.
    Zeroed(u64, u64, Result<(), PrepareError>),
    /// The next segment's file.
    Spare(Result<Spare, PrepareError>),
}

impl Prepared {
    /// Nothing, for no fault of the disk's.
    pub(super) fn failed(reason: &str) -> Self {
        Self::Spare(Err(PrepareError::Io(io::Error::other(reason))))
    }
}

/// A file for a segment to come: zeros, its directory entry durable.
pub struct Spare {
    /// Number of the segment.
    pub segment: u64,
    /// Its file.
    pub file: Arc<dyn StorageFile>,
    /// Space in it.
    pub allocated: u64,
    /// How much of it is known to be written with zeros.
    pub zeroed: u64,
}

/// Why space could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// There is none, or too little would remain.
    #[error("{0}")]
    NoSpace(String),
    /// The disk refused.
    #[error("cannot prepare space: {0}")]
    Io(io::Error),
}

impl From<io::Error> for PrepareError {
    fn from(error: io::Error) -> Self {
        // A limit may end within a write: zeros over zeros may be written again.
        let is_cut_short = error.kind() == io::ErrorKind::WriteZero;
        if is_no_space(&error) || is_cut_short || is_lack(&error) {
            Self::NoSpace(format!("cannot prepare space: {error}"))
        } else {
            Self::Io(error)
        }
    }
}

impl PrepareJob {
    /// Does it; blocks on the disk.
    #[must_use]
    pub fn run(self, storage: &dyn Storage) -> Prepared {
        match self {
            Self::Allocate { file, segment, end, reserve } => {
                let result = allocate(storage, &*file, end, reserve);
                Prepared::Allocated(segment, end, result)
            }
            Self::Zero { file, segment, from, to } => {
                Prepared::Zeroed(segment, to, zero(&*file, from, to).map_err(Into::into))
            }
            Self::Spare { segment, bytes, reserve } => {
                Prepared::Spare(make_spare(storage, segment, bytes, reserve))
            }
        }
    }
}

fn allocate(
    storage: &dyn Storage,
    file: &dyn StorageFile,
    end: u64,
    reserve: u64,
) -> Result<(), PrepareError> {
    let more = end.saturating_sub(file.len()?);
    let free = storage.space()?.free;
    if free < reserve + more {
        return Err(PrepareError::NoSpace(format!(
            "{free} bytes are free; {more} are needed and {reserve} must remain"
        )));
    }
    Ok(file.allocate(end)?)
}

fn zero(file: &dyn StorageFile, from: u64, to: u64) -> io::Result<()> {
    static ZEROS: LazyLock<BlockBuffer> = LazyLock::new(|| zeroed_blocks(ZERO_BYTES));
    let mut offset = from;
    while offset < to {
        let bytes = usize::try_from(to - offset).unwrap_or(ZERO_BYTES).min(ZERO_BYTES);
        file.write_durable(offset, &ZEROS[..bytes])?;
        offset += bytes as u64;
    }
    Ok(())
}

/// Makes the file anew and never touches one that is there: what is there may be a segment.
fn make_spare(
    storage: &dyn Storage,
    segment: u64,
    bytes: u64,
    reserve: u64,
) -> Result<Spare, PrepareError> {
    let name = segment_name(segment);
    let file = storage.create(&name)?;
    let filled = fill_spare(storage, segment, Arc::clone(&file), bytes, reserve);
    if filled.is_err() {
        storage.remove(&name)?;
    }
    filled
}

/// Allocates and zeroes the beginning of a spare's file, and makes its directory entry durable.
pub(crate) fn fill_spare(
    storage: &dyn Storage,
    segment: u64,
    file: Arc<dyn StorageFile>,
    bytes: u64,
    reserve: u64,
) -> Result<Spare, PrepareError> {
    allocate(storage, &*file, bytes, reserve)?;
    zero(&*file, 0, bytes)?;
    storage.sync_dir()?;
    Ok(Spare { segment, file, allocated: bytes, zeroed: bytes })
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn what_may_be_there_again_is_a_lack_of_space_and_what_is_broken_is_not() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::MFILE, Errno::NFILE] {
            let error = PrepareError::from(io::Error::from(errno));
            assert!(matches!(error, PrepareError::NoSpace(_)), "{error}");
        }
        for errno in [Errno::IO, Errno::ROFS, Errno::EXIST] {
            let error = PrepareError::from(io::Error::from(errno));
            assert!(matches!(error, PrepareError::Io(_)), "{error}");
        }
    }
}
