//! Makes a sealed segment's index file from the segment, where it is missing or not valid.

use quipu_types::{Corruption, Position};

use super::builder::IndexBuilder;
use super::keys::KeyHasher;
use crate::format::index_file::IndexFile;
use crate::format::index_header::IndexFault;
use crate::format::segment_header::SegmentHeader;
use crate::host::tell;
use crate::segment::Segment;
use crate::segment::scanner::{ScanEnd, Scanner, Source};
use crate::shared::Shared;
use crate::storage::{Storage, index_name, segment_name};

/// Why an index could not be built.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The segment is damaged.
    #[error(transparent)]
    Corruption(#[from] Corruption),
    /// The disk refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Reads a whole sealed segment, checking everything, and builds its index.
///
/// # Errors
/// That it cannot be read, or where it is damaged.
pub fn build(
    storage: &dyn Storage,
    hasher: KeyHasher,
    header: &SegmentHeader,
) -> Result<IndexFile, RebuildError> {
    // Not through a map: each page is needed once.
    let file = storage.open(&segment_name(header.number))?;
    let mut scanner = Scanner::new(Source::File(file), header.clone());
    let mut builder = IndexBuilder::new(hasher, header.first_position);
    loop {
        match scanner.next_group()? {
            Ok(whole) => builder.push_group(&whole),
            Err(ScanEnd::Sealed) => {
                let index = builder.finish(header.segment_id, scanner.point().chain);
                return index.map_err(|fault| unindexable(header, fault).into());
            }
            Err(end) => {
                return Err(Corruption {
                    segment: header.number,
                    first: scanner.point().next_position,
                    last: Position::MAX,
                    problem: format!("at offset {}: {end}", scanner.point().offset),
                }
                .into());
            }
        }
    }
}

/// Records that are valid by the format, and that no log writes.
pub fn unindexable(header: &SegmentHeader, fault: IndexFault) -> Corruption {
    Corruption {
        segment: header.number,
        first: header.first_position,
        last: Position::MAX,
        problem: format!("its records cannot be indexed: {fault}"),
    }
}

/// Writes an index file; whether that was done. A failure is reported and costs a rebuild at the
/// next start.
pub fn save(storage: &dyn Storage, number: u64, index: &IndexFile) -> bool {
    let saved = storage.write_atomic(&index_name(number), index.as_bytes());
    if let Err(error) = &saved {
        tell!(warn, segment = number, %error, "cannot save an index file");
    }
    saved.is_ok()
}

/// Asks the index of a sealed segment, also of one that is not served from it yet.
///
/// # Errors
/// As [`build`].
pub fn ask_index<T>(
    log: &Shared,
    segment: &Segment,
    question: impl Fn(&IndexFile) -> Result<T, IndexFault>,
) -> Result<T, RebuildError> {
    if let Some(answer) = segment.ask_index(&question)? {
        return Ok(answer);
    }
    let built = build(&*log.env.storage, log.hasher, segment.header())?;
    question(&built).map_err(|fault| unindexable(segment.header(), fault).into())
}
